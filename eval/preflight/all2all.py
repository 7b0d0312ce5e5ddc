# SPDX-License-Identifier: Apache-2.0
"""Which all2all backends of vLLM can take a model's hidden size and type of numbers."""

import json
from pathlib import Path
from typing import Any

_COMPILED_SIZES = (2048, 2560, 3072, 4096, 5120, 6144, 7168, 8192)
"""Hidden sizes for which the kernels of DeepEP's low-latency mode and of NIXL are built:
``SUPPORTED_HIDDEN_SIZES`` of their ``prepare_finalize`` in every release from 0.18.0 to 0.33.0."""

_OF_COMPILED_SIZES = ("deepep_low_latency", "nixl_ep")
_OF_BFLOAT16 = ("deepep_low_latency", "deepep_high_throughput", "deepep_v2", "nixl_ep")
"""They combine the experts' outputs in bfloat16 and nothing else."""
_INSTEAD = "--set serve.options.all2all-backend=allgather_reducescatter takes any"


def problem_of_backend(backend: str, dtype: object, folder: Path) -> str | None:
    """Why a backend cannot serve a model; None: nothing is known against it.

    Args:
        backend: The value of ``serve.options.all2all-backend``.
        dtype: That of ``serve.options.dtype``; None: the model's own.
        folder: Of the model.
    """
    config = _text_config(folder)
    used = _dtype(dtype, config)
    if backend in _OF_BFLOAT16 and used in ("float32", "float", "float16", "half"):
        return (
            f"{backend} moves bfloat16 only, and the model is served in {used}: "
            f"--set serve.options.dtype=bfloat16, or {_INSTEAD}"
        )
    hidden = config.get("hidden_size")
    if backend not in _OF_COMPILED_SIZES or not isinstance(hidden, int):
        return None
    # vLLM pads to the next size, which quantized experts can take and others cannot.
    padded = "quantization_config" in config and hidden <= _COMPILED_SIZES[-1]
    if hidden in _COMPILED_SIZES or padded:
        return None
    sizes = ", ".join(map(str, _COMPILED_SIZES))
    return (
        f"{backend} takes hidden sizes of {sizes}, and {folder / 'config.json'} has {hidden}: "
        f"take another model, or {_INSTEAD}"
    )


def _text_config(folder: Path) -> dict[str, Any]:
    """Of the part for text; what cannot be read is told where the model's files are checked."""
    try:
        config = json.loads((folder / "config.json").read_bytes())
        inner = config.get("text_config") or {}
        return {**config, **inner}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def _dtype(option: object, config: dict[str, Any]) -> object:
    if option not in (None, "auto"):
        return option
    own = config.get("dtype", config.get("torch_dtype"))
    # A model in float32 is served in what the platform prefers.
    return None if own in ("float32", "float") else own
