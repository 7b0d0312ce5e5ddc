# SPDX-License-Identifier: Apache-2.0
"""What happens when vLLM loads the plugin: next to nothing, before EPLB is asked for.

Every process of vLLM loads it, most of them for models without EPLB. So nothing is imported here
that the process might not need, and no vLLM is refused.
"""

import logging
import os
from collections.abc import Callable
from types import ModuleType

from vllm_eplb_plugin import ENVIRONMENT_VARIABLE
from vllm_eplb_plugin.overrides.binding import bind_what_is_there, unbind
from vllm_eplb_plugin.overrides.catalogue import ENTRY_MODULES, FRONT_END, entry_overrides
from vllm_eplb_plugin.overrides.on_import import when_imported

logger = logging.getLogger("vllm.eplb_plugin")

_taken_back_by: dict[str, Callable[[], None]] = {}
"""By the module of vLLM that is or was waited for."""


def activate() -> None:
    """Bind the entry overrides as soon as vLLM's modules are imported; again changes nothing.

    Raises:
        SettingsError: The environment variable ``EPLB_PLUGIN`` is wrong.
    """
    # Where it says no, only the front end is told, and only if EPLB is asked for.
    modules = ENTRY_MODULES if _is_enabled() else (FRONT_END,)
    for module in modules:
        if module not in _taken_back_by:
            _taken_back_by[module] = when_imported(module, _bind_entry)


def deactivate() -> None:
    """Take the entry overrides back, and wait for no module any longer.

    Raises:
        UnbindError: Somebody else has replaced one of them. All stays as it was.
    """
    unbind(override for module in _taken_back_by for override in entry_overrides(module))
    while _taken_back_by:
        _, take_back = _taken_back_by.popitem()
        take_back()


def _is_enabled() -> bool:
    if not os.environ.get(ENVIRONMENT_VARIABLE):
        return True
    from vllm_eplb_plugin.settings import load_settings

    return load_settings().enabled


def _bind_entry(module: ModuleType) -> None:
    for problem in bind_what_is_there(entry_overrides(module.__name__)):
        logger.debug("%s. It is refused where EPLB is asked for.", problem)
