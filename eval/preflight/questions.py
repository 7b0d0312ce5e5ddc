# SPDX-License-Identifier: Apache-2.0
"""Whether the questions of every task are there, and as many as are asked for."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import datasets

from eval.config.schema import Task, TaskName
from eval.errors import DatasetError
from eval.preflight.fitness import Finding
from eval.preflight.question_files import Files, count_questions, find_questions


class Questions(NamedTuple):
    """Where they are, and what is to be told of them."""

    files: dict[TaskName, Files | None]
    left_out: dict[TaskName, str]
    """Tasks that are not scored and whose questions cannot be had, and why."""
    findings: list[Finding]


def look_for_questions(tasks: Sequence[Task]) -> Questions:
    """Find and read the questions of each task."""
    files: dict[TaskName, Files | None] = {}
    problems: dict[TaskName, str] = {}
    findings = []
    for task in tasks:
        try:
            found = find_questions([task.name])
            counted = count_questions(found[task.name])
        except DatasetError as error:
            problems[task.name] = str(error)
            continue
        files |= found
        findings += [
            Finding("questions", "missing", problem) for problem in _too_few(task, counted)
        ]
    if files and not findings:
        findings.append(Finding("questions", "found", ", ".join(files)))
    if None in files.values() and (problem := _problem_of_the_cache()) is not None:
        findings.append(Finding("questions", "missing", problem))
    left_out = {}
    for task in tasks:
        if task.name not in problems:
            continue
        problem = problems[task.name]
        if task.scored or not files:
            findings.append(Finding("questions", "missing", problem))
        else:
            left_out[task.name] = problem
            message = f"{task.name}, which is not scored: {problem}"
            findings.append(Finding("questions", "left out", message))
    return Questions(files, left_out, findings)


def _too_few(task: Task, counted: dict[str, int]) -> list[str]:
    problems = []
    if task.limit is not None and task.limit > counted["test"]:
        most = f", {task.limit} at most," if task.until_decided else ","
        problems.append(
            f"tasks.{task.name}.questions is {task.questions}{most} and there are "
            f"{counted['test']}: set it to null for all"
        )
    if task.fewshot > counted["train"]:
        problems.append(
            f"tasks.{task.name}.fewshot is {task.fewshot}, and there are {counted['train']} "
            "solved questions"
        )
    return problems


def _problem_of_the_cache() -> str | None:
    """Why questions of the Hub could not be read: `datasets` keeps them in its cache."""
    cache = Path(datasets.config.HF_DATASETS_CACHE).expanduser()
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=cache):
            return None
    except OSError as error:
        return (
            f"the cache of the library datasets, {cache}, cannot be written ({error.strerror}), "
            "and questions of the Hub are read through it: set HF_DATASETS_CACHE to another"
        )
