# SPDX-License-Identifier: Apache-2.0
"""Makes Python processes, and all that they start, believe in another processor.

Python imports this module at its start when its folder is on ``PYTHONPATH`` (see
``tests/processors/__init__.py``). What torch says of the processor is replaced before anything can
ask, so that vLLM also loads the library of kernels that is built for it. Instructions that the real
processor lacks stay missing: what runs them dies.
"""

import importlib.util
import os
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_FLAGS = ("avx512_f", "avx512_bf16", "amx_tile", "amx_bf16", "amx_int8")
_HAS = {"avx2": 0, "avx512": 1, "avx512_bf16": 2, "amx": 5}
_ASKED = {
    "_is_avx512_supported": "avx512_f",
    "_is_avx512_bf16_supported": "avx512_bf16",
    "_is_amx_tile_supported": "amx_tile",
}


class _PretendWhenImported:
    """Finds ``torch.cpu``, once, and changes it as soon as it is there."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        if name != "torch.cpu":
            return None
        sys.meta_path.remove(self)  # type: ignore[arg-type]
        spec = importlib.util.find_spec(name)
        assert spec is not None and spec.loader is not None
        execute = spec.loader.exec_module

        def execute_and_pretend(module: ModuleType) -> None:
            execute(module)
            _pretend(module)

        spec.loader.exec_module = execute_and_pretend  # type: ignore[method-assign]
        return spec


def _pretend(torch_cpu: ModuleType) -> None:
    import torch

    processor = os.environ["EPLB_TEST_PROCESSOR"]
    flags = {flag: number < _HAS[processor] for number, flag in enumerate(_FLAGS)}
    binding = torch._C._cpu
    for function, flag in _ASKED.items():
        for module in (torch_cpu, binding):  # vLLM 0.18 asks the second one
            setattr(module, function, lambda answer=flags[flag]: answer)
    if hasattr(binding, "_get_cpu_capability"):
        real = binding._get_cpu_capability
        binding._get_cpu_capability = lambda: {**real(), **flags}


if "EPLB_TEST_PROCESSOR" in os.environ:
    sys.meta_path.insert(0, _PretendWhenImported())  # type: ignore[arg-type]
