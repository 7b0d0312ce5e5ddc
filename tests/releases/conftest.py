# SPDX-License-Identifier: Apache-2.0
"""Ranks of the installed vLLM, and of releases in the table: of every one, or one of each kind."""

import subprocess
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.releases.ranks import ROOT, Ranks
from vllm_eplb_plugin.releases import RELEASES, Release

OLDEST_MIDDLE_NEWEST = ("0.18.0", "0.26.0", "0.33.0")
OF_EACH_HANDSHAKE = ("0.18.0", "0.19.1", "0.22.1", "0.26.0", "0.33.0")
"""One for each way in which vLLM's async worker and the thread that runs the model take turns."""

RanksOf = Callable[[Release], Ranks]

_KEPT = 2
"""Releases that stay imported: tests of a release follow each other, and some need another."""


def releases(*versions: str) -> list[Release]:
    """The releases of these names, as in the table."""
    return [release for release in RELEASES if release.version in versions]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without --every-release, leave out most of what runs on several releases.

    What vLLM's own code decides runs on one release for each way in which it does. What is this
    plugin's own runs on one of three, each test on another one, and always on the same.
    """
    if config.getoption("--every-release"):
        return
    left_out = {item for item in items if not _is_needed(item)}
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


def _is_needed(item: pytest.Item) -> bool:
    if item.get_closest_marker("every_release") or not hasattr(item, "callspec"):
        return True
    given: dict[str, Any] = item.callspec.params
    if isinstance(release := given.get("release"), Release):
        return release.version in OF_EACH_HANDSHAKE
    if "some_release" in given:
        version = given["some_release"].version
        name = item.nodeid.replace(version, "")
        turn = zlib.crc32(name.encode()) % len(OLDEST_MIDDLE_NEWEST)
        return bool(version == OLDEST_MIDDLE_NEWEST[turn])
    return True


@pytest.fixture(scope="session")
def ranks_of(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RanksOf]:
    """Ranks of a release, imported once from its own sources for all tests that follow."""
    kept: dict[Release, Ranks] = {}
    capture = request.config.pluginmanager.get_plugin("capturemanager")
    folder = tmp_path_factory.mktemp("ranks")

    def stop(release: Release) -> None:
        ranks = kept.pop(release)
        ranks.stop()
        seconds = time.monotonic() - ranks.started
        with capture.global_and_fixture_disabled():
            print(f" vLLM {release.version}: {ranks.jobs} jobs in {seconds:.0f} s")

    def ranks_of(release: Release) -> Ranks:
        if release not in kept:
            while len(kept) >= _KEPT:
                stop(next(iter(kept)))
            kept[release] = Ranks(folder / f"{release.version}.log", fetch(release))
        return kept[release]

    yield ranks_of
    for release in list(kept):
        stop(release)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ranks]:
    """Ranks of the vLLM in this environment."""
    ranks = Ranks(tmp_path_factory.mktemp("ranks") / "installed.log")
    yield ranks
    ranks.stop()


@pytest.fixture(scope="session", params=RELEASES, ids=lambda release: release.version)
def release(request: pytest.FixtureRequest) -> Release:
    """Every supported release, or one of each kind."""
    found: Release = request.param
    return found


@pytest.fixture
def ranks(release: Release, ranks_of: RanksOf) -> Ranks:
    """Ranks of that release."""
    return ranks_of(release)


@pytest.fixture(
    scope="session",
    params=releases(*OLDEST_MIDDLE_NEWEST),
    ids=lambda release: release.version,
)
def some_release(request: pytest.FixtureRequest) -> Release:
    """The oldest supported release, one in the middle and the newest."""
    found: Release = request.param
    return found


@pytest.fixture
def some_ranks(some_release: Release, ranks_of: RanksOf) -> Ranks:
    """Ranks of that release."""
    return ranks_of(some_release)


def fetch(release: Release) -> Path:
    """Folder of the release's sources."""
    script = [str(ROOT / "scripts" / "fetch-release"), release.sources, release.version]
    done = subprocess.run(script, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.fail(done.stderr, pytrace=False)
    return Path(done.stdout.strip())
