# SPDX-License-Identifier: Apache-2.0
"""The training of gsm-tiny: what it learns from, and that it can be stopped and repeated."""

import hashlib
import importlib
import json
import re
from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from scripts.gsm_tiny_problems import problems

transformers = pytest.importorskip("transformers", minversion="5")
safetensors_torch = pytest.importorskip("safetensors.torch")

REPOSITORY = Path(__file__).parents[2]
MODEL = REPOSITORY / "eval" / "models" / "gsm-tiny"
SMALL = (
    *("--layers", "2", "--experts", "4", "--experts-per-token", "2", "--hidden-size", "32"),
    *("--intermediate-size", "32", "--moe-intermediate-size", "32", "--batch-size", "2"),
    *("--sequence-length", "160", "--warmup-steps", "1", "--steps", "4", "--validate-every", "2"),
    *("--validation-batches", "1", "--save-every", "2", "--workers", "0", "--device", "cpu"),
)


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(REPOSITORY / "scripts"))
        yield importlib.import_module("train_tiny_moe")
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="module")
def tokenizer(script: ModuleType) -> Any:
    return script.tokenizer_for_problems()


@pytest.fixture(scope="module")
def trained(script: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    assert train(script, folder) == 0
    return folder / "model"


def train(script: ModuleType, folder: Path, *options: str) -> int:
    places = ("--output", str(folder / "model"), "--work", str(folder / "work"))
    code: int = script.main([*places, *SMALL, *options])
    return code


def test_the_tokenizer_is_that_of_the_model(tokenizer: Any, tmp_path: Path) -> None:
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert (tmp_path / "tokenizer.json").read_bytes() == (MODEL / "tokenizer.json").read_bytes()


def test_digits_are_single_tokens_and_no_character_is_unknown(tokenizer: Any) -> None:
    for problem in islice(problems("train", 8), 500):
        tokens = tokenizer.encode(f"Question: {problem.question}\nAnswer: {problem.answer}").tokens
        assert "<unk>" not in tokens
        assert all(len(token) == 1 for token in tokens if re.search(r"\d", token))


def test_a_sequence_is_a_few_shot_prompt_of_which_only_answers_are_learned(
    script: ModuleType, tokenizer: Any
) -> None:
    tokens, labels, answers = script.Sequences("train", 0, 640, tokenizer)[5]
    solved = list(islice(problems("train", 5), int(answers.max()) + 1))
    shots = [f"Question: {one.question}\nAnswer: {one.answer}" for one in solved]
    text = tokenizer.decode(tokens.tolist(), skip_special_tokens=True)
    assert text == "\n\n".join(shots)
    assert len(shots) >= 5
    for number, problem in enumerate(solved):
        learned = labels[answers == number].tolist()
        assert tokenizer.decode(learned[:-1]) == f" {problem.answer}"
        assert learned[-1] == tokenizer.token_to_id("<eos>")
    assert set(labels[answers < 0].tolist()) == {-100}


def test_each_label_is_the_token_after_its_position(script: ModuleType, tokenizer: Any) -> None:
    tokens, labels, answers = (
        one.tolist() for one in script.Sequences("train", 1, 640, tokenizer)[0]
    )
    end = tokenizer.token_to_id("<eos>")
    for position, label in enumerate(labels):
        if answers[position] >= 0 and label != end:
            assert tokens[position + 1] == label


def test_sequences_differ_by_index_seed_and_split(script: ModuleType, tokenizer: Any) -> None:
    def sequence(split: str, seed: int, index: int) -> list[int]:
        found: list[int] = script.Sequences(split, seed, 200, tokenizer)[index][0].tolist()
        return found

    assert sequence("train", 0, 0) == sequence("train", 0, 0)
    others = [sequence("train", 0, 1), sequence("train", 1, 0), sequence("held_out", 0, 0)]
    assert sequence("train", 0, 0) not in others


@pytest.mark.usefixtures("script")
@pytest.mark.parametrize("way", ["dense_experts", "grouped_experts"])
def test_experts_give_what_those_of_transformers_do(way: str) -> None:
    config = transformers.DeepseekV2Config(
        hidden_size=32, moe_intermediate_size=24, n_routed_experts=6, num_experts_per_tok=2
    )
    config._experts_implementation = "eager"
    implementation = importlib.import_module("transformers.models.deepseek_v2.modeling_deepseek_v2")
    torch.manual_seed(0)
    experts = implementation.DeepseekV2Experts(config)
    for parameter in experts.parameters():
        torch.nn.init.normal_(parameter)
    hidden = torch.randn(40, 32, requires_grad=True)
    weights, indices = torch.rand(40, 6).index_fill(1, torch.tensor(4), 0).topk(2)
    assert 4 not in indices, "one expert should have no token"
    learned = (hidden, *experts.parameters())
    expected = experts(hidden, indices, weights)
    gradients = torch.autograd.grad(expected.square().mean(), learned)
    run = getattr(importlib.import_module("training_model"), way)
    found = run(experts, hidden, indices, weights)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)
    for one, other in zip(
        torch.autograd.grad(found.square().mean(), learned), gradients, strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


def test_the_options_are_those_that_the_model_was_trained_with(script: ModuleType) -> None:
    record = json.loads((MODEL / "training.json").read_text(encoding="utf-8"))
    assert asdict(script.Options()) == record["options"]


def test_the_checkpoint_is_the_trained_model_in_bfloat16(script: ModuleType, trained: Path) -> None:
    state = torch.load(trained.parent / "work" / "state.pt", weights_only=True)
    loaded, report = transformers.AutoModelForCausalLM.from_pretrained(
        trained, dtype=torch.float32, output_loading_info=True
    )
    assert not any(report.values()), report
    weights = loaded.state_dict()
    assert weights.keys() == state["model"].keys()
    for name, weight in state["model"].items():
        assert torch.equal(weights[name], weight.bfloat16().float()), name
    assert transformers.AutoTokenizer.from_pretrained(trained).eos_token == "<eos>"
    record = json.loads((trained / "training.json").read_text(encoding="utf-8"))
    assert record["options"]["steps"] == 4
    digest = hashlib.sha256((trained / "model.safetensors").read_bytes()).hexdigest()
    assert record["model.safetensors"] == digest
    assert (trained / "training.png").read_bytes().startswith(b"\x89PNG")


def test_experts_have_the_names_of_the_hub(trained: Path) -> None:
    names = set(safetensors_torch.load_file(trained / "model.safetensors"))
    for expert in range(4):
        for kind in ("gate_proj", "up_proj", "down_proj"):
            assert f"model.layers.1.mlp.experts.{expert}.{kind}.weight" in names


def test_a_stopped_training_goes_on_to_the_same_weights(
    script: ModuleType, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[float] = []
    module = importlib.import_module("training_steps")
    original = module.training_step

    def stop_at_the_fourth(*arguments: Any) -> Any:
        steps.append(0)
        if len(steps) == 4:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(module, "training_step", stop_at_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        train(script, tmp_path)
    steps.clear()
    assert train(script, tmp_path) == 0
    assert len(steps) == 2, "the first two steps were not kept"
    weights = (tmp_path / "model" / "model.safetensors").read_bytes()
    assert weights == (trained / "model.safetensors").read_bytes()


def test_a_state_of_other_options_or_a_damaged_one_is_refused(
    script: ModuleType, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = tmp_path / "work" / "state.pt"
    state.parent.mkdir()
    state.write_bytes((trained.parent / "work" / "state.pt").read_bytes())
    assert train(script, tmp_path, "--seed", "1") == 2
    assert f"{state} is of a training with other options" in capsys.readouterr().err
    state.write_bytes(state.read_bytes()[:1000])
    assert train(script, tmp_path) == 2
    assert f"cannot read {state}" in capsys.readouterr().err
    assert state.stat().st_size == 1000


@pytest.mark.parametrize(
    ("flag", "value"), [("--steps", "0"), ("--hidden-size", "33"), ("--experts", "3")]
)
def test_an_option_that_cannot_be_used_is_named(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], flag: str, value: str
) -> None:
    assert train(script, tmp_path, flag, value) == 2
    assert f"{flag} is" in capsys.readouterr().err
    assert not (tmp_path / "model").exists()
