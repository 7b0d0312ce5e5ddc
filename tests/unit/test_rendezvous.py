# SPDX-License-Identifier: Apache-2.0
"""All ranks come, or none goes on."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch.distributed as dist

from vllm_eplb_plugin.engine import rendezvous
from vllm_eplb_plugin.engine.rendezvous import Meeting, RanksMissingError, meet


def hold(store: dist.Store, rank: int, size: int, limit_seconds: float) -> list[object]:
    try:
        meeting = Meeting(store, "place", rank, range(size), "start")
        came = meeting.hold({"of": rank}, limit_seconds)
    except RanksMissingError as error:
        return [str(error)]
    return [coming.message for coming in came]


@pytest.fixture(params=["memory", "file", "server"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> dist.Store:
    """Each kind of store by which torch.distributed is started, below its usual prefix."""
    if request.param == "file":
        kept: dist.Store = dist.FileStore(str(tmp_path / "store"), 3)
    elif request.param == "server":
        kept = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    else:
        kept = dist.HashStore()
    return dist.PrefixStore("default_pg", kept)


def test_every_rank_hears_what_every_rank_says(store: dist.Store) -> None:
    with ThreadPoolExecutor(3) as ranks:
        heard = list(ranks.map(lambda rank: hold(store, rank, 3, 30), range(3)))
    assert heard == [[{"of": 0}, {"of": 1}, {"of": 2}]] * 3


def test_a_rank_that_does_not_come_is_named_by_all_the_others(store: dist.Store) -> None:
    with ThreadPoolExecutor(3) as ranks:
        heard = list(ranks.map(lambda rank: hold(store, rank, 4, 1.0), (0, 1, 3)))
    assert heard[0] == heard[1] == heard[2]
    assert "has waited 1 s for EP rank 2. A rank that does not come" in str(heard[0][0])


def test_one_that_comes_after_the_others_gave_up_does_not_go_on_alone() -> None:
    store = dist.HashStore()
    given_up = hold(store, 0, 2, 0)
    assert "has waited 0 s for EP rank 1." in str(given_up[0])
    # It sees every rank's message, and yet must not enter a collective.
    assert hold(store, 1, 2, 30) == given_up


def test_a_missing_rank_is_named_by_its_number_in_the_whole_server_too() -> None:
    meeting = Meeting(dist.HashStore(), "place", 0, [4, 5, 6, 9], "start")
    with pytest.raises(
        RanksMissingError, match=r"^start: EP rank 0 \(global 4\) on .* has waited "
    ):
        meeting.hold(None, 0)
    with pytest.raises(RanksMissingError, match=r"for EP ranks 1-3 \(global 5-6, 9\)\. A rank"):
        meeting.hold(None, 0)


def test_a_store_whose_process_has_ended_is_told_as_such() -> None:
    class Lost:
        def set(self, *_: object) -> None:
            raise RuntimeError("Broken pipe")

    meeting = Meeting(Lost(), "place", 1, range(2), "start")  # type: ignore[arg-type]
    with pytest.raises(RanksMissingError, match=r"process that keeps the store has ended \(Broken"):
        meeting.hold(None, 1)


def test_nobody_leaves_before_all_that_came_have_read() -> None:
    """With an error the process that keeps the store may end at once."""

    class SlowToRead:
        def __init__(self, store: dist.Store) -> None:
            self.store = store

        def __getattr__(self, name: str) -> object:
            return getattr(self.store, name)

        def multi_get(self, keys: list[str]) -> list[bytes]:
            assert not others_left.wait(0.2)
            return list(map(self.store.get, keys))

    store, others_left = dist.HashStore(), threading.Event()

    def one(rank: int) -> list[object]:
        if rank == 1:
            return hold(SlowToRead(store), 1, 2, 30)  # type: ignore[arg-type]
        heard = hold(store, 0, 2, 30)
        others_left.set()
        return heard

    with ThreadPoolExecutor(2) as ranks:
        assert list(ranks.map(one, range(2))) == [[{"of": 0}, {"of": 1}]] * 2


def test_a_decision_that_races_is_the_same_for_all() -> None:
    for _ in range(50):
        store, start = dist.HashStore(), threading.Barrier(2)

        def one(rank: int, store: dist.Store = store, start: threading.Barrier = start) -> object:
            start.wait()
            return "held" if len(hold(store, rank, 2, 0)) == 2 else "given up"

        with ThreadPoolExecutor(2) as ranks:
            assert len(set(ranks.map(one, range(2)))) == 1


def test_meetings_of_one_purpose_follow_one_another(monkeypatch: pytest.MonkeyPatch) -> None:
    store = dist.HashStore()
    monkeypatch.setattr(rendezvous, "store_of", lambda _: store)
    monkeypatch.setattr(rendezvous, "_meetings", rendezvous.Counter())
    alone = SimpleNamespace(unique_name="ep:0", ranks=[4], rank_in_group=0)
    said = [meet(alone, "reload", number, 1)[0].message for number in range(3)]
    assert said == [0, 1, 2]


def test_groups_over_the_same_ranks_meet_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    store = dist.HashStore()
    monkeypatch.setattr(rendezvous, "store_of", lambda _: store)
    monkeypatch.setattr(rendezvous, "_meetings", rendezvous.Counter())
    groups = ("ep:0", [4]), ("eplb:0", [4]), ("ep:0", [0])
    for name, ranks in groups:
        alone = SimpleNamespace(unique_name=name, ranks=ranks, rank_in_group=0)
        rendezvous._meetings.clear()
        assert meet(alone, "start", name, 1)[0].message == name
    assert store.num_keys() == 4 * len(groups)
