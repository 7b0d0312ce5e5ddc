# SPDX-License-Identifier: Apache-2.0
"""Servers that believe in another processor than there is."""

from pathlib import Path

import pytest

from tests.e2e.conftest import Evaluation
from tests.processors import pretend, skip_without_instructions

ASYNC = {"name": "async", "eplb": {"use_async": True, "window_size": 10, "step_interval": 10}}


@pytest.mark.parametrize("processor", ["avx2", "amx"])
def test_answers_in_float32_stay_the_same_on_an_older_and_on_a_newer_processor(
    processor: str, tmp_path: Path
) -> None:
    skip_without_instructions(processor)
    environment = {f"serve.environment.{name}": value for name, value in pretend(processor).items()}
    evaluation = Evaluation(tmp_path, arms=[{"name": "off"}, ASYNC], **environment)
    assert evaluation.result.get("reasons") is not None, evaluation.output
    assert evaluation.task("off")["accuracy"] >= 0.55, evaluation.output
    assert evaluation.task("async")["identical_to_off"] == 48
    assert evaluation.arm("async")["weight_mismatches"] == 0
    assert evaluation.arm("async")["rearrangements"] > 0
