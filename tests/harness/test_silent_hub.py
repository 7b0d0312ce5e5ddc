# SPDX-License-Identifier: Apache-2.0
"""A Hub that takes a connection and never answers."""

import os
import socket
import subprocess
import sys
from pathlib import Path

from tests.builders.harness import REPOSITORY


def test_a_hub_that_does_not_answer_is_not_waited_for(tmp_path: Path) -> None:
    """Nor is it asked again, by lm-eval, for questions that are in its cache."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path)}
        environment.pop("HF_HUB_OFFLINE", None)
        program = (
            "import eval.preflight.question_files as it\n"
            "it.hub.HUB_SECONDS = 0.2\n"
            "try:\n    it.download_gsm8k()\n"
            "except it.DatasetError as error:\n    print(error)\n"
            "it.hub.HUB_SECONDS = 600\n"
            "it.download_gsm8k()"
        )
        ended = subprocess.run(
            [sys.executable, "-c", program],
            cwd=REPOSITORY,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
        )

    assert "the Hub did not give it (no answer within 0.2 s). Set GSM8K_DIR" in ended.stdout
    assert "offline mode is enabled" in ended.stderr.splitlines()[-1]
