# SPDX-License-Identifier: Apache-2.0
"""The command line of one arm's server."""

import json
import shutil
import sys
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

from pydantic import JsonValue

from eval.config.schema import Arm, Config
from eval.errors import ServerError

HOST = "127.0.0.1"


def find_executable(configured: str | None, python: str = sys.executable) -> str:
    """The ``vllm`` to start: the configured one, the one beside ``python``, or on PATH.

    Raises:
        ServerError: There is none; says how to install it.
    """
    if configured is not None:
        found = shutil.which(configured)
        if found is None:
            raise ServerError(f"serve.executable {configured!r} is not an executable file")
        return found
    beside = Path(python).parent / "vllm"
    found = shutil.which(str(beside)) or shutil.which("vllm")
    if found is None:
        raise ServerError(
            f"no vllm beside {python} and none on PATH. Install it into this environment: "
            "pip install '.[cpu]' without a GPU, '.[vllm]' with, in a checkout of this repository"
        )
    return found


def server_command(
    config: Config, arm: Arm, executable: str, port: int, events: Path | None
) -> list[str]:
    """Program and arguments of the server of ``arm``.

    Args:
        config: Whose arm it is.
        arm: Of these.
        executable: The ``vllm`` that serves.
        port: On which it listens.
        events: Into which its plugin writes; None: it writes none.
    """
    command = [executable, "serve", config.model, "--host", HOST, "--port", str(port)]
    for name, value in config.serve.options.items():
        command += _option(name, value)
    plugin = config.plugin_settings(arm)
    if plugin is not None:
        told = {} if events is None else {"events_dir": str(events)}
        settings = {"eplb_plugin": {**plugin, **told}}
        command += ["--additional-config", json.dumps(settings)]
    if arm.eplb is not None:
        eplb = arm.eplb.model_dump(exclude_none=True)
        command += ["--enable-eplb", "--eplb-config", json.dumps(eplb)]
    return command


_OF_THE_ENVIRONMENT = {"--api-key": "VLLM_API_KEY", "--hf-token": "HF_TOKEN"}
"""Secrets that vLLM takes from its environment, too, which only its own user can read."""


def without_secrets(command: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Take secrets off a command line, which everybody on the machine can read.

    Of several keys of one option the first is taken: only this harness asks the server.

    Returns:
        What is left, and the variables that have the secrets instead.
    """
    left: list[str] = []
    environment: dict[str, str] = {}
    variable = None
    for argument, following in zip_longest(command, command[1:], fillvalue="--"):
        if argument.startswith("--"):
            # Without a value, `--hf-token` takes the one that is stored.
            has_value = not following.startswith("--")
            option = argument.replace("_", "-")
            variable = _OF_THE_ENVIRONMENT.get(option) if has_value else None
        elif variable:
            environment.setdefault(variable, argument)
        if not variable:
            left.append(argument)
    return left, environment


def with_name(command: Sequence[str], name: str) -> list[str]:
    """Have ``vllm serve`` call its model ``name``, too."""
    if command[1:2] != ["serve"]:
        return list(command)
    return [*command, "--served-model-name", command[2], name]


def _option(name: str, value: JsonValue) -> list[str]:
    if value is None:
        return []
    if isinstance(value, bool):
        return [f"--{name}" if value else f"--no-{name}"]
    if isinstance(value, list):
        return [f"--{name}", *(str(item) for item in value)]
    return [f"--{name}", json.dumps(value) if isinstance(value, dict) else str(value)]
