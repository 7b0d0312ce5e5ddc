# SPDX-License-Identifier: Apache-2.0
"""Where vLLM's API server gets routes by which operators act on EPLB, if that is allowed.

Bound when vLLM's module is imported, in servers without EPLB, too: nothing else is imported here.
"""

import functools
import os
from collections.abc import Callable
from typing import Any

from vllm_eplb_plugin.overrides.override import Override


def _override(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def attach_router(app: Any, *args: Any, **kwargs: Any) -> Any:
        answer = original(app, *args, **kwargs)
        served = getattr(app.state, "args", None)
        if getattr(served, "enable_eplb", False):
            _add_routes(app, getattr(served, "additional_config", None))
        return answer

    return attach_router


def _add_routes(app: Any, additional_config: object) -> None:
    from vllm_eplb_plugin.settings import load_settings, turned_off_by

    if turned_off_by(additional_config) is not None:
        return
    is_allowed = load_settings(additional_config).control
    if is_allowed or _is_in_dev_mode():
        from vllm_eplb_plugin.front_end.control_routes import make_router

        app.include_router(make_router(is_allowed))


def _is_in_dev_mode() -> bool:
    # As vLLM reads it; its own module would be imported for it.
    value = os.environ.get("VLLM_SERVER_DEV_MODE", "0")
    return value.strip().isdigit() and bool(int(value))


OVERRIDES = (
    Override(
        target="vllm.entrypoints.serve.instrumentator.metrics:attach_router",
        signature="(app)",
        kind="hook",
        replace=_override,
        fixes="Nobody can hold EPLB, or ask for a plan or a rearrangement, while a server serves.",
        delete_when="vLLM has such endpoints.",
    ),
)
