# SPDX-License-Identifier: Apache-2.0
"""Where the questions of each task are."""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread

import datasets
import httpx
import huggingface_hub

from eval.config.schema import TaskName
from eval.errors import DatasetError
from eval.preflight.hub import HUB_ERRORS, first_line

FOLDER_VARIABLE = "GSM8K_DIR"
_SPLITS = ("train", "test")
_ON_THE_HUB = "openai/gsm8k"
_SECONDS_FOR_THE_HUB = 5
_TASKS_FOLDER = Path(__file__).parent / "tasks"
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
        DatasetError: A file is missing or does not start with a question and its answer.
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
    problem = _problem_of_the_hub()
    if problem is not None:
        # Otherwise each look into the cache, by lm-eval too, first tries the Hub for half a minute.
        huggingface_hub.constants.HF_HUB_OFFLINE = True
        datasets.config.HF_HUB_OFFLINE = True
    try:
        datasets.load_dataset(_ON_THE_HUB, "main")
    except (OSError, httpx.HTTPError) as error:
        raise DatasetError(
            f"GSM8K is not here and the Hub did not give it ({problem or first_line(error)}). "
            f"{_WHAT_TO_DO}"
        ) from error


def _problem_of_the_hub() -> str | None:
    """Why the Hub does not give the questions; None: it does."""
    answer: SimpleQueue[str | None] = SimpleQueue()

    def ask() -> None:
        try:
            huggingface_hub.HfApi().dataset_info(_ON_THE_HUB, timeout=_SECONDS_FOR_THE_HUB)
        except HUB_ERRORS as error:
            answer.put(first_line(error))
        else:
            answer.put(None)

    # In a thread that nobody waits for: looking up a name has no timeout of its own.
    Thread(target=ask, daemon=True).start()
    try:
        return answer.get(timeout=_SECONDS_FOR_THE_HUB)
    except Empty:
        return f"no answer within {_SECONDS_FOR_THE_HUB} s"


def _check(file: Path, what_to_do: str) -> None:
    try:
        with file.open(encoding="utf-8") as lines:
            first = json.loads(next(lines, "null"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DatasetError(f"cannot read questions from {file}: {error}. {what_to_do}") from error
    if not isinstance(first, dict) or not {"question", "answer"} <= first.keys():
        raise DatasetError(f"{file} has no question and answer in its first line. {what_to_do}")
