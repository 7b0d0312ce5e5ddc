# SPDX-License-Identifier: Apache-2.0
"""Which vLLM releases are taken."""

import pytest

from vllm_eplb_plugin.releases import UnsupportedReleaseError, support_for, supported_releases


def test_a_tested_release_is_found_whatever_its_build() -> None:
    for version in ("0.32.0", "0.32.0+cpu", "0.32.0+cu130"):
        support = support_for(version)
        assert support.tested
        assert support.release == "0.32.0"


@pytest.mark.parametrize("version", ["0.33.0", "0.32.1", "1.0.0", "0.33.0rc1"])
def test_a_newer_release_gets_the_newest_family_and_is_called_untested(version: str) -> None:
    support = support_for(version)
    assert not support.tested
    assert supported_releases()[-1] in support.family.releases


@pytest.mark.parametrize("version", ["0.17.1", "0.31.9", "0.32.0rc2", "dev", ""])
def test_any_other_release_is_refused_by_name_with_the_next_step(version: str) -> None:
    with pytest.raises(UnsupportedReleaseError, match="0.32.0.*EPLB_PLUGIN") as refusal:
        support_for(version)
    assert f"vLLM {version} is not supported" in str(refusal.value)


def test_releases_are_listed_oldest_first() -> None:
    releases = [tuple(map(int, release.split("."))) for release in supported_releases()]
    assert releases == sorted(releases)
