# SPDX-License-Identifier: Apache-2.0
"""When a server ends, so do the threads of EPLB, before what they use."""

import pytest

from tests.releases.conftest import RanksOf, releases
from tests.releases.ranks import Ranks


@pytest.fixture(params=["0.18.0", "0.19.1", "0.22.1", "0.33.0"])
def one(request: pytest.FixtureRequest, ranks_of: RanksOf) -> Ranks:
    """Ranks of a release of each way in which a worker waits."""
    [release] = releases(request.param)
    return ranks_of(release)


@pytest.mark.parametrize("amid", [False, True])
def test_the_worker_ends_where_it_waits(amid: bool, one: Ranks) -> None:
    reports = one(scenario="ending", use_async=True, arguments={"amid": amid})
    for report in reports:
        assert report["was_alive"] and not report["is_alive"]
        assert report["began"] == ["eplb-heartbeat", "eplb-watch"]
        assert report["left"] == []
        assert report["off"] is None
