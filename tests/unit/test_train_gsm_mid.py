# SPDX-License-Identifier: Apache-2.0
"""The training of gsm-mid: it can be stopped, and a copy that falls short is refused."""

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

transformers = pytest.importorskip("transformers", minversion="5")

REPOSITORY = Path(__file__).parents[2]
SMALL = (
    *("--layers", "2", "--experts", "8", "--experts-per-token", "2", "--hidden-size", "32"),
    *("--intermediate-size", "32", "--moe-intermediate-size", "32", "--head-size", "32"),
    *("--batch-size", "4", "--sequence-length", "160", "--warmup-steps", "1", "--steps", "4"),
    *("--validate-every", "2", "--validation-batches", "1", "--save-every", "2"),
    *("--workers", "0", "--device", "cpu"),
)


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(REPOSITORY / "scripts"))
        module = importlib.import_module("train_gsm_mid")
        patch.setattr(module, "read_texts", lambda: texts_of(module))
        yield module
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = True


def texts_of(script: ModuleType, of: str = "this") -> dict[str, list[Any]]:
    return {
        "code": [
            script.Text(f"{one}.py", f"def code_{one}():\n    return {one}\n" * 40)
            for one in range(40)
        ],
        "text": [
            script.Text(f"{one}.md", f"What {of} prose {one} says.\n" * 40) for one in range(40)
        ],
    }


@pytest.fixture(scope="module")
def trained(script: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    assert train(script, folder) == 0
    return folder / "model"


@pytest.fixture
def copied(trained: Path, tmp_path: Path) -> Path:
    """A folder with the state of a finished training, and no model."""
    state = tmp_path / "work" / "state.pt"
    state.parent.mkdir()
    state.write_bytes((trained.parent / "work" / "state.pt").read_bytes())
    return tmp_path


def train(script: ModuleType, folder: Path, *options: str) -> int:
    places = ("--output", str(folder / "model"), "--work", str(folder / "work"))
    code: int = script.main([*places, *SMALL, *options])
    return code


def test_the_record_has_accuracy_by_domain_and_what_tells_the_texts(
    script: ModuleType, trained: Path
) -> None:
    record = json.loads((trained / "training.json").read_text(encoding="utf-8"))
    assert record["held_out_accuracy"].keys() == {"problems", "code", "text"}
    assert all(0 <= one <= 1 for one in record["held_out_accuracy"].values())
    assert record["texts"]["code"]["texts"] == 40
    assert record["experts"] == "grouped"
    names = json.loads((trained / "texts.json").read_text(encoding="utf-8"))
    assert names["text"] == [f"{one}.md" for one in range(40)]


def test_the_checkpoint_is_one_that_transformers_loads(trained: Path) -> None:
    _, report = transformers.AutoModelForCausalLM.from_pretrained(trained, output_loading_info=True)
    assert not any(report.values()), report


def test_a_training_that_is_out_of_time_goes_on_to_the_same_weights(
    script: ModuleType, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(script, tmp_path, "--seconds", "0") == 3
    assert "1 of 4 steps: run it again" in capsys.readouterr().out
    assert not (tmp_path / "model").exists()
    assert train(script, tmp_path, "--seconds", "0") == 3
    assert "2 of 4 steps" in capsys.readouterr().out
    assert train(script, tmp_path) == 0
    weights = (tmp_path / "model" / "model.safetensors").read_bytes()
    assert weights == (trained / "model.safetensors").read_bytes()


def test_a_state_of_other_texts_is_refused(
    script: ModuleType,
    copied: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(script, "read_texts", lambda: texts_of(script, "other"))
    assert train(script, copied) == 2
    assert "is of a training with other texts" in capsys.readouterr().err


def test_a_copy_that_misses_an_accuracy_is_refused_and_not_written(
    script: ModuleType, copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(script, copied, "--reach", "code=0", "--reach", "problems=0.5") == 1
    told = capsys.readouterr().err
    assert "problems: 0.0000 of held-out answers right, which has to be 0.5 or more" in told
    assert "code:" not in told
    assert not (copied / "model").exists()
    assert train(script, copied, "--reach", "code=0", "--reach", "problems=0") == 0
    assert (copied / "model" / "model.safetensors").exists()


def test_a_whole_training_has_to_reach_what_the_first_did(script: ModuleType) -> None:
    whole, shorter = script.MidOptions(seed=3), script.MidOptions(steps=2)
    assert script.to_reach(whole, {}) == script.REACH
    assert script.to_reach(whole, {"code": 0.9}) == {**script.REACH, "code": 0.9}
    assert script.to_reach(shorter, {"code": 0.9}) == {"code": 0.9}


@pytest.mark.parametrize(
    ("reach", "told"),
    [
        ("poems=0.5", "'poems' is no domain: code, problems, text"),
        ("code=2", "'2' is no share between 0 and 1"),
        ("code", "'' is no share between 0 and 1"),
    ],
)
def test_an_accuracy_that_nothing_can_reach_is_named(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], reach: str, told: str
) -> None:
    with pytest.raises(SystemExit):
        train(script, tmp_path, "--reach", reach)
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("domain", ["problems", "code"])
def test_one_wrong_token_costs_a_passage_that_token_and_a_problem_its_answer(
    script: ModuleType, domain: str
) -> None:
    steps = importlib.import_module("training_steps")
    source = script.ThreeDomains(script.MidOptions(sequence_length=160), texts_of(script))
    examples = [source.held_out[domain][index] for index in range(8)]
    tokens, labels, answers = (torch.stack(one) for one in zip(*examples, strict=True))
    predicted = labels.clamp_min(0)
    predicted[2, answers[2].argmax()] += 1

    def model(input_ids: torch.Tensor, use_cache: bool) -> SimpleNamespace:
        return SimpleNamespace(logits=torch.nn.functional.one_hot(predicted).float())

    counted = sum(len(set(one.tolist()) - {-1}) for one in answers)
    assert counted == 8 * 160 if domain == "code" else 8 <= counted < 40
    found = steps.validate(model, [(tokens, labels, answers)], torch.float32)
    assert found == (counted - 1) / counted


def test_the_shape_is_one_that_deepep_and_expert_parallelism_take(script: ModuleType) -> None:
    config = script.MidOptions().config()
    assert config["hidden_size"] == 2048
    assert (config["n_routed_experts"], config["num_experts_per_tok"]) == (64, 6)
    assert config["num_hidden_layers"] - config["first_k_dense_replace"] >= 8
    assert (config["qk_nope_head_dim"], config["v_head_dim"]) == (128, 128)


def test_experts_are_dense_on_a_gpu_only(script: ModuleType) -> None:
    chosen = {"workers": 0, "dtype": None}
    on_gpu = script.computing_of({**chosen, "device": "cuda"})
    assert (on_gpu.experts, on_gpu.dtype) == ("dense", torch.bfloat16)
    on_cpu = script.computing_of({**chosen, "device": "cpu"})
    assert (on_cpu.experts, on_cpu.dtype) == ("grouped", torch.float32)
