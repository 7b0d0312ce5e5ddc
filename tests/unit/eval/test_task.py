# SPDX-License-Identifier: Apache-2.0
"""The questions are lm-eval's own gsm8k, wherever the data is."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import lm_eval
import pytest
from lm_eval.api.model import LM
from lm_eval.tasks import TaskManager
from tqdm import tqdm  # type: ignore[import-untyped]

from eval.config.schema import Task
from eval.errors import DatasetError
from eval.load.lm_eval_tasks import task_definition, task_manager
from eval.preflight.question_files import count_questions, find_gsm8k, find_questions
from tests.builders.harness import REPOSITORY, write_gsm8k

PACKAGED = Path(lm_eval.__file__).parent / "tasks" / "gsm8k"


class Recorder(LM):  # type: ignore[misc]
    """Answers nothing and remembers what it was asked."""

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        self.asked = [request.args for request in requests]
        return [""] * len(requests)

    def loglikelihood(self, requests: Any) -> Any:
        raise NotImplementedError

    def loglikelihood_rolling(self, requests: Any) -> Any:
        raise NotImplementedError


def asked(manager: Any, definition: dict[str, Any]) -> list[Any]:
    recorder = Recorder()
    lm_eval.simple_evaluate(
        model=recorder, tasks=[definition], task_manager=manager, limit=6, bootstrap_iters=0
    )
    return recorder.asked


def test_prompts_are_those_of_the_packaged_task(tmp_path: Path) -> None:
    folder = write_gsm8k(tmp_path / "gsm8k")
    files = {split: folder / f"{split}.jsonl" for split in ("train", "test")}
    packaged_manager = TaskManager(include_path=str(PACKAGED), include_defaults=False)
    packaged = {
        **packaged_manager.task_index["gsm8k"].cfg,
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": {split: str(file) for split, file in files.items()}},
    }
    manager = task_manager()
    ours = asked(manager, task_definition(manager, Task(name="gsm8k", max_tokens=48), files))
    theirs = asked(packaged_manager, packaged)

    assert [prompt for prompt, _ in ours] == [prompt for prompt, _ in theirs]
    assert ours[0][0].count("Question: ") == 6
    assert ours[0][1] == {**theirs[0][1], "max_gen_toks": 48}


def test_what_lm_eval_does_before_it_asks_has_no_bars(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_gsm8k(tmp_path / "gsm8k")
    files = {split: folder / f"{split}.jsonl" for split in ("train", "test")}
    manager = task_manager()
    asked(manager, task_definition(manager, Task(name="gsm8k"), files, tmp_path / "cache"))
    for _ in tqdm(range(1), desc="one of ours"):
        pass

    bars = re.findall(r"[^\r\n]*(?:it|examples)/s[^\r\n]*", capsys.readouterr().err)
    assert bars and [bar for bar in bars if not bar.startswith("one of ours")] == []


def test_filters_and_metrics_are_those_of_the_packaged_task() -> None:
    packaged = TaskManager(include_path=str(PACKAGED), include_defaults=False)
    theirs = dict(packaged.task_index["gsm8k"].cfg)
    # A tag only groups tasks on lm-eval's command line.
    theirs.pop("tag")

    assert task_manager().task_index["gsm8k"].cfg == theirs


def test_gsm_tiny_is_asked_and_judged_as_gsm8k_is() -> None:
    index = task_manager().task_index
    ours, theirs = dict(index["gsm_tiny"].cfg), dict(index["gsm8k"].cfg)
    own = {"task", "dataset_path", "dataset_name", "dataset_kwargs", "metadata"}

    assert {key: ours[key] for key in ours if key not in own} == {
        key: theirs[key] for key in theirs if key not in own
    }


def test_gsm_tiny_has_500_held_out_questions_and_others_to_learn_from() -> None:
    files = find_questions(["gsm_tiny"])["gsm_tiny"]
    assert files is not None
    train, test = (files[split].read_text().splitlines() for split in ("train", "test"))

    assert len(test) == 500
    assert len(train) > 5
    manager = task_manager()
    prompts = asked(manager, task_definition(manager, Task(name="gsm_tiny"), files))
    assert json.loads(test[0])["question"] in prompts[0][0]
    assert prompts[0][0].count("Question: ") == 6


def test_missing_questions_of_gsm_tiny_say_how_to_restore_them(tmp_path: Path) -> None:
    file = tmp_path / "gsm_tiny" / "train.jsonl"

    with pytest.raises(DatasetError, match=f"Restore it: git checkout -- {file}"):
        find_questions(["gsm_tiny"], tmp_path)


def test_without_files_the_questions_come_from_the_hub() -> None:
    definition = task_definition(task_manager(), Task(name="gsm8k", fewshot=3), None)

    assert (definition["dataset_path"], definition["dataset_name"]) == ("openai/gsm8k", "main")
    assert definition["num_fewshot"] == 3


def test_the_named_folder_wins_over_the_shared_one(tmp_path: Path) -> None:
    named, shared = write_gsm8k(tmp_path / "named"), write_gsm8k(tmp_path / "shared")
    nowhere = tmp_path / "nowhere"

    assert find_gsm8k({"GSM8K_DIR": str(named)}, shared) == {
        "train": named / "train.jsonl",
        "test": named / "test.jsonl",
    }
    found = find_gsm8k({}, shared)
    assert found is not None and found["test"] == shared / "test.jsonl"
    assert find_gsm8k({}, nowhere) is None


def test_questions_that_the_hub_does_not_give_say_what_to_do(tmp_path: Path) -> None:
    # The libraries read these variables once, when they are imported.
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    program = "from eval.preflight.question_files import download_gsm8k; download_gsm8k()"
    ended = subprocess.run(
        [sys.executable, "-c", program],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )

    last_line = ended.stderr.splitlines()[-1]
    assert last_line.startswith("eval.errors.DatasetError: GSM8K is not here and the Hub")
    assert "Set GSM8K_DIR to a folder" in last_line


@pytest.mark.parametrize("text", ["", "{", '{"problem": "", "answer": ""}\n'])
def test_a_file_that_has_no_questions_is_named(tmp_path: Path, text: str) -> None:
    folder = write_gsm8k(tmp_path / "gsm8k")
    (folder / "test.jsonl").write_text(text)

    with pytest.raises(DatasetError, match="test.jsonl.*Set GSM8K_DIR"):
        find_gsm8k({"GSM8K_DIR": str(folder)}, folder)


ROW = {"question": "What is 1 plus 1?", "answer": "It is 2.\n#### 2"}


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (json.dumps(ROW)[:40], "is not JSON"),
        ("\0" * 20, "is not JSON"),
        ("[]", "has no question and answer"),
        (json.dumps({"question": "What?"}), "has no question and answer"),
        (json.dumps({**ROW, "question": 1}), "has a question or an answer that is no text"),
        (json.dumps({**ROW, "answer": None}), "has a question or an answer that is no text"),
        (json.dumps({**ROW, "question": " "}), "has a question or an answer that is no text"),
        (json.dumps({**ROW, "answer": "2"}), "has an answer without #### and a number"),
        (json.dumps({**ROW, "question": "\ud800"}), "has half of a surrogate pair"),
    ],
)
def test_a_line_that_cannot_be_asked_is_named_wherever_it_stands(
    tmp_path: Path, line: str, problem: str
) -> None:
    file = write_gsm8k(tmp_path / "named") / "test.jsonl"
    good = file.read_text()
    file.write_text(good + line + "\n" + good)

    with pytest.raises(DatasetError, match=f"test.jsonl, line 21 {problem}.*Set GSM8K_DIR"):
        find_gsm8k({"GSM8K_DIR": str(tmp_path / "named")}, tmp_path)


def test_questions_are_counted_as_they_are_asked(tmp_path: Path) -> None:
    folder = write_gsm8k(tmp_path / "named")
    with (folder / "test.jsonl").open("a") as file:
        file.write("\n")

    found = find_gsm8k({"GSM8K_DIR": str(folder)}, tmp_path)
    assert count_questions(found) == {"train": 20, "test": 20}
