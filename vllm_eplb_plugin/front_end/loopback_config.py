# SPDX-License-Identifier: Apache-2.0
"""The front end's part of loopback: its worker is chosen, and the platform gate lifted."""

from collections.abc import Callable
from typing import Any

from vllm_eplb_plugin.compatibility import installed_support
from vllm_eplb_plugin.loopback.coordinator import FORK_COORDINATOR
from vllm_eplb_plugin.loopback.cpu import preparation as cpu
from vllm_eplb_plugin.loopback.cpu.forked_ranks import FORK_RANKS, may_fork
from vllm_eplb_plugin.loopback.one_gpu import preparation as one_gpu
from vllm_eplb_plugin.loopback.one_gpu.device import RELEASES as ON_ONE_GPU
from vllm_eplb_plugin.loopback.refusals import LoopbackError
from vllm_eplb_plugin.overrides.binding import bind
from vllm_eplb_plugin.overrides.override import Override, is_among, select


class _PlatformAllowedEplb:
    """vLLM's platform, except that it passes the check for a device that may use EPLB."""

    def __init__(self, platform: Any) -> None:
        self._platform = platform

    def __getattr__(self, name: str) -> Any:
        return getattr(self._platform, name)

    def is_cuda_alike(self) -> bool:
        return True


def _refuse_release_without_serving(served: tuple[str, ...], where: str) -> None:
    support = installed_support()
    if not any(is_among(support.release, releases) for releases in served):
        raise LoopbackError(
            f"loopback on {where} cannot serve with vLLM {support.installed}: it does with "
            f"releases {' and '.join(served)}. Install one of those, or remove the setting loopback"
        )


def create_loopback_config(arguments: Any, create: Callable[[], Any]) -> Any:
    """Make vLLM's configuration for loopback.

    Args:
        arguments: vLLM's ``EngineArgs``, which are changed.
        create: Makes the configuration of them.

    Raises:
        LoopbackError: Neither this release nor this machine can serve so.
    """
    from vllm.platforms import current_platform

    if current_platform.is_cpu():
        _refuse_release_without_serving(cpu.RELEASES, "a CPU")
        bind([ALLOW_EPLB, FORK_COORDINATOR])
        use_async = arguments.eplb_config.use_async
        cpu.prepare_arguments(arguments)
        if may_fork():
            bind(select(FORK_RANKS, installed_support().release))
        config = create()
        cpu.prepare_config(config, use_async)
    elif current_platform.is_cuda():
        _refuse_release_without_serving((ON_ONE_GPU,), "a GPU")
        bind([FORK_COORDINATOR])
        one_gpu.prepare_arguments(arguments)
        config = create()
        one_gpu.prepare_config(config)
    else:
        raise LoopbackError(
            "loopback runs on a CPU, with vLLM's build for it, or on one NVIDIA GPU, and vLLM "
            f"sees {current_platform.device_name or 'neither'}: `vllm-eplb doctor` shows what "
            "there is"
        )
    return config


ALLOW_EPLB = Override(
    # Only this module's name: is_cuda_alike is asked in one place there, the gate.
    target="vllm.config.parallel:current_platform",
    signature=None,
    kind="pretend",
    replace=_PlatformAllowedEplb,
    fixes="EPLB is refused on a CPU, so that nobody can test it without several GPUs.",
    delete_when="vLLM allows EPLB on a CPU.",
)
