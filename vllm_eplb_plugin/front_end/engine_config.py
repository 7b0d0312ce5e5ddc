# SPDX-License-Identifier: Apache-2.0
"""Where EPLB is asked for: settings and vLLM are checked before a model is loaded.

Bound when vLLM's module is imported, in processes without EPLB, too: nothing else is imported here.
"""

import functools
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from vllm_eplb_plugin.overrides.override import Override

if TYPE_CHECKING:
    from vllm_eplb_plugin.settings import Settings

logger = logging.getLogger("vllm.eplb_plugin")


def _override(original: Callable[..., Any]) -> Callable[..., Any]:
    # Whatever the signature: if it is not as expected, that is refused where EPLB is asked for.
    @functools.wraps(original)
    def create_engine_config(self: Any, *args: Any, **kwargs: Any) -> Any:
        from vllm_eplb_plugin.settings import (
            load_settings,
            turned_off_by,
            with_settings_of_environment,
        )

        additional_config = getattr(self, "additional_config", None)
        off = turned_off_by(additional_config)
        if getattr(self, "enable_eplb", False):
            _say_once(*_examine(off))
            if off is None:
                settings = load_settings(additional_config)
                _check_planning(settings)
                _check_fault(settings, self.eplb_config.use_async)
                from vllm_eplb_plugin.observe.front_end_process import mark_front_end

                mark_front_end()
            if isinstance(additional_config, dict):
                self.additional_config = with_settings_of_environment(additional_config)
            if off is None and getattr(self, "enable_lora", False):
                _guard_adapters()
        if not load_settings().enabled or not load_settings(additional_config).loopback:
            config = original(self, *args, **kwargs)
        else:
            from vllm_eplb_plugin.front_end.loopback_config import create_loopback_config

            create = functools.partial(original, self, *args, **kwargs)
            config = create_loopback_config(self, create)
        if off is None:
            settings = load_settings(additional_config)
            if settings.exact_combine:
                from vllm_eplb_plugin.front_end.exact_combine import check_exact_combine

                check_exact_combine(config)
            if getattr(self, "enable_eplb", False):
                _tell_metrics(settings, config)
        return config

    return create_engine_config


def _examine(off: str | None) -> tuple[str, ...]:
    """What to warn of where EPLB is asked for; a vLLM that cannot be overridden is refused."""
    if off is not None:
        return (f"vllm-eplb-plugin is turned off by {off}: EPLB is vLLM's own.",)
    from vllm_eplb_plugin.compatibility import require_support

    support = require_support()
    return () if support.tested else (support.warning,)


def _check_planning(settings: "Settings") -> None:
    from vllm_eplb_plugin.planning.availability import planning_problem

    if (problem := planning_problem(settings.planning)) is not None:
        raise ValueError(problem)


def _tell_metrics(settings: "Settings", config: Any) -> None:
    if settings.metrics is not None:
        from vllm_eplb_plugin.front_end.metrics import tell_metrics

        tell_metrics(settings.metrics, config)
    elif settings.control:
        from vllm_eplb_plugin.front_end.status_folder import make_status_folder

        make_status_folder()


def _check_fault(settings: "Settings", use_async: bool) -> None:
    from vllm_eplb_plugin.fault_settings import fault_problem

    if (problem := fault_problem(settings.fault, use_async)) is not None:
        raise ValueError(problem)


def _guard_adapters() -> None:
    from vllm_eplb_plugin.compatibility import installed_support
    from vllm_eplb_plugin.overrides.binding import bind
    from vllm_eplb_plugin.overrides.catalogue import overrides_at

    bind(overrides_at(installed_support().release, "requests"))


@functools.cache
def _say_once(*warnings: str) -> None:
    for warning in warnings:
        logger.warning("%s", warning)


CREATE_ENGINE_CONFIG = Override(
    target="vllm.engine.arg_utils:EngineArgs.create_engine_config",
    signature="(self, usage_context=None, headless=False)",
    kind="hook",
    replace=_override,
    fixes="A misspelt plugin setting would be found late, in a worker; those of EPLB_PLUGIN reach "
    "no worker on Ray; and loopback has no other place to choose its worker.",
    delete_when="vLLM lets plugins check --additional-config, and hands their variables on.",
)
