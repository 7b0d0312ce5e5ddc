# SPDX-License-Identifier: Apache-2.0
"""What a benchmark needs, looked at before anything is measured."""

import importlib
import os
from pathlib import Path

from vllm_eplb_plugin.advice import why_not_imported
from vllm_eplb_plugin.bench.result import BenchError
from vllm_eplb_plugin.compatibility import installed_support
from vllm_eplb_plugin.placement.fast_way import describe, import_problem
from vllm_eplb_plugin.releases import UnsupportedReleaseError


def require_vllm(module: str) -> None:
    """Require a vLLM of a supported release whose ``module`` can be imported.

    Raises:
        BenchError: Names what is missing, and the next step.
    """
    try:
        installed_support()
        importlib.import_module(module)
    except UnsupportedReleaseError as error:
        raise BenchError(str(error)) from error
    except Exception as error:  # whatever vLLM or torch raise when imported is the answer
        raise BenchError(why_not_imported(module, describe(error))) from error


def require_compiled_policy() -> None:
    """Require that numba can compile the policy.

    Raises:
        BenchError: It cannot.
    """
    if problem := import_problem("vllm_eplb_plugin.planning.policies.default"):
        raise BenchError(
            f"the plugin's policy cannot be compiled ({problem}): install numba, in the release "
            "that the installed vLLM asks for"
        )


def require_device(name: str) -> None:
    """Require a CPU or a CUDA device that torch has; vLLM, which brings torch, may be missing.

    Raises:
        BenchError: It has not.
    """
    if name.partition(":")[0] not in ("cpu", "cuda"):
        raise BenchError(f"--device {name}: EPLB runs on cpu or cuda")
    if import_problem("torch"):
        return
    import torch

    try:
        torch.empty(0, device=name)
    except Exception as error:  # by device and build of torch: RuntimeError, AssertionError, ...
        raise BenchError(
            f"--device {name} cannot be used ({describe(error)}): --device cpu can"
        ) from error


def require_files(json: Path | None, plot: Path | None) -> None:
    """Require that the files that are asked for can be written.

    Raises:
        BenchError: There is no such folder, no right to write there, or no matplotlib for a plot.
    """
    for file in (json, plot):
        if file is not None and not file.parent.is_dir():
            raise BenchError(f"{file} cannot be written: there is no folder {file.parent}")
        if file is not None and file.is_dir():
            raise BenchError(f"{file} cannot be written: it is a folder, name a file in it")
        if file is not None and not os.access(file if file.exists() else file.parent, os.W_OK):
            raise BenchError(f"{file} cannot be written: this user may not, name another folder")
    if plot is not None and (problem := import_problem("matplotlib.figure")):
        raise BenchError(f"--plot needs matplotlib ({problem}): pip install matplotlib")
