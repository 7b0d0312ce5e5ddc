# SPDX-License-Identifier: Apache-2.0
"""What the processor decides, as doctor and loopback see it."""

import os
import subprocess
import sys

import pytest

from tests import processors
from tests.processors import pretend, skip_without_instructions
from vllm_eplb_plugin.processor import Processor, processor_problem, this_processor


@pytest.mark.parametrize(
    ("processor", "features", "kernels"),
    [
        ("avx2", "avx2", "_C_AVX2"),
        ("avx512", "avx2 avx512", "_C_AVX512"),
        ("avx512_bf16", "avx2 avx512 avx512_bf16", "_C"),
        ("amx", "avx2 avx512 avx512_bf16 amx", "_C"),
    ],
)
def test_features_and_kernels_are_those_that_vllm_goes_by(
    processor: str, features: str, kernels: str
) -> None:
    code = (
        "from vllm_eplb_plugin import processor; processor._takes_zentorch = lambda: False; "
        "found = processor.this_processor(); print(*found.features, found.kernels)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **pretend(processor)},
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == f"{features} {kernels}", done.stderr


@pytest.mark.parametrize(("processor", "runs"), [("avx2", True), ("avx512", False), ("amx", False)])
def test_no_test_loads_kernels_that_an_older_processor_cannot_run(
    processor: str, runs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = Processor("Zen 3", ("avx2",), "_C_AVX2")
    monkeypatch.setattr(processors, "this_processor", lambda: old)
    if runs:
        skip_without_instructions(processor)
    else:
        with pytest.raises(pytest.skip.Exception, match="lacks it"):
            skip_without_instructions(processor)


def test_this_processor_has_a_name() -> None:
    assert this_processor().name


def test_zentorch_and_a_processor_without_kernels_are_problems() -> None:
    assert processor_problem(Processor("one", ("avx2",), "_C_AVX2")) is None
    zentorch = processor_problem(Processor("one", ("avx2", "avx512"), "zentorch"))
    assert zentorch is not None
    assert "Uninstall zentorch" in zentorch
    nothing = processor_problem(Processor("Atom", (), None))
    assert nothing is not None
    assert nothing.startswith("Atom has none of avx2, avx512, avx512_bf16")
