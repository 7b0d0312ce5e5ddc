# SPDX-License-Identifier: Apache-2.0
"""The Triton kernel without a GPU: in Triton's interpreter, which computes with numpy."""

import os
import subprocess
import sys

import pytest
import torch

from tests.releases.ranks import ROOT


@pytest.mark.skipif(
    torch.cuda.is_available(), reason="tests/unit/test_derive.py runs it on the GPU"
)
def test_the_kernel_derives_as_plain_python_does() -> None:
    fetched = subprocess.run([ROOT / "scripts" / "fetch-triton"], capture_output=True, text=True)
    assert fetched.returncode == 0, fetched.stderr
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "tests/unit/test_derive.py", "-k", "triton"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": fetched.stdout.strip(), "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert "passed" in done.stdout
    assert "needs a GPU" not in done.stdout, done.stdout
