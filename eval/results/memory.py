# SPDX-License-Identifier: Apache-2.0
"""Whether memory grows."""

from bisect import bisect
from collections.abc import Sequence
from statistics import median

from pydantic import BaseModel, ConfigDict

from eval.serving.memory import gpu_memory_mib, gpu_memory_of_devices_mib, host_memory_mib


class MemorySample(BaseModel):
    """At one moment, in MiB."""

    model_config = ConfigDict(frozen=True)

    seconds: float
    """Since the load began."""
    host: int
    gpu: int | None
    """None: there is none, or the driver does not tell."""
    rearrangements: int | None = None
    """Finished by then; none: without the plugin nothing tells of their end."""


class MemoryProbe:
    """Samples a server's memory: of its processes, or of the GPUs if the driver names none."""

    def __init__(self, session: int, on_gpus: bool) -> None:
        self._session = session
        self._on_gpus = on_gpus
        self.of_processes = on_gpus and gpu_memory_mib(session) is not None
        self.samples: list[MemorySample] = []

    def sample(self, seconds: float) -> None:
        """Take one."""
        gpu = self._gpu()
        host = host_memory_mib(self._session)
        self.samples.append(MemorySample(seconds=round(seconds, 1), host=host, gpu=gpu))

    def _gpu(self) -> int | None:
        if self.of_processes:
            return gpu_memory_mib(self._session)
        return gpu_memory_of_devices_mib() if self._on_gpus else None


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


def growth_mib(values: Sequence[int]) -> float | None:
    """How much more the last fifth has than the second: the first is for warming up.

    Returns:
        The difference of the medians; None with fewer than ten values.
    """
    fifth = len(values) // 5
    if fifth < 2:
        return None
    return float(median(values[-fifth:]) - median(values[fifth : 2 * fifth]))
