# SPDX-License-Identifier: Apache-2.0
"""The lm-eval tasks that the configuration describes."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import lm_eval.api.task
import lm_eval.evaluator
from lm_eval.tasks import TaskManager
from tqdm import tqdm  # type: ignore[import-untyped]

from eval.config.schema import Task

_FOLDER = Path(__file__).parent / "tasks"

# lm-eval asks git for a digest that nobody reads here, and outside of a checkout git complains on
# standard error each time.
lm_eval.evaluator.get_git_commit_hash = lambda: None

# On a terminal, bars of files that are read and of prompts that are made would stand around the one
# of questions, without a word of which arm they are.
datasets.disable_progress_bars()
lm_eval.api.task.tqdm = partial(tqdm, disable=True)


def task_manager() -> Any:
    """lm-eval's task manager, which knows the tasks of this package only."""
    return TaskManager(include_path=str(_FOLDER), include_defaults=False)


def task_definition(
    manager: Any, task: Task, files: Mapping[str, Path] | None, cache: Path | None = None
) -> dict[str, Any]:
    """The task's YAML with what the configuration says.

    Args:
        manager: From `task_manager`.
        task: How many shots and tokens.
        files: The file of each split; None: the questions come from the Hub.
        cache: Where `datasets` may write what it makes of files; None: into the user's own cache,
            which need not be there or writable.
    """
    definition = dict(manager.task_index[task.name].cfg)
    definition["num_fewshot"] = task.fewshot
    definition["generation_kwargs"] = {
        **definition["generation_kwargs"],
        "max_gen_toks": task.max_tokens,
    }
    if files is not None:
        definition["dataset_path"] = "json"
        definition["dataset_name"] = None
        definition["dataset_kwargs"] = {
            "data_files": {split: str(file) for split, file in files.items()},
            **({"cache_dir": str(cache)} if cache else {}),
        }
    return definition
