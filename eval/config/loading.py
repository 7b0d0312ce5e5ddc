# SPDX-License-Identifier: Apache-2.0
"""From a YAML file and overrides to a checked configuration."""

import difflib
import inspect
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from eval.config.control_arms import CONTROL_PREFIX, is_control
from eval.config.gate_section import Gate
from eval.config.schema import BASELINE, Config
from eval.config.yaml_files import parse_yaml, read_yaml
from eval.errors import ConfigError
from eval.secrets import SECRETS

_RENAMED = {
    "reference": "oracle, with prompts instead of transformers_prompts",
    "reference_accuracy": "recorded_accuracy",
}
"""Keys of earlier releases, with what they are called now."""


DEFAULT_ARMS, ALL_ARMS = "default", "all"


def load_config(
    path: Path,
    overrides: Sequence[str] = (),
    only: Sequence[str] = (),
    gate: Path | None = None,
    arms: str = DEFAULT_ARMS,
) -> Config:
    """Read a configuration. Its arms are those that are asked, and none of them says when.

    Args:
        path: The YAML file.
        overrides: ``key.path=value`` each, the value in YAML; an item of a list is named by
            its ``name`` or its index.
        only: The arms to keep instead. The arm ``off`` always stays.
        gate: A file with another gate than the configuration's.
        arms: `DEFAULT_ARMS`: without those whose ``default`` is false; `ALL_ARMS`.

    Raises:
        ConfigError: Names the key path, the value and the rule that it breaks.
    """
    values = _read(path)
    if gate is None and isinstance(values.get("gate"), str):
        gate = path.parent / values["gate"]
    if gate is not None:
        values["gate"] = _read(gate)
    for override in overrides:
        _apply(values, override)
    SECRETS.learn(values)
    config = _validate(values, path)
    _refuse_controls(config)
    return _keep(config, _wanted(config, only, arms))


def load_gate(path: Path) -> Gate:
    """Read what a run has to show.

    Raises:
        ConfigError: Names the key, the value and the rule that it breaks.
    """
    try:
        return Gate.model_validate(_read(path))
    except ValidationError as error:
        problems = "\n".join(f"  {_describe(problem, Gate)}" for problem in error.errors())
        raise ConfigError(f"wrong gate {path}:\n{problems}") from error


def _read(path: Path) -> dict[str, Any]:
    values = read_yaml(path)
    if not isinstance(values, dict):
        what = "is empty" if values is None else f"is a {type(values).__name__}"
        raise ConfigError(f"{path} {what}: it must map keys to values (docs/evaluation.md)")
    return values


def _apply(values: dict[str, Any], override: str) -> None:
    path, equals, text = override.partition("=")
    if not equals or not path:
        raise ConfigError(f"--set {override}: write key.path=value")
    *parents, last = path.split(".")
    container: Any = values
    for part in parents:
        key = _find(container, part, override)
        if isinstance(container, dict) and container.get(key) is None:
            container[key] = {}
        container = container[key]
    container[_find(container, last, override)] = parse_yaml(text, f"--set {override}")


def _find(container: Any, part: str, override: str) -> Any:
    """The key or index that ``part`` means in ``container``."""
    if isinstance(container, dict):
        return part
    if not isinstance(container, list):
        raise ConfigError(f"--set {override}: nothing can be set below {container!r} ({part!r})")
    names = [str(item.get("name")) if isinstance(item, dict) else None for item in container]
    if part in names:
        return names.index(part)
    if part.isdecimal() and int(part) < len(container):
        return int(part)
    raise ConfigError(f"--set {override}: no item {part!r}, there are {names}")


def _validate(values: dict[str, Any], path: Path) -> Config:
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        problems = "\n".join(f"  {_describe(problem)}" for problem in error.errors())
        raise ConfigError(f"wrong configuration {path}:\n{problems}") from error
    if not config.tasks:
        raise ConfigError(f"wrong configuration {path}:\n  tasks: List should have at least 1 item")
    return config


def _refuse_controls(config: Config) -> None:
    for arm in config.arms:
        if is_control(arm.name):
            raise ConfigError(
                f"arm {arm.name}: {CONTROL_PREFIX} begins the names of arms with a fault, "
                "which are judged apart: call it otherwise, or use --control"
            )


def _describe(problem: ErrorDetails, model: type[BaseModel] = Config) -> str:
    location = problem["loc"]
    key_path = ".".join(str(part) for part in location)
    if problem["type"] == "extra_forbidden":
        *parents, key = location
        if key in _RENAMED:
            return f"{key_path}: is called {_RENAMED[str(key)]} now"
        valid = list(_model_at(parents, model).model_fields)
        nearest = difflib.get_close_matches(str(key), valid, n=1, cutoff=0.0)[0]
        return f"{key_path}: unknown key, the nearest is {nearest!r} (valid: {', '.join(valid)})"
    if problem["type"] == "missing":
        return f"{key_path}: is required and not there"
    message = problem["msg"].removeprefix("Value error, ")
    if not location:
        return message
    return f"{key_path}: {message}, not {problem['input']!r}"


def _model_at(location: Sequence[int | str], model: type[BaseModel]) -> type[BaseModel]:
    for part in location:
        if isinstance(part, str):
            model = model_in(model.model_fields[part].annotation) or model
    return model


def model_in(annotation: Any) -> type[BaseModel] | None:
    """The model somewhere inside a type annotation, such as that of a list's items."""
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return annotation
    found = (model_in(argument) for argument in get_args(annotation))
    return next((model for model in found if model), None)


def _wanted(config: Config, only: Sequence[str], arms: str) -> Collection[str]:
    """Names of arms."""
    if arms not in (DEFAULT_ARMS, ALL_ARMS):
        raise ConfigError(f"--arms {arms}: is {DEFAULT_ARMS} or {ALL_ARMS}; --only takes names")
    if only and arms == ALL_ARMS:
        raise ConfigError(f"--arms {ALL_ARMS} and --only {only[0]} exclude each other")
    names = [arm.name for arm in config.arms]
    for name in only:
        if name not in names:
            raise ConfigError(f"--only {name}: no such arm, there are {', '.join(names)}")
    return only or [arm.name for arm in config.arms if arm.default or arms == ALL_ARMS]


def _keep(config: Config, names: Collection[str]) -> Config:
    kept = [
        arm.model_copy(update={"default": True})
        for arm in config.arms
        if arm.name in {*names, BASELINE}
    ]
    return config.model_copy(update={"arms": kept})
