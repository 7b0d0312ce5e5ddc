# SPDX-License-Identifier: Apache-2.0
"""A local model that no server could load is refused with what to do about it."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from eval.errors import ConfigError
from eval.preflight.model_files import check_model, is_folder
from tests.builders.harness import REPOSITORY

TENSOR = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n"
AGAIN = r"\. Get the model again$"


def write_model(folder: Path) -> Path:
    """Two files of weights, the tokens 0 to 9 and a model that knows 10."""
    folder.mkdir(parents=True)
    write_json(folder / "config.json", {"vocab_size": 10})
    write_tokenizer(folder, {str(token): token for token in range(10)})
    save_file({"a": torch.zeros(2, 3)}, folder / "model-1.safetensors", {"format": "pt"})
    save_file({"b": torch.zeros(4), "c": torch.ones(5)}, folder / "model-2.safetensors")
    second = "model-2.safetensors"
    weight_map = {"a": "model-1.safetensors", "b": second, "c": second}
    write_json(folder / "model.safetensors.index.json", {"weight_map": weight_map})
    return folder


def write_json(file: Path, value: Any) -> None:
    file.write_text(json.dumps(value), encoding="utf-8")


def write_tokenizer(folder: Path, vocabulary: Any, added: tuple[int, ...] = ()) -> None:
    tokens = [{"id": token, "content": f"<{token}>"} for token in added]
    write_json(folder / "tokenizer.json", {"model": {"vocab": vocabulary}, "added_tokens": tokens})


def header(value: Any) -> bytes:
    text = json.dumps(value).encode()
    return struct.pack("<Q", len(text)) + text


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model")


def test_a_whole_model_passes(model: Path) -> None:
    check_model(str(model))


def test_weights_of_no_tensors_are_whole(model: Path) -> None:
    save_file({}, model / "model-3.safetensors", {"format": "pt"})

    check_model(str(model))


def test_the_committed_model_passes() -> None:
    check_model(str(REPOSITORY / "eval" / "models" / "gsm-tiny"))


def test_a_name_that_is_no_folder_is_one_on_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    assert not is_folder("someone/some-moe")
    assert is_folder("build/some-moe")


def test_a_folder_that_looks_like_a_name_on_the_hub_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "someone" / "some-moe")
    assert is_folder("someone/some-moe")
    check_model("someone/some-moe")
    Path("someone/some-moe/config.json").unlink()

    with pytest.raises(ConfigError, match="^someone/some-moe/config.json is missing"):
        check_model("someone/some-moe")


@pytest.mark.parametrize(
    ("name", "next_step"),
    [
        ("/no/such-model", "Get the model again"),
        ("./tiny", "Get the model again"),
        ("../tiny", "Get the model again"),
        ("~/tiny", "Get the model again"),
        ("build/other", "Get the model again"),
        ("eval/none", "Get the model again"),
        ("build/tiny-moe", "Make it: python scripts/make_tiny_moe.py --output build/tiny-moe"),
        ("./build/tiny-moe/", "Make it: python scripts/make_tiny_moe.py --output build/tiny-moe"),
        ("eval/models/tiny", "Restore it: git checkout -- eval/models/tiny"),
    ],
)
def test_a_missing_folder_is_named_with_the_next_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, next_step: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("eval/models/other").mkdir(parents=True)

    with pytest.raises(ConfigError, match=rf"^model {Path(name)}: .*\. {next_step}$"):
        check_model(name)


def test_a_tilde_is_said_not_to_be_expanded() -> None:
    with pytest.raises(ConfigError, match="~ is not expanded"):
        check_model("~/tiny")


def test_a_folder_without_config_is_refused(model: Path) -> None:
    (model / "config.json").unlink()

    with pytest.raises(ConfigError, match=f"model/config.json is missing.*{AGAIN}"):
        check_model(str(model))


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors.index.json"])
@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is not JSON"),
        (b'{"a": ', "is not JSON"),
        (b"\xff\xfe\xff", "is not JSON"),
        (b"[]", "is not a JSON object but a list"),
    ],
)
def test_a_file_that_is_not_a_json_object_is_named(
    model: Path, name: str, content: bytes, problem: str
) -> None:
    (model / name).write_bytes(content)

    with pytest.raises(ConfigError, match=f"model/{name} {problem}.*{AGAIN}"):
        check_model(str(model))


def test_a_file_that_cannot_be_read_is_named(model: Path) -> None:
    (model / "config.json").unlink()
    (model / "config.json").mkdir()

    with pytest.raises(ConfigError, match=f"cannot read model .*/config.json'{AGAIN}"):
        check_model(str(model))


def test_a_folder_without_tokenizer_is_refused(model: Path) -> None:
    (model / "tokenizer.json").unlink()

    with pytest.raises(ConfigError, match=f"model has no tokenizer: none of .*{AGAIN}"):
        check_model(str(model))


@pytest.mark.parametrize("name", ["tokenizer.model", "vocab.json", "tokenizer_config.json"])
def test_any_file_of_a_tokenizer_will_do(model: Path, name: str) -> None:
    (model / "tokenizer.json").rename(model / name)

    check_model(str(model))


def test_a_folder_without_weights_is_refused(model: Path) -> None:
    for file in model.glob("*.safetensors"):
        file.unlink()

    with pytest.raises(ConfigError, match=f"model has no weights: none of .*{AGAIN}"):
        check_model(str(model))


@pytest.mark.parametrize("suffix", ["bin", "pt", "pth", "gguf"])
def test_weights_of_other_kinds_are_not_looked_into(model: Path, suffix: str) -> None:
    for file in model.glob("*.safetensors"):
        file.unlink()
    (model / f"weights.{suffix}").write_bytes(b"anything")

    check_model(str(model))


def test_a_missing_file_of_the_index_is_named(model: Path) -> None:
    (model / "model-2.safetensors").unlink()

    problem = r"model/model-2.safetensors is missing: 1 of the 2 files named in model\.safe.*"
    with pytest.raises(ConfigError, match=problem + AGAIN):
        check_model(str(model))


@pytest.mark.parametrize("index", [{}, {"weight_map": []}, {"weight_map": {"a": 1}}])
def test_an_index_that_maps_no_tensors_to_files_is_refused(model: Path, index: Any) -> None:
    write_json(model / "model.safetensors.index.json", index)

    with pytest.raises(ConfigError, match=f"index.json has no weight_map .*{AGAIN}"):
        check_model(str(model))


@pytest.mark.parametrize("change", [-1, 1])
def test_weights_that_are_not_whole_are_told_by_their_size(model: Path, change: int) -> None:
    file = model / "model-2.safetensors"
    whole = file.stat().st_size
    file.write_bytes((file.read_bytes() + b"\0")[: whole + change])

    sizes = f"it has {whole + change} bytes, and not those that its header lists"
    with pytest.raises(ConfigError, match=f"model-2.safetensors is not whole: {sizes}{AGAIN}"):
        check_model(str(model))


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\x02\0\0\0\0\0\0", id="half a length"),
        pytest.param(b"<html>Not found</html>" * 10, id="a web page"),
        pytest.param(struct.pack("<Q", 50) + b"{}", id="half a header"),
        pytest.param(struct.pack("<Q", 2) + b"{]", id="not JSON"),
        pytest.param(struct.pack("<Q", 2) + b"\xff\xff", id="not text"),
        pytest.param(header([]), id="a list"),
        pytest.param(header({"a": 1}), id="no tensor"),
        pytest.param(header({"a": {}}), id="no offsets"),
        pytest.param(header({"a": {"data_offsets": [0]}}), id="no end"),
        pytest.param(header({"a": {"data_offsets": [0, None]}}), id="no number"),
        pytest.param(header({"a": {**TENSOR, "shape": [3]}}) + bytes(4), id="another shape"),
        pytest.param(header({"a": {**TENSOR, "data_offsets": [4, 8]}}) + bytes(8), id="a gap"),
    ],
)
def test_what_is_not_a_safetensors_file_is_told_so(model: Path, content: bytes) -> None:
    (model / "model-1.safetensors").write_bytes(content)

    with pytest.raises(
        ConfigError, match=f"model-1.safetensors is not a safetensors file.*{AGAIN}"
    ):
        check_model(str(model))


def test_a_header_longer_than_any_is_not_read(model: Path) -> None:
    with (model / "model-1.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", 10**11))
        # A sparse file: it takes no space.
        file.truncate(2 * 10**11)

    with pytest.raises(ConfigError, match="200000000000 bytes .header too large"):
        check_model(str(model))


@pytest.mark.parametrize("name", ["model-1.safetensors", "config.json", "tokenizer.json"])
def test_a_pointer_of_git_lfs_is_told_so(model: Path, name: str) -> None:
    (model / name).write_bytes(POINTER)

    with pytest.raises(
        ConfigError, match=f"model/{name} is a git-lfs pointer.*run git lfs pull in {model}$"
    ):
        check_model(str(model))


@pytest.mark.parametrize(
    ("vocabulary", "added", "largest"),
    [
        pytest.param({"a": 0, "b": 10}, (), 10, id="vocabulary"),
        pytest.param([["a", -1.0]] * 13, (), 12, id="list"),
        pytest.param({"a": 0}, (3, 1200, 4), 1200, id="added token"),
    ],
)
def test_a_tokenizer_of_another_model_is_refused(
    model: Path, vocabulary: Any, added: tuple[int, ...], largest: int
) -> None:
    write_tokenizer(model, vocabulary, added)

    problem = f"the tokenizer has token {largest}, but the model knows 10 tokens: they do not"
    with pytest.raises(ConfigError, match=f"model/tokenizer.json .*{problem} .*{AGAIN}"):
        check_model(str(model))


@pytest.mark.parametrize(
    ("vocabulary", "added"), [({"a": 9}, ()), ([["a", -1.0]] * 10, (9,)), (None, ())]
)
def test_a_tokenizer_may_use_every_token_of_the_model(
    model: Path, vocabulary: Any, added: tuple[int, ...]
) -> None:
    write_tokenizer(model, vocabulary, added)

    check_model(str(model))


def test_the_size_of_a_nested_vocabulary_is_not_compared(model: Path) -> None:
    write_json(model / "config.json", {"text_config": {"vocab_size": 5}})

    check_model(str(model))


def test_outside_the_repository_s_root_its_models_are_not_to_be_restored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    with pytest.raises(ConfigError, match="Go to the root of the repository"):
        check_model("eval/models/gsm-tiny")
