# SPDX-License-Identifier: Apache-2.0
"""Whether the files of a local model are all there and whole, before any server starts."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from eval.errors import ConfigError

_FOLDER_STARTS = ("/", ".", "~", "build/", "eval/")
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "tokenizer_config.json")
_WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".gguf")
_INDEX = "model.safetensors.index.json"
_POINTER_START = b"version https://git-lfs"
# As the safetensors library says it.
_NOT_WHOLE = "not fully covered"


class _ProblemError(Exception):
    """What is wrong, and what to do where that does not depend on the folder."""

    def __init__(self, problem: str, next_step: str | None = None) -> None:
        super().__init__(problem)
        self.next_step = next_step


def is_folder(model: str) -> bool:
    """Whether a model is meant to be a local folder, not a name on the Hub."""
    return model.startswith(_FOLDER_STARTS) or Path(model).is_dir()


def problem_with(folder: Path) -> str | None:
    """What is missing from a model's folder, or not whole; None: nothing."""
    try:
        _check(folder)
    except (_ProblemError, OSError) as error:
        return str(error)
    return None


def check_model(model: str) -> None:
    """Refuse a local folder that no server could load.

    Raises:
        ConfigError: A file is missing, is not whole, or does not belong to the others.
    """
    folder = Path(model)
    try:
        _check(folder)
    except _ProblemError as error:
        raise ConfigError(f"{error}. {error.next_step or _next_step(folder)}") from error
    except OSError as error:
        raise ConfigError(f"cannot read model {model}: {error}. {_next_step(folder)}") from error


def _next_step(folder: Path) -> str:
    here = folder.resolve()
    if here == Path("build/tiny-moe").resolve():
        return "Make it: python scripts/make_tiny_moe.py --output build/tiny-moe"
    if folder.parts[:1] == ("eval",) and not Path("eval/models").is_dir():
        return "Go to the root of the repository, from which this path is meant, or name it in full"
    if Path("eval/models").resolve() in here.parents:
        return f"Restore it: git checkout -- {folder}"
    return "Get the model again"


def _check(folder: Path) -> None:
    config = _read_config(folder)
    if not any((folder / name).exists() for name in _TOKENIZER_FILES):
        raise _ProblemError(f"{folder} has no tokenizer: none of {', '.join(_TOKENIZER_FILES)}")
    _check_weights(folder)
    _check_vocabulary(folder / "tokenizer.json", config.get("vocab_size"))


def _read_config(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        # Nothing expands it on the way to the server either.
        note = " (~ is not expanded: write it in full)" if str(folder).startswith("~") else ""
        raise _ProblemError(f"model {folder}: no such folder{note}")
    file = folder / "config.json"
    if not file.exists():
        raise _ProblemError(f"{file} is missing: every model has one")
    return _read_object(file)


def _read_object(file: Path) -> dict[str, Any]:
    content = file.read_bytes()
    _refuse_pointer(file, content)
    try:
        value = json.loads(content)
    except ValueError as error:
        raise _ProblemError(f"{file} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise _ProblemError(f"{file} is not a JSON object but a {type(value).__name__}")
    return value


def _refuse_pointer(file: Path, start: bytes) -> None:
    if start.startswith(_POINTER_START):
        raise _ProblemError(
            f"{file} is a git-lfs pointer, not the file that it stands for",
            f"Get that file: run git lfs pull in {file.parent}",
        )


def _check_weights(folder: Path) -> None:
    weights = sorted(file for file in folder.iterdir() if file.suffix in _WEIGHT_SUFFIXES)
    if not weights:
        kinds = ", ".join(f"*{suffix}" for suffix in _WEIGHT_SUFFIXES)
        raise _ProblemError(f"{folder} has no weights: none of {kinds}")
    whole = [file for file in weights if file.suffix == ".safetensors"]
    if whole and (folder / _INDEX).exists():
        _check_index(folder / _INDEX)
    for file in whole:
        _check_safetensors(file)


def _check_index(index: Path) -> None:
    weight_map = _read_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(
        isinstance(name, str) for name in weight_map.values()
    ):
        raise _ProblemError(f"{index} has no weight_map from tensors to files")
    names = sorted(set(weight_map.values()))
    missing = [name for name in names if not (index.parent / name).exists()]
    if missing:
        raise _ProblemError(
            f"{index.parent / missing[0]} is missing: "
            f"{len(missing)} of the {len(names)} files named in {_INDEX} are"
        )


def _check_safetensors(file: Path) -> None:
    with file.open("rb") as content:
        _refuse_pointer(file, content.read(len(_POINTER_START)))
    size = file.stat().st_size
    try:
        # Opening it compares the header with the size; no tensor is read.
        with safe_open(file, framework="numpy"):
            pass
    except SafetensorError as error:
        reason = str(error).rpartition("deserializing header: ")[2]
        if _NOT_WHOLE in reason:
            raise _ProblemError(
                f"{file} is not whole: it has {size} bytes, and not those that its header lists"
            ) from error
        raise _ProblemError(
            f"{file} is not a safetensors file, or only the start of one: it has {size} bytes "
            f"({reason})"
        ) from error


def _check_vocabulary(file: Path, vocab_size: object) -> None:
    if not file.exists():
        return
    largest = max(_token_ids(_read_object(file)), default=-1)
    # Models of several parts have it in the part for text, under names of their own.
    if isinstance(vocab_size, int) and largest >= vocab_size:
        raise _ProblemError(
            f"{file} and config.json: the tokenizer has token {largest}, but the model knows "
            f"{vocab_size} tokens: they do not belong together"
        )


def _token_ids(tokenizer: dict[str, Any]) -> Iterator[int]:
    model = tokenizer.get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(vocabulary, dict):
        yield from (token for token in vocabulary.values() if isinstance(token, int))
    elif isinstance(vocabulary, list):
        # The place in the list is the id.
        yield len(vocabulary) - 1
    for added in tokenizer.get("added_tokens") or ():
        if isinstance(added, dict) and isinstance(added.get("id"), int):
            yield added["id"]
