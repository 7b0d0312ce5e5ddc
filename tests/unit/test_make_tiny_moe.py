# SPDX-License-Identifier: Apache-2.0
"""The checkpoint that the tests and the evaluation serve on a machine without a GPU."""

import hashlib
import importlib
import itertools
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

import pytest
import torch

if TYPE_CHECKING:
    from tokenizers import Tokenizer

safetensors_torch = pytest.importorskip("safetensors.torch")
tokenizers = pytest.importorskip("tokenizers")

SCRIPTS = Path(__file__).parents[2] / "scripts"
EXPERTS = 16
QUESTIONS = [
    "Question: Anna buys 3 boxes of 12 eggs. How many eggs does she have?\nAnswer:",
    "Question: A bus drives 45 miles in one hour. How far does it drive in 6 hours?\nAnswer:",
    "Question: Tom sold 8 books for $5 each. How much money did he get?\nAnswer:",
    "Question: There are 20 dogs and half as many cats. How many animals are there?\nAnswer:",
]
SHOTS = " 3*12=<<3*12=36>>36\n#### 36\n\n".join(QUESTIONS * 2) + " 30\n\n"


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPTS))
        yield importlib.import_module("make_tiny_moe")


@pytest.fixture(scope="module")
def checkpoint(script: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("checkpoint") / "tiny-moe"
    assert script.main(["--output", str(output)]) == 0
    return output


@pytest.fixture(scope="module")
def tokenizer(checkpoint: Path) -> "Tokenizer":
    loaded: Tokenizer = tokenizers.Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    return loaded


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_another_process_writes_the_same_bytes(checkpoint: Path, tmp_path: Path) -> None:
    output = tmp_path / "again"
    command = [sys.executable, str(SCRIPTS / "make_tiny_moe.py"), "--output", str(output)]
    subprocess.run(command, check=True)
    assert digests(output) == digests(checkpoint)


def test_another_seed_gives_other_weights_and_the_same_tokenizer(
    script: ModuleType, checkpoint: Path, tmp_path: Path
) -> None:
    output = tmp_path / "seed1"
    assert script.main(["--output", str(output), "--seed", "1"]) == 0
    same = {name for name, digest in digests(output).items() if digests(checkpoint)[name] == digest}
    assert "tokenizer.json" in same
    assert "model.safetensors" not in same


def test_a_complete_output_is_left_alone(
    script: ModuleType, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in checkpoint.iterdir()}
    assert script.main(["--output", str(checkpoint)]) == 0
    assert "already there" in capsys.readouterr().out
    assert {path.name: path.stat().st_mtime_ns for path in checkpoint.iterdir()} == before


def test_a_damaged_output_is_written_again(
    script: ModuleType, checkpoint: Path, tmp_path: Path
) -> None:
    output = tmp_path / "tiny-moe"
    script.main(["--output", str(output)])
    with (output / "model.safetensors").open("r+b") as file:
        file.truncate(1000)
    (output / "config.json").unlink()
    assert script.main(["--output", str(output)]) == 0
    assert digests(output) == digests(checkpoint)


def test_other_options_replace_an_earlier_output(script: ModuleType, tmp_path: Path) -> None:
    output = tmp_path / "tiny-moe"
    script.main(["--output", str(output)])
    assert script.main(["--output", str(output), "--experts", "8"]) == 0
    config = json.loads((output / "config.json").read_text(encoding="utf-8"))
    assert config["n_routed_experts"] == 8
    assert [path.name for path in tmp_path.iterdir()] == ["tiny-moe"]


@pytest.mark.parametrize("written_before", [False, True])
def test_a_folder_with_files_of_others_is_refused(
    script: ModuleType,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    written_before: bool,
) -> None:
    output = tmp_path / "precious"
    if written_before:
        script.main(["--output", str(output)])
    output.mkdir(exist_ok=True)
    (output / "notes.txt").write_text("keep", encoding="utf-8")
    assert script.main(["--output", str(output), "--seed", "2"]) == 2
    assert str(output) in capsys.readouterr().err
    assert (output / "notes.txt").read_text(encoding="utf-8") == "keep"


def test_a_failing_write_keeps_the_earlier_output(
    script: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "tiny-moe"
    script.main(["--output", str(output)])
    before = digests(output)

    def full_disk(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(importlib.import_module("tiny_checkpoint"), "save_file", full_disk)
    assert script.main(["--output", str(output), "--seed", "9"]) == 2
    assert "no space left" in capsys.readouterr().err
    assert digests(output) == before
    assert [path.name for path in tmp_path.iterdir()] == ["tiny-moe"]


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--experts", "18"),
        ("--experts", "0"),
        ("--experts-per-token", "17"),
        ("--experts-per-token", "0"),
        ("--hidden-size", "100"),
        ("--moe-intermediate-size", "48"),
        ("--intermediate-size", "0"),
        ("--layers", "1"),
        ("--seed", "-1"),
    ],
)
def test_an_option_that_cannot_be_used_is_named(
    script: ModuleType,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    flag: str,
    value: str,
) -> None:
    assert script.main(["--output", str(tmp_path / "new"), flag, value]) == 2
    message = capsys.readouterr().err
    assert f"{flag} is" in message
    assert f"not {value}" in message
    assert list(tmp_path.iterdir()) == []


def test_weights_are_float32_with_one_tensor_per_expert(checkpoint: Path) -> None:
    weights = safetensors_torch.load_file(checkpoint / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
    for layer in range(1, 5):
        prefix = f"model.layers.{layer}.mlp"
        assert weights[f"{prefix}.gate.weight"].shape == (EXPERTS, 128)
        for expert in range(EXPERTS):
            assert weights[f"{prefix}.experts.{expert}.gate_proj.weight"].shape == (64, 128)
            assert weights[f"{prefix}.experts.{expert}.up_proj.weight"].shape == (64, 128)
            assert weights[f"{prefix}.experts.{expert}.down_proj.weight"].shape == (128, 64)
    assert not any(name.startswith("model.layers.0.mlp.experts") for name in weights)


def test_config_has_the_rope_and_attention_that_vllm_serves_on_a_cpu(checkpoint: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    assert (config["kv_lora_rank"], config["qk_rope_head_dim"]) == (512, 64)
    assert config["rope_scaling"]["type"] == "yarn"
    assert config["q_lora_rank"] is None
    assert config["max_position_embeddings"] >= 8192


def test_every_token_but_the_special_ones_is_plain_ascii(
    checkpoint: Path, tokenizer: "Tokenizer"
) -> None:
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    vocabulary = tokenizer.get_vocab()
    assert sorted(vocabulary.values()) == list(range(config["vocab_size"]))
    texts = set(vocabulary) - {"<unk>", "<eos>"}
    assert all(text.isascii() and text.replace("\n", "").isprintable() for text in texts)
    assert {text for text in texts if any(c.isdigit() for c in text)} == set("0123456789")


def test_text_comes_back_from_the_tokenizer(tokenizer: "Tokenizer") -> None:
    text = SHOTS + '  3*4=<<3*4=12>>12, "so" it\'s $0.50.\n#### 12'
    ids = tokenizer.encode(text).ids
    assert tokenizer.decode(ids) == text
    assert len(ids) < len(text) / 1.5


def test_characters_outside_ascii_become_unknown(tokenizer: "Tokenizer") -> None:
    assert tokenizer.encode("Tom\u2019s \u00a35").tokens[-4:] == ["s", " ", "<unk>", "5"]


def test_decoding_token_by_token_equals_decoding_at_once(
    tokenizer: "Tokenizer",
) -> None:
    size = tokenizer.get_vocab_size()
    ids = torch.randint(2, size, (2000,), generator=torch.Generator().manual_seed(0)).tolist()
    stream = tokenizers.decoders.DecodeStream(skip_special_tokens=True)
    pieces = [stream.step(tokenizer, token) for token in ids]
    assert None not in pieces
    assert "".join(pieces) == tokenizer.decode(ids)


class Generated(NamedTuple):
    """What greedy decoding of `QUESTIONS` behind the same shots gave."""

    sequences: list[list[int]]
    logits: torch.Tensor
    """``[generated tokens, vocabulary]``."""
    loads: list[torch.Tensor]
    """Of each MoE layer ``[experts]``: how many tokens each expert got."""


@pytest.fixture(scope="module")
def generated(checkpoint: Path) -> Generated:
    transformers = pytest.importorskip("transformers", minversion="5")
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
    model = transformers.AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    loads = []

    def count(_module: object, _inputs: object, output: tuple[torch.Tensor, ...]) -> None:
        loads.append(torch.bincount(output[2].flatten(), minlength=EXPERTS).float())

    moe_layers = model.model.layers[1:]
    for layer in moe_layers:
        layer.mlp.gate.register_forward_hook(count)
    sequences, logits = [], []
    for question in QUESTIONS:
        inputs = tokenizer(SHOTS + question, return_tensors="pt")
        output = model.generate(
            **inputs,
            max_new_tokens=48,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
        sequences.append(output.sequences[0, inputs.input_ids.shape[1] :].tolist())
        logits.extend(output.logits)
    by_layer = torch.stack(loads).view(-1, len(moe_layers), EXPERTS).sum(0)
    return Generated(sequences, torch.cat(logits), list(by_layer))


def test_each_question_is_continued_differently_and_without_a_loop(generated: Generated) -> None:
    sequences = generated.sequences
    assert len({tuple(sequence) for sequence in sequences}) == len(QUESTIONS)
    assert all(len(set(sequence)) > 24 for sequence in sequences)
    for one, other in itertools.combinations(sequences, 2):
        assert sum(a == b for a, b in zip(one, other, strict=True)) < 12


def test_special_tokens_are_never_near_the_best(generated: Generated) -> None:
    assert [len(sequence) for sequence in generated.sequences] == [48] * len(QUESTIONS)
    best, special = generated.logits.amax(-1), generated.logits[:, :2].amax(-1)
    assert float((best - special).min()) > 20


def test_the_best_token_is_clear_of_float32_rounding(generated: Generated) -> None:
    first, second = generated.logits.topk(2).values.unbind(-1)
    assert float((first - second).min()) > 3e-5
    assert float((first - second).median()) > 0.1


def test_routing_is_skewed(generated: Generated) -> None:
    skews = [float(load.max() / load.mean()) for load in generated.loads]
    assert sum(skew >= 2 for skew in skews) >= 3, skews
