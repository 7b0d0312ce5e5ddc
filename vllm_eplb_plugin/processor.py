# SPDX-License-Identifier: Apache-2.0
"""The processor, as vLLM's build for a CPU sees it, and what that takes because of it."""

import importlib.util
import platform
from dataclasses import dataclass
from pathlib import Path

_KERNELS = {
    "avx512_bf16": "_C",
    "avx512": "_C_AVX512",
    "avx2": "_C_AVX2",
}
"""vLLM's library by the newest of these that there is (``CpuPlatform.import_kernels``)."""


@dataclass(frozen=True)
class Processor:
    """A processor is described by what decides how a server computes on it."""

    name: str
    features: tuple[str, ...]
    """Of ``avx2``, ``avx512``, ``avx512_bf16`` and ``amx``, those that it has."""
    kernels: str | None
    """The library that vLLM loads, or ``zentorch`` where that takes over; None: there is none."""

    @property
    def description(self) -> str:
        """The processor in a line, for a person."""
        features = ", ".join(self.features) or "neither AVX2 nor more"
        return f"{self.name} ({features}), where vLLM takes the kernels of {self.kernels or 'none'}"


def this_processor() -> Processor:
    """Ask torch, as vLLM does.

    Raises:
        ImportError: torch cannot be imported.
    """
    import torch.cpu

    asked = {
        "avx2": torch.cpu._is_avx2_supported,
        "avx512": torch.cpu._is_avx512_supported,
        "avx512_bf16": torch.cpu._is_avx512_bf16_supported,
        "amx": torch.cpu._is_amx_tile_supported,
    }
    features = tuple(name for name, supported in asked.items() if supported())
    kernels = next((library for name, library in _KERNELS.items() if name in features), None)
    if _takes_zentorch():
        kernels = "zentorch"
    return Processor(processor_name(), features, kernels)


def processor_name() -> str:
    """Read what the processor calls itself."""
    for line in _information().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def processor_problem(processor: Processor) -> str | None:
    """Say why loopback cannot serve on a processor; None if it can."""
    if processor.kernels == "zentorch":
        return (
            "zentorch is installed, whose kernels vLLM takes on this AMD processor, and they do "
            "not see that experts move: every answer is wrong. Uninstall zentorch here"
        )
    if processor.kernels is None:
        return (
            f"{processor.name} has none of {', '.join(reversed(_KERNELS))}, for one of which "
            "vLLM's kernels are built: serve on an x86-64 processor that has"
        )
    return None


def _takes_zentorch() -> bool:
    """As ``vllm.platforms`` finds it, without an import of zentorch."""
    information = _information()
    on_zen = "AuthenticAMD" in information and "avx512" in information
    return on_zen and importlib.util.find_spec("zentorch") is not None


def _information() -> str:
    file = Path("/proc/cpuinfo")
    return file.read_text(encoding="utf-8") if file.exists() else ""
