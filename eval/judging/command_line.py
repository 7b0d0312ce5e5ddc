# SPDX-License-Identifier: Apache-2.0
"""Whether the server of an arm was started as its configuration says. Pure functions."""

import json
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import PurePath
from typing import Any

from eval.config.schema import Arm, Config

_ENABLE, _CONFIG = "--enable-eplb", "--eplb-config"
_SHORTEST = {_ENABLE: len("--enable-ep"), _CONFIG: len("--ep")}
"""vLLM takes options by any beginning that no other option has."""


def eplb_options(command: Sequence[str]) -> list[str]:
    """What turns EPLB on in a command line of vLLM, or sets it up, however it is spelt."""
    return [word for word in command if _option(word) in (_ENABLE, _CONFIG)]


def strange_in_command(config: Config, arm: Arm, command: Sequence[str]) -> str | None:
    """What shows that a command line is of another arm or run; None: nothing.

    An arm without EPLB that has its options is one of this run all the same: the rules tell.
    """
    return next(_strange(config, arm, command), None)


def _strange(config: Config, arm: Arm, command: Sequence[str]) -> Iterator[str]:
    if config.model not in command:
        yield f"it did not serve the run's model {config.model}"
    if arm.eplb is not None:
        found = _value(command, _CONFIG)
        expected = arm.eplb.model_dump(exclude_none=True)
        if _ENABLE not in map(_option, command) or found != expected:
            yield f"its EPLB is {json.dumps(found)}, that of the arm is {json.dumps(expected)}"
    settings = _value(command, "--additional-config")
    plugin = dict(settings.get("eplb_plugin") or {}) if isinstance(settings, dict) else {}
    folder = PurePath(str(plugin.pop("events_dir", "")))
    configured = config.plugin_settings(arm)
    if plugin != (configured or {}):
        yield (
            f"the plugin's settings were {json.dumps(plugin)}, those of the arm are "
            f"{json.dumps(configured)}"
        )
    if configured is not None and folder.parts[-3:] != ("arms", arm.name, "events"):
        yield f"its events went to {folder}"


def _option(word: str) -> str:
    """The option that a word of a command line is, its own name or a shortened one."""
    name = word.split("=")[0].split(".")[0].replace("_", "-")
    for option, shortest in _SHORTEST.items():
        if len(name) >= shortest and option.startswith(name):
            return option
    return name


def _value(command: Sequence[str], option: str) -> Any:
    """The JSON after an option, the last time that it is given; None: it is not."""
    value = None
    for word, following in pairwise(command):
        if _option(word) == option:
            try:
                value = json.loads(following)
            except ValueError:
                value = following
    return value
