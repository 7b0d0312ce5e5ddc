# SPDX-License-Identifier: Apache-2.0
"""Real servers, one at a time, through the harness."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from eval.config.loading import load_config
from eval.config.schema import Config
from eval.serving.command import find_executable, server_command
from eval.serving.process import ChildProcess
from eval.serving.server import Server, choose_port

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "eval" / "models" / "gsm-tiny"
TASK = {"name": "gsm_tiny", "questions": 48, "fewshot": 2, "max_tokens": 96, "concurrency": 24}


class Evaluation:
    """``python -m eval run`` with few questions, in a folder of its own."""

    def __init__(self, folder: Path, *options: str, **settings: Any) -> None:
        values = {
            "name": "e2e",
            "model": str(MODEL),
            "tasks": [TASK],
            "oracle.prompts": 0,
            **settings,
        }
        sets = [f"{key}={json.dumps(value)}" for key, value in values.items()]
        command = [sys.executable, "-m", "eval", "run", str(ROOT / "eval/config/presets/cpu.yaml")]
        for setting in sets:
            command += ["--set", setting]
        done = subprocess.run(
            [*command, *options],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"},
            capture_output=True,
            text=True,
            timeout=900,
        )
        self.exit_code = done.returncode
        self.output = done.stdout + done.stderr
        self.folder = folder / "runs" / "e2e"
        file = self.folder / "result.json"
        self.result: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}

    def arm(self, name: str) -> dict[str, Any]:
        """The result of one arm."""
        arms: dict[str, Any] = {arm["name"]: arm for arm in self.result["arms"]}
        assert name in arms, self.output
        found: dict[str, Any] = arms[name]
        return found

    def task(self, name: str) -> dict[str, Any]:
        """What one arm answered."""
        found: dict[str, Any] = self.arm(name)["tasks"][0]
        return found


@contextlib.contextmanager
def serving(folder: Path, arm: dict[str, Any], events: Path, *options: str) -> Iterator[Server]:
    """A healthy server as `cpu.yaml` starts it, with its log in the folder."""
    config, command, port = _server_of(arm, events)
    log = folder / "server.log"
    with Server([*command, *options], config.serve.environment, log, port) as server:
        # Other tests run beside it, and have limits of their own.
        os.setpriority(os.PRIO_PROCESS, server.pid, 10)
        server.wait_until_healthy(300, Console(), arm["name"])
        yield server


def events_of(file: Path) -> list[dict[str, Any]]:
    """Whole lines of a file that may be growing, or not be there."""
    lines = file.read_text().splitlines(keepends=True) if file.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def refusal(folder: Path, arm: dict[str, Any], **settings: Any) -> str:
    """Start one server as `cpu.yaml` does, which has to end by itself; what it printed."""
    config, command, _ = _server_of(arm, folder / "events", **settings)
    log = folder / "server.log"
    deadline = time.monotonic() + 300
    with ChildProcess(command, config.serve.environment, log) as server:
        while server.running():
            assert time.monotonic() < deadline, f"still running: {log.read_text()[-4000:]}"
            time.sleep(0.5)
        assert server.wait() != 0
    return log.read_text()


def _server_of(arm: dict[str, Any], events: Path, **settings: Any) -> tuple[Config, list[str], int]:
    base = load_config(ROOT / "eval/config/presets/cpu.yaml").model_dump()
    changed = {**base, "model": str(MODEL), **settings, "arms": [{"name": "off"}, arm]}
    config = Config.model_validate(changed)
    port = choose_port(None)
    command = server_command(config, config.arms[1], find_executable(None), port, events)
    return config, command, port
