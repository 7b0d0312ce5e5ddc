# SPDX-License-Identifier: Apache-2.0
"""Whether vLLM can use DeepEP here, and what to install if it cannot (docs/gpu-evaluation.md)."""

import importlib
import importlib.metadata
import importlib.util
from types import ModuleType

_PREBUILT = {
    "2.11": "tokenspeed-deepep==1.2.1.post20251110",
    "2.14": "sgl-deep-ep==0.1.2.post1",
}
"""By the release of torch: what was served with, on H200 by Python 3.12 and CUDA 13."""

_BUILD = "build github.com/deepseek-ai/DeepEP against this torch (docs/gpu-evaluation.md)"


def deep_ep_problem() -> str | None:
    """Say why vLLM cannot use DeepEP's low-latency and high-throughput backends; None if it can.

    vLLM only looks whether there is a package of that name. One that was built for another
    PyTorch, does not find NVSHMEM, or is not DeepEP at all, then fails in every worker.
    """
    found = _imported()
    return found if isinstance(found, str) else _lacks(found, "Buffer")


def deep_ep_v2_problem() -> str | None:
    """Say why vLLM cannot use the backend ``deepep_v2``, of DeepEP's second interface."""
    found = _imported()
    return found if isinstance(found, str) else _lacks(found, "ElasticBuffer")


def _imported() -> ModuleType | str:
    if importlib.util.find_spec("deep_ep") is None:
        return f"deep_ep is not installed: {_how_to_install()}"
    try:
        return importlib.import_module("deep_ep")
    except Exception as error:  # whatever foreign code raises is the answer
        return f"deep_ep cannot be imported: {type(error).__name__}: {error}"


def _lacks(deep_ep: ModuleType, interface: str) -> str | None:
    if hasattr(deep_ep, interface):
        return None
    if interface == "Buffer":
        return f"deep_ep of {deep_ep.__file__} has no class Buffer, so it is not DeepEP"
    return f"deep_ep of {deep_ep.__file__} has no class {interface}: it is older than DeepEP 2"


def _how_to_install() -> str:
    try:
        torch = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return _BUILD
    prebuilt = _PREBUILT.get(".".join(torch.split(".")[:2]))
    return _BUILD if prebuilt is None else f"pip install --no-deps {prebuilt}"
