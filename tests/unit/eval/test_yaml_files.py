# SPDX-License-Identifier: Apache-2.0
"""A file means what YAML 1.2 says, or it is refused with the line and the reason."""

from pathlib import Path
from typing import Any

import pytest

from eval.config.yaml_files import parse_yaml, read_yaml, refuse_keys_given_twice, write_yaml
from eval.errors import ConfigError


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("1e-2", 0.01),
        ("12e03", 12000.0),
        (".5", 0.5),
        ("010", 10),
        ("0o10", 8),
        ("0x10", 16),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("0b1", "0b1"),
        ("2026-01-01", "2026-01-01"),
        ("yes", "yes"),
        ("off", "off"),
        ("=", "="),
        ("true", True),
        ("~", None),
        ("", None),
    ],
)
def test_plain_words_are_what_the_core_schema_says(word: str, value: object) -> None:
    read = parse_yaml(f"a: {word}", "file")["a"]
    assert (read, type(read)) == (value, type(value))


def test_a_document_that_says_1_1_is_read_the_same() -> None:
    assert parse_yaml("%YAML 1.1\n---\n{a: 010, b: yes}", "file") == {"a": 10, "b": "yes"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", "file, line 3, is not YAML: the key 'a' is given twice"),
        ("a:\n  b: secret\n  'b': 2", "line 3, is not YAML: the key 'b' is given twice"),
        ("{a: .inf}", "file: a must be a finite number, not inf"),
        ("a: [1, {b: .nan}]", "file: a.1.b must be a finite number, not nan"),
        ("a: 1e999", "a must be a finite number"),
        ("1: 2", "the key 1 is not text"),
        ("~: 2", "the key None is not text"),
        ("a: {[1]: 2}", "file: a: the key (1,) is not text"),
        ("? {a: 1}\n: 2", "unhashable key"),
        ("a: &x {b: 1}\nc: {<<: *x}", "file: c: YAML 1.2 has no merge key <<"),
        ("--- 1\n--- 2", "another document"),
        ("a: !!python/object/apply:os.system [id]", "python/object/apply:os.system"),
        ("a: !mine b", "constructor for the tag '!mine'"),
        ("a: !!set {b}", "a has a tag that makes it a set"),
        ("a: !!binary aGk=", "a has a tag that makes it a bytes"),
        ("a: !!timestamp 2026-01-01", "a has a tag that makes it a date"),
        ("a: !!int many", "has a tag that its value does not fit"),
        ("a:\n\tb: 1", "line 2, is not YAML: found character '\\t'"),
        ('a: "\\0"', "a has a NUL character in it"),
        ('a: ["\\ud800"]', "a.0 has half of a surrogate pair in it"),
        ('"\\0": 1', "has a NUL character in it"),
        ("a: &x [*x]", "is nested too deeply, or holds itself"),
        ("[" * 5000, "is nested too deeply, or holds itself"),
        ("a: \x01", "is not YAML"),
        ("a: 'b", "line 1, is not YAML"),
    ],
)
def test_what_could_surprise_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_yaml(text, "file")

    assert message in str(error.value)
    assert "secret" not in str(error.value)


def test_nothing_is_shared_by_an_alias() -> None:
    value = parse_yaml("a: &x {b: 1}\nc: *x", "file")
    value["a"]["b"] = 2

    assert value["c"] == {"b": 1}


def test_a_mark_of_the_encoding_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    file = tmp_path / "file.yaml"
    file.write_bytes("\ufeffa: 1\n".encode())

    assert read_yaml(file) == {"a": 1}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: \u00e4".encode("latin-1"), "is not UTF-8 .byte 3"),
        ("a: 1".encode("utf-16"), "is not UTF-8"),
    ],
)
def test_another_encoding_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "file.yaml"
    file.write_bytes(content)

    with pytest.raises(ConfigError, match=message):
        read_yaml(file)


def test_a_path_that_is_no_file_is_named(tmp_path: Path) -> None:
    circle = tmp_path / "circle"
    circle.symlink_to(circle)

    for path, message in [
        (tmp_path, "Is a directory"),
        (circle, "Too many levels of symbolic links"),
        (tmp_path / "nowhere", "No such file"),
        (tmp_path / ("x" * 300), "File name too long"),
        (tmp_path / "a\0b", "null byte"),
    ]:
        with pytest.raises(ConfigError, match=message):
            read_yaml(path)


def test_what_is_written_is_read_back() -> None:
    value: dict[str, Any] = {
        "words": ["off", "yes", "010", "1e-2", "1_000", "2026-01-01", "", "~", "a: b", "x\ny"],
        "b": {"a": None, "c": [True, 1.5, {}]},
        "a": [],
    }

    assert parse_yaml(write_yaml(value), "file") == value
    assert list(parse_yaml(write_yaml(value), "file")) == list(value)


def test_json_in_a_text_has_no_key_twice() -> None:
    refuse_keys_given_twice('{"a": {"b": 1}, "c": {"b": 1}}', "here")
    for other in ("{% for message in messages %}", "{{ bos }}", "bfloat16", "7", "[1"):
        refuse_keys_given_twice(other, "here")
    with pytest.raises(ConfigError, match="here: the key 'b' stands twice"):
        refuse_keys_given_twice('[{"a": {"b": 1, "b": 2}}]', "here")
    with pytest.raises(ConfigError, match="here is not JSON"):
        refuse_keys_given_twice('{"a": 1', "here")
