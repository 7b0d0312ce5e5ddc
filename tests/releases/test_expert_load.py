# SPDX-License-Identifier: Apache-2.0
"""What `scripts/expert_load.py` counts and plans, with vLLM's own policy."""

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from transformers import AutoTokenizer

REPOSITORY = Path(__file__).parents[2]
MODEL = REPOSITORY / "eval" / "models" / "gsm-tiny"
TEXTS = [
    "Question: Ada is 20 years old. Ben is 5 years older. How old is Ben?\nAnswer:",
    "Question: A garden is 10 feet wide and 20 feet long.",
]


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(REPOSITORY / "scripts"))
        yield importlib.import_module("expert_load")


def test_every_token_but_the_last_goes_to_four_experts_in_each_layer(script: ModuleType) -> None:
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    loads = script.count_loads(MODEL, TEXTS)
    assert loads.shape == (2, 5, 16)
    for text, load in zip(TEXTS, loads, strict=True):
        tokens = len(tokenizer(text).input_ids) - 1
        assert load.sum(1).tolist() == [4 * tokens] * 5
        assert int(load.max()) <= tokens


def test_redundant_experts_balance_what_a_busy_expert_unbalances(script: ModuleType) -> None:
    even, busy = torch.full((8,), 10), torch.tensor([70, 10, 10, 10, 10, 10, 10, 10])
    loads = torch.stack([even, busy]).expand(2, 2, 8)
    first, second = script.layer_loads(loads, ranks=2, redundant=2)
    assert first.skew == 1.0
    assert first.without_eplb == 1.0
    assert second.skew == pytest.approx(70 / 17.5)
    assert second.without_eplb == pytest.approx(70 / 100)
    assert second.with_eplb > 0.9


def test_the_placement_is_judged_on_other_questions_than_it_is_planned_from(
    script: ModuleType,
) -> None:
    planned_from, judged = torch.tensor([[80, 10, 10, 10]]), torch.tensor([[10, 10, 10, 80]])
    [layer] = script.layer_loads(torch.stack([planned_from, judged]), ranks=2, redundant=0)
    assert layer.skew == pytest.approx(80 / 27.5)
    assert layer.with_eplb < 0.7


def test_samples_without_answers_to_the_task_are_refused(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    samples = tmp_path / "samples.jsonl"
    assert script.main([str(MODEL), str(samples)]) == 2
    assert f"cannot read {samples}" in capsys.readouterr().err
    samples.write_text(json.dumps({"task": "gsm8k", "prompt": "", "text": ""}) + "\n")
    assert script.main([str(MODEL), str(samples)]) == 2
    assert "has 0 answers to gsm_tiny: 2 or more are needed" in capsys.readouterr().err
