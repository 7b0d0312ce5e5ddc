# SPDX-License-Identifier: Apache-2.0
"""Where the questions of each task are."""

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import datasets
import httpx
import huggingface_hub

from eval.config.schema import TaskName
from eval.errors import DatasetError
from eval.preflight import hub
from eval.preflight.hub import first_line, problem_of_hub

FOLDER_VARIABLE = "GSM8K_DIR"
_SPLITS = ("train", "test")
_ON_THE_HUB = "openai/gsm8k"
_TASKS_FOLDER = Path(__file__).parents[1] / "load" / "tasks"
_SHARED_FOLDER = Path(__file__).resolve().parents[3] / "shared" / "gsm8k"
_WHAT_TO_DO = (
    f"Set {FOLDER_VARIABLE} to a folder with train.jsonl and test.jsonl of GSM8K "
    "(github.com/openai/grade-school-math), or let this machine reach the Hugging Face Hub"
)

Files = Mapping[str, Path]
"""The file of each split."""


def find_questions(
    tasks: Iterable[TaskName], committed: Path = _TASKS_FOLDER
) -> dict[TaskName, Files | None]:
    """The files of each task; none for GSM8K on the Hub, which is then in the Hub's cache.

    Args:
        tasks: Their names.
        committed: The folder of the tasks that are not GSM8K.

    Raises:
        DatasetError: A file is missing or has no questions, or the Hub does not give them.
    """
    files: dict[TaskName, Files | None] = {}
    for task in tasks:
        files[task] = find_gsm8k() if task == "gsm8k" else _committed(committed / task)
        if files[task] is None:
            download_gsm8k()
    return files


def _committed(folder: Path) -> Files:
    files = _in_folder(folder)
    for file in files.values():
        _check(file, f"Restore it: git checkout -- {file}")
    return files


def _in_folder(folder: Path) -> dict[str, Path]:
    return {split: folder / f"{split}.jsonl" for split in _SPLITS}


def find_gsm8k(
    environment: Mapping[str, str] = os.environ, shared: Path = _SHARED_FOLDER
) -> Files | None:
    """The file of each split: of the folder in ``GSM8K_DIR``, else of ``shared`` if it exists.

    Returns:
        None when neither is there: the questions have to come from the Hub.

    Raises:
        DatasetError: A file is missing, or a line of it is no question with its answer.
    """
    named = environment.get(FOLDER_VARIABLE)
    if not named and not shared.is_dir():
        return None
    folder = Path(named).absolute() if named else shared
    files = _in_folder(folder)
    for file in files.values():
        _check(file, _WHAT_TO_DO)
    return files


def download_gsm8k() -> None:
    """Get the questions from the Hub into its cache, before any server waits for them.

    A Hub that does not answer in a few seconds is not asked again by this process, which then
    takes them from the cache.

    Raises:
        DatasetError: They are not in the cache, and the Hub did not give them.
    """
    api = huggingface_hub.HfApi()
    problem = problem_of_hub(lambda: api.dataset_info(_ON_THE_HUB, timeout=hub.HUB_SECONDS))
    if problem is not None:
        # Otherwise each look into the cache, by lm-eval too, first tries the Hub for half a minute.
        huggingface_hub.constants.HF_HUB_OFFLINE = True
        datasets.config.HF_HUB_OFFLINE = True
    try:
        _from_the_hub()
    except (OSError, ValueError, httpx.HTTPError, datasets.exceptions.DatasetsError) as error:
        raise DatasetError(
            f"GSM8K is not here and the Hub did not give it ({problem or first_line(error)}). "
            f"{_WHAT_TO_DO}"
        ) from error


def count_questions(files: Files | None) -> dict[str, int]:
    """How many each split has.

    Args:
        files: From `find_questions`.
    """
    if files is None:
        return {split: rows.num_rows for split, rows in _from_the_hub().items()}
    return {split: len(list(_numbered_lines(file))) for split, file in files.items()}


def _from_the_hub() -> Mapping[str, Any]:
    loaded: Mapping[str, Any] = datasets.load_dataset(_ON_THE_HUB, "main")
    return loaded


def _numbered_lines(file: Path) -> Iterator[tuple[int, str]]:
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield number, line


def _check(file: Path, what_to_do: str) -> None:
    """Read every line: one that is cut would end the evaluation when it is asked."""
    try:
        lines = list(_numbered_lines(file))
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"cannot read questions from {file}: {error}. {what_to_do}") from error
    if not lines:
        raise DatasetError(f"{file} has no question and answer in it. {what_to_do}")
    for number, line in lines:
        if (problem := _problem_of(line)) is not None:
            raise DatasetError(f"{file}, line {number} {problem}. {what_to_do}")


def _problem_of(line: str) -> str | None:
    try:
        row = json.loads(line)
    except ValueError as error:
        return f"is not JSON: {error}"
    if not isinstance(row, dict) or not {"question", "answer"} <= row.keys():
        return "has no question and answer"
    question, answer = row["question"], row["answer"]
    if not (isinstance(question, str) and question.strip() and isinstance(answer, str)):
        return "has a question or an answer that is no text"
    if re.search("[\ud800-\udfff]", question + answer):
        return "has half of a surrogate pair in it"
    return (
        None if re.search(r"#### -?[\d.,]+", answer) else "has an answer without #### and a number"
    )
