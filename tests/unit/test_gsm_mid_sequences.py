# SPDX-License-Identifier: Apache-2.0
"""What gsm-mid learns from: which texts, which of them are held out, and how domains are mixed."""

import importlib
import re
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

pytest.importorskip("transformers", minversion="5")

REPOSITORY = Path(__file__).parents[2]
LENGTH = 160


@pytest.fixture(scope="module")
def sequences() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(REPOSITORY / "scripts"))
        yield importlib.import_module("gsm_mid_sequences")


@pytest.fixture(scope="module")
def texts(sequences: ModuleType) -> ModuleType:
    return importlib.import_module("gsm_mid_texts")


@pytest.fixture(scope="module")
def small(texts: ModuleType) -> dict[str, list[Any]]:
    """Texts in which each line tells which of them it is from."""
    return {
        "code": [
            texts.Text(f"{number}.py", f"def code_{number}():\n        return {number}\n" * 40)
            for number in range(40)
        ],
        "text": [
            texts.Text(f"{number}.md", f"This is what prose {number} has to say.\n" * 40)
            for number in range(40)
        ],
    }


@pytest.fixture(scope="module")
def source(sequences: ModuleType, small: dict[str, list[Any]]) -> Any:
    return source_of(sequences, small)


def source_of(sequences: ModuleType, texts: dict[str, list[Any]], **options: int) -> Any:
    chosen = sequences.Options(sequence_length=LENGTH, **options)
    return sequences.ThreeDomains(chosen, texts)


def numbers_of(source: Any, dataset: Any, indices: range, pattern: str) -> set[int]:
    """Which texts these sequences are from."""
    decoded = (source.tokenizer.decode(dataset[index].tokens.tolist()) for index in indices)
    return {int(number) for text in decoded for number in re.findall(pattern, text)}


PATTERNS = {"code": r"def code_(\d+)\(", "text": r"prose (\d+) has"}


def test_sequences_are_decided_by_seed_and_index(
    sequences: ModuleType, source: Any, small: dict[str, list[Any]]
) -> None:
    again = source_of(sequences, small)
    other = source_of(sequences, small, seed=1)
    for index in range(8):
        found = source.training[index]
        for one, repeated in zip(found, again.training[index], strict=True):
            assert torch.equal(one, repeated)
        assert not torch.equal(found.tokens, other.training[index].tokens)
        assert not torch.equal(found.tokens, source.training[index + 4].tokens)


def test_domains_take_turns(source: Any) -> None:
    kinds = []
    for index in range(8):
        text = source.tokenizer.decode(source.training[index].tokens.tolist())
        found = [kind for kind, mark in (("code", "def code_"), ("text", "prose")) if mark in text]
        kinds.append(found or ["problems"] * text.startswith("Question:"))
    assert kinds == [["problems"], ["code"], ["problems"], ["text"]] * 2


@pytest.mark.parametrize("domain", ["code", "text"])
def test_training_sees_all_texts_but_those_held_out(
    source: Any, small: dict[str, list[Any]], texts: ModuleType, domain: str
) -> None:
    held_out = {n for n, text in enumerate(small[domain]) if texts.is_held_out(text)}
    assert 0 < len(held_out) < 20
    training = source.training.domains[domain]
    assert numbers_of(source, source.held_out[domain], range(200), PATTERNS[domain]) == held_out
    assert numbers_of(source, training, range(400), PATTERNS[domain]) == {*range(40)} - held_out


def test_problems_are_those_of_gsm_tiny_and_held_out_as_there(
    sequences: ModuleType, source: Any
) -> None:
    for dataset, split in (
        (source.training.domains["problems"], "train"),
        (source.held_out["problems"], "held_out"),
    ):
        assert isinstance(dataset, sequences.Sequences)
        assert dataset.split == split


def test_the_tokenizer_learns_nothing_from_what_is_held_out(
    sequences: ModuleType, small: dict[str, list[Any]], texts: ModuleType
) -> None:
    every = [*small["code"], *small["text"]]
    seen = [one for one in every if not texts.is_held_out(one)]
    assert sequences.tokenizer_for(every).to_str() == sequences.tokenizer_for(seen).to_str()
    assert sequences.tokenizer_for(every).to_str() != sequences.tokenizer_for([]).to_str()


@pytest.mark.parametrize("domain", ["code", "text"])
def test_each_token_of_a_passage_is_learned_and_counted(source: Any, domain: str) -> None:
    tokens, labels, answers = source.held_out[domain][3]
    assert len(tokens) == LENGTH
    assert torch.equal(labels[:-1], tokens[1:])
    assert answers.tolist() == [*range(LENGTH)]


def test_indentation_is_one_piece_and_decoding_gives_the_text(source: Any) -> None:
    text = "def code_3():\n        return 17\n"
    encoded = source.tokenizer.encode(text)
    assert source.tokenizer.decode(encoded.ids) == text
    assert " " * 7 in encoded.tokens
    assert {"1", "7"} <= {*encoded.tokens}


def test_too_little_text_is_refused(
    sequences: ModuleType, small: dict[str, list[Any]], texts: ModuleType
) -> None:
    few = [one for one in small["code"] if not texts.is_held_out(one)]
    with pytest.raises(sequences.TrainingError, match="code has 0 tokens in split 'held_out'"):
        source_of(sequences, {**small, "code": few})


def test_a_content_counts_once_whatever_its_names(texts: ModuleType) -> None:
    found = texts.distinct([texts.Text("b", "same " * 99), texts.Text("a", "same " * 99)])
    assert [text.name for text in found] == ["a"]


def test_short_and_foreign_texts_are_left_out_and_single_characters_replaced(
    texts: ModuleType,
) -> None:
    given = [
        texts.Text("short", "x"),
        texts.Text("foreign", "\u00e9" * 300),
        texts.Text("plain", "\tone caf\u00e9\r\n" + "word " * 60),
    ]
    (found,) = texts.distinct(given)
    assert found.name == "plain"
    assert found.content.startswith("    one caf?\nword")


def test_a_paragraph_of_several_texts_stays_in_the_first(texts: ModuleType) -> None:
    given = [
        texts.Text("b", "Terms  and\nconditions.\n\nOf b."),
        texts.Text("a", "terms and conditions."),
    ]
    assert [tuple(one) for one in texts.without_repeats(given)] == [
        ("a", "terms and conditions."),
        ("b", "Of b."),
    ]


def test_a_record_tells_other_texts(texts: ModuleType, small: dict[str, list[Any]]) -> None:
    first, *others = small["code"]
    record = texts.record(small["code"])
    assert record["texts"] == 40
    assert record["sha256"] == texts.record(small["code"])["sha256"]
    changed = [first._replace(content=first.content.replace("return", "yield")), *others]
    assert record["sha256"] != texts.record(changed)["sha256"]
    assert record["sha256"] != texts.record([first._replace(name="other"), *others])["sha256"]


def test_code_is_the_library_of_python_without_tests_and_packages(
    texts: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("json/tool.py", "json/tests/of_tool.py", "site-packages/numpy.py", "notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"name = {name!r}\n" * 20)
    monkeypatch.setattr(texts.sysconfig, "get_path", {"stdlib": str(tmp_path)}.__getitem__)
    assert [text.name for text in texts.code()] == ["python/json/tool.py"]


def test_prose_is_descriptions_licences_topics_and_docstrings(
    texts: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "one-1.0.dist-info"
    package = tmp_path / "one"
    for made in (folder / "licenses", package):
        made.mkdir(parents=True)
    (folder / "METADATA").write_text("Name: one\nVersion: 1.0\n\n" + "A description. " * 20)
    (folder / "licenses" / "LICENSE").write_text("You may. " * 40)
    (folder / "top_level.txt").write_text("Not prose. " * 40)
    (package / "__init__.py").write_text(f'def one():\n    """{"It is one. " * 30}"""\n')
    names = ("one/__init__.py", *(f"{folder.name}/{one}" for one in ("licenses/LICENSE", "RECORD")))
    (folder / "RECORD").write_text(
        "".join(f"{name},,\n" for name in (*names, f"{folder.name}/top_level.txt"))
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(
        texts.metadata,
        "distributions",
        lambda: metadata.Distribution.discover(path=[str(tmp_path)]),
    )
    monkeypatch.setattr(texts, "DOCUMENTED", ("one",))
    monkeypatch.setattr(texts, "topics", {"assert": "The statement. " * 30})
    assert [text.name for text in texts.prose()] == [
        "one/METADATA",
        "one/__init__.py",
        "one/licenses/LICENSE",
        "topics/assert",
    ]
