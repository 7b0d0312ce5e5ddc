# SPDX-License-Identifier: Apache-2.0
"""Which vLLM releases are taken."""

from pathlib import Path

import pytest

from vllm_eplb_plugin.overrides.catalogue import Overrides
from vllm_eplb_plugin.overrides.override import Override
from vllm_eplb_plugin.releases import (
    RELEASES,
    UnsupportedReleaseError,
    support_for,
    supported_releases,
)


def test_a_tested_release_is_found_whatever_its_build() -> None:
    for version in ("0.32.0", "0.32.0+cpu", "0.32.0+cu130"):
        support = support_for(version)
        assert support.tested
        assert support.release == "0.32.0"


@pytest.mark.parametrize("version", ["0.33.1", "0.34.0", "1.0.0", "0.34.0rc1"])
def test_a_newer_release_is_taken_and_called_untested(version: str) -> None:
    support = support_for(version)
    assert not support.tested
    assert support.release == version


@pytest.mark.parametrize("version", ["0.17.1", "0.31.9", "0.33.0rc2", "dev", ""])
def test_any_other_release_is_refused_by_name_with_the_next_step(version: str) -> None:
    with pytest.raises(UnsupportedReleaseError, match="0.18.0.*0.33.0.*EPLB_PLUGIN") as refusal:
        support_for(version)
    assert f"vLLM {version} is not supported" in str(refusal.value)


def test_releases_are_listed_oldest_first_and_once() -> None:
    releases = [tuple(map(int, release.split("."))) for release in supported_releases()]
    assert releases == sorted(set(releases))


def override(releases: str) -> Override:
    return Override(
        "package.module:function", "()", lambda f: f, "a failure", "some day", "replace", releases
    )


def test_a_release_gets_the_overrides_that_name_it_and_those_that_name_none() -> None:
    every, old, new = override(""), override("<0.19"), override(">=0.19,<0.32")
    overrides = Overrides((every,), (old, new), (), (new,), (), ())
    assert overrides.for_release("0.18.1") == Overrides((every,), (old,), (), (), (), ())
    assert overrides.for_release("0.31.0") == Overrides((every,), (new,), (), (new,), (), ())
    assert overrides.for_release("0.34.0rc1") == Overrides((every,), (), (), (), (), ())


def test_readme_has_the_same_table() -> None:
    text = (Path(__file__).parents[2] / "README.md").read_text()
    lines = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("| 0.")]
    for column, device in ((2, "cpu"), (3, "gpu"), (4, "gpus")):
        table = {cells[0].strip(): cells[column].strip() for cells in lines}
        assert table == {
            release.version: "yes" if device in release.served_on else "" for release in RELEASES
        }
