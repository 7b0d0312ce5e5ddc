# SPDX-License-Identifier: Apache-2.0
"""When a server ends, so do the threads of EPLB, before what they use."""

from collections.abc import Iterator

import pytest

from tests.releases.conftest import ranks_of
from tests.releases.ranks import Ranks
from vllm_eplb_plugin.releases import RELEASES


@pytest.fixture(scope="module", params=["0.18.0", "0.19.1", "0.22.1", "0.33.0"])
def one(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Ranks]:
    """Ranks of a release of each way in which a worker waits."""
    release = next(release for release in RELEASES if release.version == request.param)
    yield from ranks_of(release, tmp_path_factory)


@pytest.mark.parametrize("amid", [False, True])
def test_the_worker_ends_where_it_waits(amid: bool, one: Ranks) -> None:
    reports = one(scenario="ending", use_async=True, arguments={"amid": amid})
    for report in reports:
        assert report["was_alive"] and not report["is_alive"]
        assert report["began"] == ["eplb-heartbeat", "eplb-watch"]
        assert report["left"] == []
        assert report["off"] is None
