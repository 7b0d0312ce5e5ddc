# SPDX-License-Identifier: Apache-2.0
"""Environment variables that keep the plugin, or its settings, from where they are needed."""

import os
from collections.abc import Mapping

from vllm_eplb_plugin import ENVIRONMENT_VARIABLE

ENTRY_POINT = "eplb"
_ALLOWED = "VLLM_PLUGINS"
_COPIED = "VLLM_RAY_EXTRA_ENV_VARS_TO_COPY"
_COPIED_PREFIXES = "VLLM_RAY_EXTRA_ENV_VAR_PREFIXES_TO_COPY"


def not_loaded_problem(environment: Mapping[str, str] = os.environ) -> str | None:
    """Say why vLLM would not load the plugin though it is installed; None: it would.

    vLLM compares the names in ``VLLM_PLUGINS`` as they stand between commas, and takes an empty
    value for a list of nothing.
    """
    value = environment.get(_ALLOWED)
    if value is None or ENTRY_POINT in (names := value.split(",")):
        return None
    others = [name for name in names if name.strip() not in ("", ENTRY_POINT)]
    wanted = ",".join([*others, ENTRY_POINT])
    return (
        "vLLM will not load the plugin, so EPLB would be vLLM's own without a word: "
        f"{_ALLOWED}={value!r} does not name {ENTRY_POINT}. Set {_ALLOWED}={wanted}, "
        "or unset it"
    )


def ray_hint(environment: Mapping[str, str] = os.environ) -> str | None:
    """Say where settings of the environment would not arrive; None: they would, or are none."""
    copied, prefixes = (_names(environment.get(name, "")) for name in (_COPIED, _COPIED_PREFIXES))
    if (
        not environment.get(ENVIRONMENT_VARIABLE)
        or ENVIRONMENT_VARIABLE in copied
        or ENVIRONMENT_VARIABLE.startswith(tuple(prefixes))
    ):
        return None
    return (
        f"with --distributed-executor-backend ray, vLLM does not copy {ENVIRONMENT_VARIABLE} to "
        "workers: give the settings by --additional-config, or set "
        f"{_COPIED}={','.join([*copied, ENVIRONMENT_VARIABLE])}"
    )


def unreadable_variables() -> list[str]:
    """Name every variable of vLLM's whose value vLLM itself could not read; imports vLLM.

    It converts most of them by ``int``, and not before it looks at them: ``false`` for 0 ends a
    server that has started for a while.
    """
    from vllm.envs import environment_variables

    problems = []
    for name in sorted(environment_variables.keys() & os.environ.keys()):
        try:
            environment_variables[name]()
        except Exception as error:  # whatever its conversion raises is the answer
            problems.append(
                f"{name}={os.environ[name]!r} cannot be read by vLLM ({error}). Where it is a "
                "switch, write 0 or 1"
            )
    return problems


def _names(value: str) -> list[str]:
    return [name.strip() for name in value.split(",") if name.strip()]
