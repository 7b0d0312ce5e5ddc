# SPDX-License-Identifier: Apache-2.0
"""All of a command that can be checked without what it starts: names, options and their values."""

import contextlib
import io
import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tomllib
import typer
from _pytest.mark.expression import Expression

from tests.builders.harness_commands import check_harness_command, message_of
from tests.builders.pages import REPOSITORY
from tests.builders.script_options import check_script, file_of
from tests.builders.vllm_options import check_serve, installed_vllm
from vllm_eplb_plugin.bench.shapes import parse_shape
from vllm_eplb_plugin.bench.transfer.expert_sizes import parse_expert_sizes
from vllm_eplb_plugin.cli.main import main
from vllm_eplb_plugin.settings import load_settings, parse_json

SHELL = ("cd", "grep", "source", "tr")
"""What every shell has."""
OTHERS = ("bash", "curl", "git")
"""Programs of others, whose options are not checked."""


def canonical(words: Sequence[str]) -> list[str]:
    """A command as it is called in an environment that is active, without what is wrapped round."""
    found = list(words)
    if found[0] == "compute-sanitizer":
        found = found[next(at for at, word in enumerate(found) if word.startswith("python")) :]
    if ".venv" in found[0]:
        found[0] = Path(found[0]).name
    if found[0] == "python3":
        found[0] = "python"
    if found[:2] == ["python", "-m"] and found[2] == "vllm_eplb_plugin.cli":
        found = ["vllm-eplb", *found[3:]]
    return found


def check_command(words: Sequence[str], environment: Mapping[str, str]) -> None:
    """Check a command, in the folder that it is called in.

    Args:
        words: Of it, in the form that `canonical` gives it.
        environment: What was set for it.

    Raises:
        ValueError: Says what of it there is not.
    """
    if settings := environment.get("EPLB_PLUGIN"):
        load_settings({"eplb_plugin": parse_json(settings, "EPLB_PLUGIN")})
    program, *rest = words
    if program == "vllm-eplb":
        _check_plugin_command(rest)
    elif program == "vllm":
        _check_vllm(rest)
    elif program == "pip":
        _check_pip(rest)
    elif program == "python":
        _check_python(rest)
    elif program.startswith("scripts/"):
        if not (REPOSITORY / program).is_file():
            raise ValueError(f"there is no {program}")
    elif program not in (*SHELL, *OTHERS):
        raise ValueError(
            f"there is no program {program}: if it is another project's, add it to OTHERS in "
            "tests/builders/command_parsing.py"
        )


def check_names(words: Sequence[str]) -> None:
    """Check that there are the command, the options and the files that a sentence names.

    Args:
        words: Of a command that need not be whole, in the form that `canonical` gives it.

    Raises:
        ValueError: Says what of it there is not.
    """
    program, *rest = words
    app = _application(words)
    if app is not None:
        command, inside = _command(app, rest if program == "vllm-eplb" else rest[2:])
        for word in inside:
            if word.startswith("--") and word not in (*_names_of(command), "--help"):
                raise ValueError(f"{command.name} has no option {word}")
    elif program == "pip":
        _check_pip(rest)
    elif program == "python":
        file_of(rest)
    elif program == "scripts/test":
        _check_pytest(rest)
    elif not (REPOSITORY / program).is_file():
        raise ValueError(f"there is no {program}")


def parsed(app: typer.Typer, words: Sequence[str]) -> dict[str, Any]:
    """Values of a command's options, as it would be called with them.

    Raises:
        ValueError: There is no such command or option, or it has no such value.
    """
    command, rest = _command(app, words)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            values: dict[str, Any] = command.make_context(command.name, list(rest)).params
    except typer.Exit:
        return {}
    except Exception as error:
        raise ValueError(f"{command.name}: {message_of(error)}") from error
    return values


def _application(words: Sequence[str]) -> typer.Typer | None:
    if words[0] == "vllm-eplb":
        return main
    if list(words[:3]) == ["python", "-m", "eval"]:
        from eval.cli import app

        return app
    return None


def _command(app: typer.Typer, words: Sequence[str]) -> tuple[Any, Sequence[str]]:
    """The command that is called, and what it is given."""
    command: Any = typer.main.get_command(app)
    while words and not words[0].startswith("-") and hasattr(command, "get_command"):
        found = command.get_command(None, words[0])
        if found is None:
            known = ", ".join(command.list_commands(None))
            raise ValueError(f"there is no command {words[0]}, only {known}")
        command, words = found, words[1:]
    return command, words


def _names_of(command: Any) -> Iterable[str]:
    return [name for one in command.params for name in (*one.opts, *one.secondary_opts)]


def _check_plugin_command(words: Sequence[str]) -> None:
    values = parsed(main, words)
    read = parse_expert_sizes if "transfer" in words[:2] else parse_shape
    shapes = values.get("shape") or []
    for shape in [shapes] if isinstance(shapes, str) else shapes:
        read(shape)
    for text in values.get("additional_config") or ():
        load_settings(parse_json(text, "--additional-config"))


def _check_vllm(words: Sequence[str]) -> None:
    if words[:1] != ["serve"]:
        raise ValueError(f"vllm {shlex.join(words[:1])}: only vllm serve is known here")
    if installed_vllm() is not None:
        check_serve(words[1:])
    for at, word in enumerate(words[:-1]):
        if word == "--additional-config":
            load_settings(parse_json(words[at + 1], word))


def _check_pip(words: Sequence[str]) -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for word in words:
        name, bracket, extras = word.partition("[")
        if not bracket or name not in (".", project["name"]):
            continue
        for extra in extras.rstrip("]").split(","):
            if extra not in project["optional-dependencies"]:
                raise ValueError(f"pip: {word}: pyproject.toml has no extra {extra}")


def _check_python(words: Sequence[str]) -> None:
    if words[:2] == ["-m", "eval"]:
        check_harness_command(words[2:], parsed)
    elif words[:2] == ["-m", "pytest"]:
        _check_pytest(words[2:])
    elif words[:2] == ["-m", "pip"]:
        _check_pip(words[2:])
    elif words[0] == "-c":
        _check_code(words[1])
    elif words[:2] != ["-m", "venv"]:
        check_script(words)


def _check_code(text: str) -> None:
    try:
        compile(text, "python -c", "exec")
    except SyntaxError as error:
        raise ValueError(f"python -c: {error}") from error


def _check_pytest(words: Sequence[str]) -> None:
    for before, word in zip(("", *words), words, strict=False):
        if word.startswith("tests/") and not (REPOSITORY / word.partition("::")[0]).exists():
            raise ValueError(f"pytest: there is no {word}")
        if before == "-k":
            Expression.compile(word)


def json_of(words: Sequence[str], option: str) -> Any:
    """The value of an option, which is JSON."""
    return json.loads(words[list(words).index(option) + 1])
