# SPDX-License-Identifier: Apache-2.0
"""Where a process starts EPLB.

Bound when vLLM's module is imported, which every process with a Mixture-of-Experts model does, also
without EPLB. So nothing of vLLM is looked at before an `EplbState` is made.
"""

import functools
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from vllm_eplb_plugin.overrides.override import Override, is_among, select

if TYPE_CHECKING:
    from vllm_eplb_plugin.settings import Settings

_STATE = "vllm.distributed.eplb.eplb_state"


def _override_init(original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        settings = _current_settings()
        if settings.enabled:
            _take_charge()
            from vllm_eplb_plugin.engine.state_hooks import make_state as make
        else:
            from vllm_eplb_plugin.engine.state_hooks import leave_state_alone as make
        make(original, settings, self, *args, **kwargs)

    return __init__


def _override_from_mapping(original: Callable[..., Any]) -> Any:
    @functools.wraps(getattr(original, "__func__", original))
    def from_mapping(cls: Any, *args: Any, **kwargs: Any) -> Any:
        # It makes an `EplbState` itself, too late to replace what is running already.
        if _current_settings().enabled and is_among(_take_charge(), FROM_MAPPING.releases):
            from vllm_eplb_plugin.engine.commit_points import make_from_mapping

            return make_from_mapping(cls, *args, **kwargs)
        return original(*args, **kwargs)

    return classmethod(from_mapping)


def _current_settings() -> "Settings":
    from vllm_eplb_plugin.compatibility import installed_support

    try:
        from vllm_eplb_plugin.engine.current_settings import current_settings
    except ImportError:
        installed_support()  # refuses a vLLM that has that name elsewhere
        raise
    return current_settings()


def _take_charge() -> str:
    """Bind all that EPLB needs; the release whose overrides these are."""
    from vllm_eplb_plugin.compatibility import installed_support
    from vllm_eplb_plugin.overrides.binding import bind
    from vllm_eplb_plugin.overrides.catalogue import overrides_at

    release = installed_support().release
    of_runner = (o for o in overrides_at(release, "runner") if o.module in sys.modules)
    bind((*select(OVERRIDES, release), *overrides_at(release, "state"), *of_runner))
    return release


FROM_MAPPING = Override(
    target=f"{_STATE}:EplbState.from_mapping",
    signature="(model, model_config, device, parallel_config, expanded_physical_to_logical, "
    "num_valid_physical_experts)",
    kind="replace",
    replace=_override_from_mapping,
    fixes="Elastic EP's new ranks take over a map unchecked, derived in Python.",
    delete_when="vLLM derives l2p and replica counts on the device.",
    releases="<0.29",
)

OVERRIDES = (
    Override(
        target=f"{_STATE}:EplbState.__init__",
        signature="(self, parallel_config, device)",
        kind="hook",
        replace=_override_init,
        fixes="The plugin's settings reach the process that needs them only in here: vLLM hands "
        "--additional-config to no plugin.",
        delete_when="vLLM hands --additional-config to its plugins.",
    ),
    FROM_MAPPING,
)
