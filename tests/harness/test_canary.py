# SPDX-License-Identifier: Apache-2.0
"""A secret is in no file of a run and in nothing that is printed, whatever happens."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lm_eval
import pytest
import yaml

from tests.builders.harness import REPOSITORY, Harness, small_config

CANARY = "sk-c4n4ry-of-the-environment-1"
OPTION = "sk-c4n4ry-of-an-option-2"
CONFIGURED = "hf_c4n4ry-of-the-configuration-3"
PROXY = "c4n4ry-of-a-proxy-4"

TELLING = {"tells_all": True}
"""The stand-in prints its command line, its environment and the headers of requests."""


@pytest.fixture
def secretive(forked_harness: Harness) -> Harness:
    """With secrets in its environment."""
    forked_harness.environment |= {
        "OPENAI_API_KEY": CANARY,
        "HF_TOKEN": CANARY,
        "https_proxy": f"http://me:{PROXY}@127.0.0.1:9",
    }
    return forked_harness


def config(**changes: Any) -> dict[str, Any]:
    serve = {
        "start_timeout": 20,
        "options": {"data-parallel-size": 2, "api-key": OPTION, "enable-expert-parallel": True},
        "environment": {"HUGGING_FACE_HUB_TOKEN": CONFIGURED, "NOTE": f"has {CONFIGURED}"},
    }
    return small_config(serve=serve, **changes)


def leaks(folder: Path, printed: Sequence[str]) -> list[str]:
    """Where a secret stands: files of runs and of reports, and what commands printed."""
    kept = [file for file in folder.rglob("*") if file.is_file() and not _given(file)]
    assert any(file.suffix == ".log" for file in kept)
    texts = {str(file): file.read_bytes().decode(errors="replace") for file in kept}
    texts |= {f"output {number}": text for number, text in enumerate(printed)}
    return [where for where, text in texts.items() if "c4n4ry" in text]


def _given(file: Path) -> bool:
    """Whether it is what the test gave the harness."""
    return file.name in ("config.yaml", "vllm", "vllm-eplb")


def printed_by(ended: "subprocess.CompletedProcess[str]") -> str:
    return ended.stdout + ended.stderr


def test_the_canaries_get_to_the_server_and_not_on_its_command_line(secretive: Harness) -> None:
    seen = secretive.folder / "seen"
    secretive.executable.write_text(
        f'#!/bin/sh\necho "$@" > {seen}.arguments\nenv > {seen}.environment\nexit 3\n'
    )
    secretive.run(config=config())

    environment = Path(f"{seen}.environment").read_text()
    assert f"VLLM_API_KEY={OPTION}" in environment
    assert f"HUGGING_FACE_HUB_TOKEN={CONFIGURED}" in environment
    assert "c4n4ry" not in Path(f"{seen}.arguments").read_text()


def test_a_whole_run_and_all_that_reads_it_have_none(secretive: Harness) -> None:
    run = secretive.run("--only", "sync", "--junit", "junit.xml", config=config(), **TELLING)
    assert run.returncode == 0, run.stdout + run.stderr
    commands = [
        ["gate", "runs/small", "--junit", "again.xml"],
        ["report", "runs/small"],
        ["report", "runs/small", "--markdown", "one.md", "--html", "one.html"],
        ["check", "config.yaml"],
    ]
    ended = [secretive.evaluate(*command) for command in commands]
    others = [printed_by(one) for one in ended]
    assert ended[0].returncode == 0, others[0]

    assert leaks(secretive.folder, [printed_by(run), *others]) == []
    log = (secretive.folder / "runs/small/arms/sync/server.log").read_text()
    assert "'VLLM_API_KEY': '(hidden)'" in log
    kept = secretive.result()["config"]["serve"]
    assert kept["options"]["api-key"] == "(hidden)"
    assert kept["environment"] == {"HUGGING_FACE_HUB_TOKEN": "(hidden)", "NOTE": "has (hidden)"}


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        ({"die": f"no memory for {CANARY}"}, "the server ended while it was starting"),
        ({"answers": {"status": 500, "body": f'{{"error": "{OPTION}"}}'}}, "500 Internal Server"),
        ({"answers": {"body": f'{{"choices": [{{"text": "{CANARY}"}}]}}'}}, "has a secret in it"),
        ({"wants_key": "another"}, "the server wants an API key"),
        ({"exit_after": 3}, "the server stopped answering"),
        ({"metrics": f"{CANARY} {{"}, "/metrics answers cannot be read"),
    ],
)
def test_a_run_that_fails_has_none(
    secretive: Harness, behaviour: dict[str, Any], said: str
) -> None:
    run = secretive.run("--junit", "junit.xml", config=config(), **behaviour, **TELLING)

    assert run.returncode == 2
    assert said in run.stdout
    assert "Traceback" not in run.stderr
    assert leaks(secretive.folder, [printed_by(run)]) == []


@pytest.mark.parametrize(
    "text",
    [
        f"serve: {{environment: {{HF_TOKEN: [{CONFIGURED}]}}}}",
        f"serve:\n  environment:\n    HF_TOKEN: {CONFIGURED}\n   wrong: 1",
    ],
)
def test_a_wrong_configuration_is_told_without_them(secretive: Harness, text: str) -> None:
    (secretive.folder / "wrong.yaml").write_text(text)
    ended = secretive.evaluate("run", "wrong.yaml", "--set", f"a.b.HF_TOKEN={CONFIGURED}")

    assert ended.returncode == 2
    assert "c4n4ry" not in printed_by(ended)


def test_a_run_under_load_has_none(secretive: Harness) -> None:
    limits = ["--seconds", "1", "--streams", "2", "--json", "stress-copy.json"]
    ended = secretive.run(*limits, config=config(), command="stress", **TELLING)

    assert "completions" in printed_by(ended) or ended.returncode in (0, 1), printed_by(ended)
    kept = json.loads((secretive.folder / "stress-copy.json").read_text())
    assert kept["arms"][0]["load"]["requests"] > 0
    assert leaks(secretive.folder, [printed_by(ended)]) == []


def test_a_measurement_of_latency_has_none(secretive: Harness) -> None:
    # Beside its Python stands the stand-in, which is what this command serves with.
    python = secretive.folder / "python"
    python.symlink_to(sys.executable)
    packages = Path(lm_eval.__file__).parents[1]
    ended = subprocess.run(
        [python, "-m", "eval", "latency", "--gpus", "0", "--arm", "off", "--tokens", "64",
         "--streams", "2", "--json", "latency.json"],
        cwd=secretive.folder,
        env={
            **secretive.environment,
            "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{packages}",
            "VLLM_API_KEY": OPTION,
            "FAKE_VLLM": json.dumps(TELLING),
        },
        capture_output=True,
        text=True,
        timeout=300,
    )  # fmt: skip

    assert ended.returncode == 0, printed_by(ended)
    assert json.loads((secretive.folder / "latency.json").read_text())["arms"]
    assert leaks(secretive.folder, [printed_by(ended)]) == []


def test_an_error_that_nobody_foresaw_is_told_without_them(secretive: Harness) -> None:
    values = config()
    values["serve"]["executable"] = str(secretive.executable)
    (secretive.folder / "config.yaml").write_text(yaml.safe_dump(values))
    # Raised in the middle of an attempt, with what nobody may see.
    program = (
        "from eval.commands import accuracy\nfrom eval.cli import main\n"
        f"def broken(*_): raise KeyError('{CANARY}')\naccuracy.run_arms = broken\nmain()\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, "run", "config.yaml"],
        cwd=secretive.folder,
        env=secretive.environment,
        capture_output=True,
        text=True,
        timeout=300,
    )

    assert ended.returncode == 2
    assert "an error of the harness itself (KeyError: '(hidden)')" in ended.stdout
    folder = secretive.folder / "runs/small"
    assert "Traceback" in (folder / "unexpected-error.txt").read_text()
    assert "Traceback" not in printed_by(ended)
    assert secretive.result()["verdict"] == "could not run"
    (folder / "one.log").touch()
    assert leaks(secretive.folder, [printed_by(ended)]) == []
