# SPDX-License-Identifier: Apache-2.0
"""Commands of the harness, carried out up to where servers would be started."""

import contextlib
import io
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import pytest
import typer

from eval.cli import app
from eval.config.find import find_config
from eval.config.loading import load_config, load_gate
from eval.config.schema import Arm, Config
from eval.errors import EvaluationError
from eval.serving.command import server_command
from tests.builders.vllm_options import check_serve, installed_vllm
from vllm_eplb_plugin.settings import load_settings

_BEGINS = {
    "run": ("eval.commands.accuracy", "run"),
    "stress": ("eval.commands.stress", "stress"),
    "faults": ("eval.commands.fault_table", "stress"),
    "latency": ("eval.commands.latency", "measure"),
    "throughput": ("eval.commands.throughput", "measure"),
}
"""By command: what starts its servers."""
_KEY = "a key that is no secret, of documented commands"


class _Began(BaseException):
    """All options were read, and servers would be started."""

    def __init__(self, *given: Any) -> None:
        """Keep what they would be started with."""
        super().__init__()
        self.given = given


def check_harness_command(
    words: Sequence[str], parsed: Callable[[typer.Typer, Sequence[str]], dict[str, Any]]
) -> None:
    """Check what stands behind `python -m eval`.

    Args:
        words: Of the command.
        parsed: Parses it.

    Raises:
        ValueError: It would be refused.
    """
    values = parsed(app, words)
    if words[0] in _BEGINS:
        _check_until_it_begins(words)
        return
    try:
        if words[0] == "check":
            file = find_config(values["config_file"])
            _check_servers(load_config(file, values["settings"] or (), arms=values["arms"]))
        elif values.get("gate"):
            load_gate(Path(values["gate"]))
    except EvaluationError as error:
        raise ValueError(f"python -m eval {words[0]}: {error}") from error


def message_of(error: Exception) -> str:
    """What a command line says of an error; typer's have more than their text."""
    told = getattr(error, "format_message", None)
    return str(error) if told is None else str(told())


def _check_until_it_begins(words: Sequence[str]) -> None:
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()):
        module, name = _BEGINS[words[0]]
        patch.setattr(import_module(module), name, _begin)
        if words[0] in ("latency", "throughput"):
            _give_gpus(patch, module)
        if "--api-key-env" in words:
            patch.setenv(words[words.index("--api-key-env") + 1], _KEY)
        try:
            typer.main.get_command(app).main([*words], standalone_mode=False)
        except _Began as began:
            if isinstance(began.given[0], Config):
                _check_servers(began.given[0])
            return
        except Exception as error:
            raise ValueError(f"python -m eval {words[0]}: {message_of(error)}") from error
    raise ValueError(f"python -m eval {words[0]} did not begin")


def _begin(*given: Any) -> NoReturn:
    raise _Began(*given)


def _give_gpus(patch: pytest.MonkeyPatch, module: str) -> None:
    """Let there be the GPUs that are asked for, a vLLM, and the model and texts that are named."""
    commands = import_module(module)

    def as_asked(asked: int | None, there: int, visible: str | None, ranks: int) -> tuple[str, ...]:
        return tuple(map(str, range(ranks if asked is None else asked)))

    patch.setattr(commands, "choose_gpus", as_asked)
    patch.setattr(commands, "find_executable", lambda _: "vllm")
    if hasattr(commands, "require_model"):
        patch.setattr(commands, "require_model", lambda *_: None)
        asked = import_module("eval.commands.throughput_asked")
        patch.setattr(asked, "read_texts", lambda _: ["a text"])


def _check_servers(config: Config) -> None:
    for arm in config.arms:
        if arm.url is None:
            _check_server(config, arm)


def _check_server(config: Config, arm: Arm) -> None:
    words = server_command(config, arm, "vllm", 1, None)
    if installed_vllm() is not None:
        check_serve(words[2:])
    if (settings := config.plugin_settings(arm)) is not None:
        load_settings({"eplb_plugin": settings})
