# SPDX-License-Identifier: Apache-2.0
"""Ranks of the installed vLLM, and of every release in the table, one after another."""

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.releases.ranks import ROOT, Ranks
from vllm_eplb_plugin.releases import RELEASES, Release


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ranks]:
    """Ranks of the vLLM in this environment."""
    ranks = Ranks(tmp_path_factory.mktemp("ranks") / "installed.log")
    yield ranks
    ranks.stop()


@pytest.fixture(scope="module", params=RELEASES, ids=lambda release: release.version)
def release(request: pytest.FixtureRequest) -> Release:
    """Every supported release."""
    found: Release = request.param
    return found


@pytest.fixture(scope="module")
def ranks(
    release: Release, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Ranks]:
    """Ranks of that release, from its own sources."""
    started = time.monotonic()
    ranks = Ranks(tmp_path_factory.mktemp("ranks") / f"{release.version}.log", fetch(release))
    yield ranks
    ranks.stop()
    seconds = time.monotonic() - started
    with request.config.pluginmanager.get_plugin("capturemanager").global_and_fixture_disabled():
        print(f" vLLM {release.version}: {ranks.jobs} jobs in {seconds:.0f} s")


_MIDDLE = next(release for release in RELEASES if release.version == "0.26.0")
OLDEST_MIDDLE_NEWEST = (RELEASES[0], _MIDDLE, RELEASES[-1])


@pytest.fixture(scope="session", params=OLDEST_MIDDLE_NEWEST, ids=lambda release: release.version)
def some_release(request: pytest.FixtureRequest) -> Release:
    """The oldest supported release, one in the middle and the newest."""
    found: Release = request.param
    return found


@pytest.fixture(scope="session")
def some_ranks(some_release: Release, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ranks]:
    """Ranks of that release."""
    yield from ranks_of(some_release, tmp_path_factory)


def ranks_of(release: Release, folders: pytest.TempPathFactory) -> Iterator[Ranks]:
    """Ranks of a release, for a fixture, which ends them."""
    ranks = Ranks(folders.mktemp("ranks") / f"{release.version}.log", fetch(release))
    yield ranks
    ranks.stop()


def fetch(release: Release) -> Path:
    """Folder of the release's sources."""
    script = [str(ROOT / "scripts" / "fetch-release"), release.sources, release.version]
    done = subprocess.run(script, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.fail(done.stderr, pytrace=False)
    return Path(done.stdout.strip())
