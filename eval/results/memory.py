# SPDX-License-Identifier: Apache-2.0
"""Whether memory grows."""

from bisect import bisect
from collections.abc import Sequence
from statistics import median

from pydantic import BaseModel, ConfigDict

_MOST_SAMPLES = 300


class MemorySample(BaseModel):
    """At one moment, in MiB."""

    model_config = ConfigDict(frozen=True)

    seconds: float
    """Since the load began."""
    host: int
    """Of its processes, resident."""
    gpu: int | None
    """None: there is none, or the driver does not tell."""
    threads: int | None = None
    """Of its processes, as the next two; none: an earlier harness did not look."""
    descriptors: int | None = None
    """Open files and connections."""
    shared: int | None = None
    """MiB of files in /dev/shm."""
    rearrangements: int | None = None
    """Finished by then; none: without the plugin nothing tells of their end."""


class MemoryUse(BaseModel):
    """Of one server while it was under load."""

    samples: list[MemorySample]
    """Of the whole time, thinned out."""
    of_processes: bool
    """False: the GPU memory is that of the GPUs, whoever uses it."""
    gpu_growth_mib: float | None
    """From the second fifth of the time to the last, as the next; none: too few samples."""
    host_growth_mib: float | None
    """Of the host's memory."""
    thread_growth: float | None = None
    """Of its threads; none also of an earlier harness, as the next two."""
    descriptor_growth: float | None = None
    """Of open files and connections."""
    shared_growth_mib: float | None = None
    """Of files in /dev/shm."""

    @classmethod
    def of(cls, samples: list[MemorySample], of_processes: bool) -> "MemoryUse":
        """Of all samples, of which those that are kept leave a file short."""
        gpu = [sample.gpu for sample in samples if sample.gpu is not None]
        return cls(
            thread_growth=grown_by([one.threads for one in samples if one.threads is not None]),
            descriptor_growth=grown_by(
                [one.descriptors for one in samples if one.descriptors is not None]
            ),
            shared_growth_mib=grown_by([one.shared for one in samples if one.shared is not None]),
            samples=samples[:: -(-len(samples) // _MOST_SAMPLES) or 1],
            of_processes=of_processes,
            gpu_growth_mib=grown_by(gpu),
            host_growth_mib=grown_by([sample.host for sample in samples]),
        )


def with_rearrangements(
    samples: Sequence[MemorySample], finished: Sequence[float]
) -> list[MemorySample]:
    """The samples with how many rearrangements were finished by then.

    Args:
        samples: From a probe.
        finished: When each one was, in seconds since the load began, in order.
    """
    return [
        sample.model_copy(update={"rearrangements": bisect(finished, sample.seconds)})
        for sample in samples
    ]


def grown_by(values: Sequence[int]) -> float | None:
    """How much more the last fifth has than the second: the first is for warming up.

    Returns:
        The difference of the medians; None with fewer than ten values.
    """
    fifth = len(values) // 5
    if fifth < 2:
        return None
    return float(median(values[-fifth:]) - median(values[fifth : 2 * fifth]))
