# SPDX-License-Identifier: Apache-2.0
"""Samples of a server's memory."""

from eval.results.memory import MemorySample
from eval.serving.memory import gpu_memory_mib, gpu_memory_of_devices_mib, host_memory_mib
from eval.serving.ranks import usage_of


class MemoryProbe:
    """Samples a server's memory: of its processes, or of the GPUs if the driver names none."""

    def __init__(self, session: int, on_gpus: bool) -> None:
        self._session = session
        self._on_gpus = on_gpus
        self.of_processes = on_gpus and gpu_memory_mib(session) is not None
        self.samples: list[MemorySample] = []

    def sample(self, seconds: float) -> None:
        """Take one."""
        gpu, host, held = self._gpu(), host_memory_mib(self._session), usage_of(self._session)
        self.samples.append(
            MemorySample(
                seconds=round(seconds, 1),
                host=host,
                gpu=gpu,
                threads=held.threads,
                descriptors=held.descriptors,
                shared=held.shared_mib,
            )
        )

    def _gpu(self) -> int | None:
        if self.of_processes:
            return gpu_memory_mib(self._session)
        return gpu_memory_of_devices_mib() if self._on_gpus else None
