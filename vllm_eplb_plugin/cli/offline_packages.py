# SPDX-License-Identifier: Apache-2.0
"""What the commands about recordings need that the plugin itself does not bring, as vLLM does."""

import functools
from collections.abc import Callable
from importlib.util import find_spec
from typing import ParamSpec, TypeVar

import typer

PACKAGES = ("numba", "numpy", "safetensors", "torch")
"""Also those of the extra ``offline``."""

_Given = ParamSpec("_Given")
_Answer = TypeVar("_Answer")


def needs_offline_packages(command: Callable[_Given, _Answer]) -> Callable[_Given, _Answer]:
    """Make a command end with exit code 2 and the next step where a package is missing."""

    @functools.wraps(command)
    def checked(*words: _Given.args, **options: _Given.kwargs) -> _Answer:
        if missing := [name for name in PACKAGES if find_spec(name) is None]:
            typer.echo(
                f"error: {', '.join(missing)} cannot be imported. vLLM brings what is needed here; "
                "without vLLM, install this plugin with its extra `offline`: "
                "pip install 'vllm-eplb-plugin[offline]', or the wheel's path in place of the name",
                err=True,
            )
            raise typer.Exit(2)
        return command(*words, **options)

    return checked
