# SPDX-License-Identifier: Apache-2.0
"""A command imports what it needs when it is called, and no other."""

import subprocess
import sys

import pytest

from tests.builders.harness import REPOSITORY

HEAVY = ("lm_eval", "torch", "scipy", "numpy", "datasets", "transformers", "matplotlib")


@pytest.mark.parametrize(
    "arguments",
    [["gate", "--help"], ["run", "--help"], ["run", "nonsense"], ["check", "nowhere.yaml"]],
)
def test_help_and_a_wrong_configuration_import_nothing_heavy(arguments: list[str]) -> None:
    program = (
        "import sys, atexit; "
        f"atexit.register(lambda: print('heavy:', *{{*{HEAVY}}} & {{*sys.modules}})); "
        f"from eval.cli import main; main(*{arguments})"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, timeout=60
    )

    assert done.stdout.splitlines()[-1].split() == ["heavy:"], done.stderr
