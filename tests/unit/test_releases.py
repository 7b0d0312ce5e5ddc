# SPDX-License-Identifier: Apache-2.0
"""Which vLLM releases are taken."""

from dataclasses import fields
from pathlib import Path

import pytest

from vllm_eplb_plugin.overrides.catalogue import Overrides
from vllm_eplb_plugin.overrides.override import Override
from vllm_eplb_plugin.releases import (
    RELEASES,
    UnsupportedReleaseError,
    known_release,
    neighbours,
    supported_releases,
)


@pytest.mark.parametrize("version", ["0.32.0", "0.32.0+cpu", "0.32.0+cu130", "0.32", "v0.32.0"])
def test_a_release_is_known_in_every_build(version: str) -> None:
    assert known_release(version) == "0.32.0"


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("0.26.0.post1", ["0.26.0", "0.27.0"]),
        ("0.26.1rc1.dev77", ["0.26.0", "0.27.0"]),
        ("0.26.1rc1.dev77+gabcdef.precompiled", ["0.26.0", "0.27.0"]),
        ("0.27.0rc1", ["0.26.0", "0.27.0"]),
        ("0.31.9", ["0.31.0", "0.32.0"]),
        ("0.32.0a0+nv25.11", ["0.31.0", "0.32.0"]),
        ("0.33.0rc2", ["0.32.0", "0.33.0"]),
        ("0.34.0", ["0.33.0"]),
        ("0.17.1", ["0.18.0"]),
    ],
)
def test_what_is_between_releases_has_neighbours(version: str, expected: list[str]) -> None:
    assert known_release(version) is None
    assert neighbours(version) == expected


@pytest.mark.parametrize("version", ["0.1.dev20175+gabc", "0.0.0", "dev", "nightly-abc", ""])
def test_without_a_version_the_newest_comes_first(version: str) -> None:
    assert known_release(version) is None
    assert neighbours(version) == supported_releases()[::-1]


def test_a_refusal_names_the_release_the_reasons_and_the_next_steps() -> None:
    refusal = str(UnsupportedReleaseError("0.26.1", {"0.26.0": ["a", "b", "c"], "0.27.0": ["d"]}))
    assert "vLLM 0.26.1 is not supported" in refusal
    assert "as 0.26.0: a; b; and 1 more" in refusal
    assert "as 0.27.0: d\n" in refusal
    for step in ("0.18.0", "0.33.0", "--enable-eplb", "EPLB_PLUGIN='{\"enabled\": false}'"):
        assert step in refusal


def test_releases_are_listed_oldest_first_and_once() -> None:
    releases = [tuple(map(int, release.split("."))) for release in supported_releases()]
    assert releases == sorted(set(releases))


def override(releases: str) -> Override:
    return Override(
        "package.module:function", "()", lambda f: f, "a failure", "some day", "replace", releases
    )


def test_a_release_gets_the_overrides_that_name_it_and_those_that_name_none() -> None:
    every, old, new = override(""), override("<0.19"), override(">=0.19,<0.32")
    nothing: dict[str, tuple[Override, ...]] = {field.name: () for field in fields(Overrides)}

    def only(entry: tuple[Override, ...], *others: Override) -> Overrides:
        return Overrides(**{**nothing, "entry": entry, "state": others})

    overrides = only((every, old), old, new)
    assert overrides.for_release("0.18.1") == only((every, old), old)
    assert overrides.for_release("0.31.0") == only((every,), new)
    assert overrides.for_release("0.34.0rc1") == only((every,))


def test_the_documentation_has_the_same_table() -> None:
    text = (Path(__file__).parents[2] / "docs/releases.md").read_text()
    lines = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("| 0.")]
    for column, device in ((2, "cpu"), (3, "gpu"), (4, "gpus")):
        table = {cells[0].strip(): cells[column].strip() for cells in lines}
        assert table == {
            release.version: "yes" if device in release.served_on else "" for release in RELEASES
        }
