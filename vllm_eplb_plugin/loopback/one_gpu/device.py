# SPDX-License-Identifier: Apache-2.0
"""Overrides for ranks that share one GPU, in loopback workers only."""

from collections.abc import Callable
from typing import Any

from vllm_eplb_plugin.overrides.override import Override

RELEASES = ">=0.20"
"""Before 0.20, EPLB sends weights by NCCL only."""

_SIGNATURE = (
    "(cpu_group, device=None, device_group=None, unique_name='', global_ranks=None, "
    "global_world_size=None, tcp_store_group=None{})"
)


class _PlatformOverGloo:
    """vLLM's platform, except that its ranks find each other over gloo."""

    dist_backend = "gloo"

    def __init__(self, platform: Any) -> None:
        self._platform = platform

    def __getattr__(self, name: str) -> Any:
        return getattr(self._platform, name)


def _staged_communicator(_: Callable[..., Any]) -> type:
    from vllm_eplb_plugin.loopback.one_gpu.communicator import StagedCommunicator

    return StagedCommunicator


OVERRIDES = (
    Override(
        # Only this module's name: the worker asks it for the backend of all its groups.
        target="vllm.v1.worker.gpu_worker:current_platform",
        signature=None,
        kind="pretend",
        replace=_PlatformOverGloo,
        fixes="NCCL refuses two ranks on one device, so that EPLB needs two GPUs.",
        delete_when="NCCL allows several ranks on a device.",
        releases=RELEASES,
    ),
    *(
        Override(
            target="vllm.distributed.device_communicators.cuda_communicator:CudaCommunicator",
            signature=_SIGNATURE.format(more),
            kind="pretend",
            replace=_staged_communicator,
            fixes="Its collectives are NCCL's, which refuses two ranks on one device.",
            delete_when="NCCL allows several ranks on a device.",
            releases=releases,
        )
        for more, releases in (("", ">=0.20,<0.27"), (", use_all2all=False", ">=0.27"))
    ),
)
