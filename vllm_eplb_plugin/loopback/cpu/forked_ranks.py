# SPDX-License-Identifier: Apache-2.0
"""Ranks on a CPU that are forks of the front end, which has imported everything."""

import os
import sys
from collections.abc import Callable
from typing import Any

from vllm_eplb_plugin.loopback.forks import fork_instead
from vllm_eplb_plugin.overrides.override import Override

_RELEASES = ">=0.32"
_FFI = "llvmlite.binding.ffi"


def may_fork() -> bool:
    """Say whether ranks can be forks.

    OpenMP's threads do not live on in a fork, and it reads how many there are, and on which cores,
    when it is loaded. With one on any core there is nothing to read.
    """
    one_thread = os.environ.get("OMP_NUM_THREADS") == "1"
    return one_thread and os.environ.get("VLLM_CPU_OMP_THREADS_BIND") == "nobind"


def _override_rebind_kernels(original: Callable[..., None]) -> Callable[..., None]:
    def rebind_kernels(overrides: Any) -> None:
        hidden = sys.modules.pop(_FFI, None)
        try:
            original(overrides)
        finally:
            if hidden is not None:
                sys.modules[_FFI] = hidden

    return rebind_kernels


FORK_RANKS = (
    *(
        Override(
            target=f"{module}:get_mp_context",
            signature="()",
            kind="replace",
            replace=fork_instead,
            fixes="A rank is two processes, an engine and its worker, and each imports vLLM again: "
            "62 s until two ranks serve gsm-tiny on 2 cores of an AMD EPYC, where forks take 26 s.",
            delete_when="vLLM forks its processes on a CPU.",
            releases=_RELEASES,
        )
        for module in ("vllm.v1.engine.utils", "vllm.v1.executor.multiproc_executor")
    ),
    Override(
        target="vllm.triton_utils.dispatcher:_rebind_kernels",
        signature="(overrides)",
        kind="replace",
        replace=_override_rebind_kernels,
        fixes="vLLM looks for its kernels in all that any module names, and fails at functions of "
        "llvmlite, which answer to every name: a worker in which numba was imported cannot start.",
        delete_when="vLLM passes over what has no dictionary of its own.",
        releases=_RELEASES,
    ),
)
