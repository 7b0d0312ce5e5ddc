# SPDX-License-Identifier: Apache-2.0
"""Where the questions of GSM8K are."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

import datasets
import httpx

from eval.errors import DatasetError

FOLDER_VARIABLE = "GSM8K_DIR"
_SPLITS = ("train", "test")
_SHARED_FOLDER = Path(__file__).resolve().parents[2] / "shared" / "gsm8k"
_WHAT_TO_DO = (
    f"Set {FOLDER_VARIABLE} to a folder with train.jsonl and test.jsonl of GSM8K "
    "(github.com/openai/grade-school-math), or let this machine reach the Hugging Face Hub"
)


def find_gsm8k(
    environment: Mapping[str, str] = os.environ, shared: Path = _SHARED_FOLDER
) -> dict[str, Path] | None:
    """The file of each split: of the folder in ``GSM8K_DIR``, else of ``shared`` if it exists.

    Returns:
        None when neither is there: the questions have to come from the Hub.

    Raises:
        DatasetError: A file is missing or does not start with a question and its answer.
    """
    named = environment.get(FOLDER_VARIABLE)
    if not named and not shared.is_dir():
        return None
    folder = Path(named).absolute() if named else shared
    files = {split: folder / f"{split}.jsonl" for split in _SPLITS}
    for file in files.values():
        _check(file)
    return files


def download_gsm8k() -> None:
    """Get the questions from the Hub into its cache, before any server waits for them.

    Raises:
        DatasetError: The Hub did not give them.
    """
    try:
        datasets.load_dataset("openai/gsm8k", "main")
    except (OSError, httpx.HTTPError) as error:
        raise DatasetError(
            f"GSM8K is not here and the Hub did not give it ({error}). {_WHAT_TO_DO}"
        ) from error


def _check(file: Path) -> None:
    try:
        with file.open(encoding="utf-8") as lines:
            first = json.loads(next(lines, "null"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DatasetError(f"cannot read questions from {file}: {error}. {_WHAT_TO_DO}") from error
    if not isinstance(first, dict) or not {"question", "answer"} <= first.keys():
        raise DatasetError(f"{file} has no question and answer in its first line. {_WHAT_TO_DO}")
