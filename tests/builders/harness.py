# SPDX-License-Identifier: Apache-2.0
"""A made-up GSM8K, a stand-in for vLLM, and the harness as a process."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.builders.imported import Imported
from tests.builders.waiting import alive

REPOSITORY = Path(__file__).parents[2]
FAKE_VLLM = Path(__file__).parent / "fake_vllm.py"


def write_gsm8k(folder: Path, questions: int = 20) -> Path:
    folder.mkdir()
    for split, first in (("train", 100), ("test", 1)):
        rows = [
            {
                "question": f"What is {number} plus {number + 1}?",
                "answer": f"It is {2 * number + 1}.\n#### {2 * number + 1}",
            }
            for number in range(first, first + questions)
        ]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{split}.jsonl").write_text(lines, encoding="utf-8")
    return folder


def write_model(folder: Path) -> Path:
    """Files like those of a model, in the Hub's cache."""
    snapshot = folder / "hub/models--someone--some-moe/snapshots/0"
    snapshot.mkdir(parents=True)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs/main").write_text("0")
    (snapshot / "config.json").write_text("{}")
    (snapshot / "tokenizer.json").write_text('{"model": {"vocab": {}}}')
    (snapshot / "model.bin").touch()
    return folder


INSTALLATION = {
    "works": True,
    "problems": [],
    "installed": "0.33.0 (vllm)",
    "on_cpu": False,
    "gpus": [{"name": "GPU", "memory_gib": 79.2, "free_gib": 79.0}] * 2,
    "deep_ep": "deep_ep is not installed",
}
"""What the stand-in for `vllm-eplb doctor` says."""


def gsm8k_task(**changes: Any) -> dict[str, Any]:
    """12 questions of the made-up GSM8K."""
    task = {"questions": 12, "fewshot": 2, "concurrency": 4, "request_timeout": 60}
    return {"name": "gsm8k", **task, **changes}


def small_config(**changes: Any) -> dict[str, Any]:
    """12 questions for each of the three arms."""
    eplb = {"window_size": 10, "step_interval": 10, "num_redundant_experts": 4}
    config: dict[str, Any] = {
        "name": "small",
        "model": "someone/some-moe",
        "tasks": [gsm8k_task()],
        "serve": {
            "start_timeout": 120,
            "options": {"data-parallel-size": 2, "enable-expert-parallel": True},
        },
        "plugin": {"check_weights": True},
        "arms": [
            {"name": "off"},
            {"name": "sync", "eplb": {**eplb, "use_async": False}},
            {"name": "async", "eplb": {**eplb, "use_async": True}},
        ],
        # Twelve equal answers exclude a loss of 22.1 points.
        "gate": {"identical": True, "margin_points": 25, "rearrangements": 5, "moe_layers": 4},
    }
    return {**config, **changes}


class Harness:
    """``python -m eval`` in a folder of its own, with the stand-in for vLLM."""

    def __init__(self, folder: Path, imported: Imported | None = None) -> None:
        """Lay out what a run needs.

        Args:
            folder: Where.
            imported: Of which runs that are waited for are forks; None: none is.
        """
        self.folder = folder
        self.imported = imported
        self.executable = folder / "vllm"
        self.executable.write_text(f'#!/bin/sh\nexec {sys.executable} {FAKE_VLLM} "$@"\n')
        self.executable.chmod(0o755)
        self.install()
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(REPOSITORY),
            "GSM8K_DIR": str(write_gsm8k(folder / "gsm8k")),
            "HF_HOME": str(write_model(folder / "huggingface")),
            "COLUMNS": "200",
        }

    def install(self, **changes: Any) -> None:
        """Write a `vllm-eplb` that finds this beside the stand-in for vLLM."""
        doctor = self.folder / "vllm-eplb"
        answer = json.dumps({**INSTALLATION, **changes})
        doctor.write_text(f"#!/bin/sh\necho '{answer}'\n")
        doctor.chmod(0o755)

    def start(
        self,
        *arguments: str,
        config: dict[str, Any] | None = None,
        command: str = "run",
        **behaviour: Any,
    ) -> "subprocess.Popen[str]":
        """Start ``python -m eval``; ``behaviour`` is that of the stand-in."""
        self.write_config(config)
        return subprocess.Popen(
            [sys.executable, "-m", "eval", command, "config.yaml", *arguments],
            cwd=self.folder,
            env={**self.environment, "FAKE_VLLM": json.dumps(behaviour)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def write_config(self, config: dict[str, Any] | None) -> None:
        """Write `config.yaml`, for the stand-in; None: the small one."""
        values = config or small_config()
        values["serve"] = {"executable": str(self.executable), **values["serve"]}
        (self.folder / "config.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")

    def run(
        self,
        *arguments: str,
        config: dict[str, Any] | None = None,
        command: str = "run",
        **behaviour: Any,
    ) -> "subprocess.CompletedProcess[str]":
        """Run ``python -m eval`` to its end."""
        if self.imported is not None:
            self.write_config(config)
            environment = {**self.environment, "FAKE_VLLM": json.dumps(behaviour)}
            arguments = (command, "config.yaml", *arguments)
            return self.imported.run(*arguments, folder=self.folder, environment=environment)
        process = self.start(*arguments, config=config, command=command, **behaviour)
        output, errors = process.communicate(timeout=300)
        return subprocess.CompletedProcess(process.args, process.returncode, output, errors)

    def evaluate(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """``python -m eval`` with another command than run."""
        if self.imported is not None:
            return self.imported.run(*arguments, folder=self.folder, environment=self.environment)
        return subprocess.run(
            [sys.executable, "-m", "eval", *arguments],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=300,
        )

    def result(self, name: str = "small") -> dict[str, Any]:
        text = (self.folder / "runs" / name / "result.json").read_text(encoding="utf-8")
        result: dict[str, Any] = json.loads(text)
        return result

    def workers_alive(self) -> list[int]:
        """Workers that servers of any run left behind."""
        logs = self.folder.glob("runs*/*/arms/*/server.log")
        lines = [line for log in logs for line in log.read_text().splitlines()]
        workers = [int(line.split()[1]) for line in lines if line.startswith("worker ")]
        assert workers, "no server was started"
        return [worker for worker in workers if alive(worker)]


@pytest.fixture
def harness(tmp_path: Path) -> Harness:
    return Harness(tmp_path)


_IMPORTED_BY_A_RUN = (
    *("eval.commands.accuracy", "eval.judging.controls", "eval.judging.kept", "eval.report.files"),
    *("eval.report.junit", "eval.report.terminal", "lm_eval.evaluator", "torch", "transformers"),
)


@pytest.fixture(scope="session")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Imported]:
    """The harness, imported once."""
    imported = Imported(tmp_path_factory.mktemp("imported"), "eval", _IMPORTED_BY_A_RUN)
    yield imported
    imported.stop()


@pytest.fixture
def forked_harness(tmp_path: Path, imported: Imported) -> Harness:
    """One whose runs are quicker, and come to their end by themselves."""
    return Harness(tmp_path, imported)


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random two-layer model with a tokenizer of single characters."""
    import torch
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tiny-llama")
    characters = ["</s>", "\n", *(chr(code) for code in range(32, 127))]
    vocabulary = {character: index for index, character in enumerate(characters)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="</s>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("[\\s\\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>").save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(characters),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        bos_token_id=None,
        eos_token_id=0,
        initializer_range=0.3,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder
