"""Who stands still, by what ranks tell: the one that others wait for."""

import dataclasses
from typing import Any

import pytest

from vllm_eplb_plugin.observe.pulse import Heard, Pulse
from vllm_eplb_plugin.observe.status import ThreadStatus
from vllm_eplb_plugin.observe.watchdog import describe, find_stalls, key_of

NOW, LIMIT = 1000.0, 30.0
IDLE = ThreadStatus("idle", None, 500.0)


def heard(
    model: ThreadStatus = IDLE, worker: ThreadStatus | None = None, ago: float = 1.0
) -> Heard:
    return Heard(Pulse(7, 100, model, worker, "on"), NOW - ago)


def named(*ranks: Heard | None) -> list[tuple[Any, ...]]:
    stalls = find_stalls(ranks, NOW, LIMIT)
    return [(stall.rank, stall.thread, stall.phase, stall.layer) for stall in stalls]


def since(phase: Any, seconds: float, layer: int | None = None) -> ThreadStatus:
    return ThreadStatus(phase, layer, seconds)


def test_an_idle_server_does_not_stand_still() -> None:
    waiting = since("waiting for the model", 4000, 3)
    assert named(heard(), heard()) == []
    assert named(heard(worker=waiting), heard(worker=waiting)) == []


def test_a_rank_that_was_not_heard_yet_is_not_named() -> None:
    assert named(heard(), None) == []


@pytest.mark.parametrize("phase", ["forward", "waiting for ranks", "loads", "agreeing"])
def test_a_rank_that_tells_nothing_is_named_and_not_those_that_wait_for_it(phase: Any) -> None:
    waiting = heard(since(phase, 40))
    assert named(waiting, heard(since("forward", 0.1), ago=31)) == [(1, "process", "forward", None)]
    assert named(waiting, heard(since("forward", 0.1), ago=29)) == []


def test_of_a_rank_that_tells_nothing_the_worker_is_shown_where_it_was_at_work() -> None:
    quiet = heard(worker=since("transfer", 0.1, 5), ago=31)
    assert named(heard(), quiet) == [(1, "process", "transfer", 5)]


@pytest.mark.parametrize("phase", ["planning", "transfer", "commit"])
def test_in_sync_mode_who_works_is_named_and_not_who_waits(phase: Any) -> None:
    ranks = [heard(since("agreeing", 31)), heard(since(phase, 31, 2)), heard(since("forward", 31))]
    assert named(*ranks) == [(1, "model", phase, 2)]
    assert named(ranks[0], heard(since(phase, 29, 2)), ranks[2]) == []


def test_a_rank_that_makes_no_step_is_named_where_others_wait_in_theirs() -> None:
    assert named(heard(since("forward", 31)), heard()) == [(1, "model", "idle", None)]


def test_where_all_wait_all_are_named() -> None:
    ranks = [heard(since("forward", 31)), heard(since("forward", 32))]
    assert [one[0] for one in named(*ranks)] == [0, 1]
    waiting = heard(worker=since("waiting for ranks", 31, 4))
    assert named(waiting, waiting) == [(rank, "worker", "waiting for ranks", 4) for rank in (0, 1)]


@pytest.mark.parametrize("phase", ["planning", "transfer"])
def test_in_async_mode_the_worker_is_named_that_others_wait_for(phase: Any) -> None:
    waits = heard(worker=since("agreeing", 31))
    has_it = heard(worker=since("waiting for the model", 40, 3))
    assert named(waits, heard(worker=since(phase, 31, 3)), has_it) == [(1, "worker", phase, 3)]
    assert named(waits, heard(worker=since(phase, 28, 3)), has_it) == []
    [only] = named(waits, heard(), has_it)
    assert only == (0, "worker", "agreeing", None)


def test_a_worker_that_has_ended_is_named_at_once() -> None:
    ended = heard(worker=since("ended", 0.2, 3))
    assert named(heard(worker=since("transfer", 1, 3)), ended) == [(1, "worker", "ended", 3)]
    off = dataclasses.replace(ended.pulse, state="off")
    assert named(heard(), Heard(off, NOW)) == []


def test_a_phase_goes_on_while_its_rank_is_heard_of() -> None:
    # What was told 2 s ago has lasted 2 s longer since.
    [stall] = find_stalls([heard(since("planning", 29), ago=2)], NOW, LIMIT)
    assert stall.seconds == 31


def test_a_stall_is_the_same_while_it_lasts_and_another_in_another_layer() -> None:
    first, later, other = (
        find_stalls([heard(worker=since("transfer", seconds, layer))], NOW, LIMIT)[0]
        for seconds, layer in ((31, 2), (45, 2), (31, 3))
    )
    assert key_of(first) == key_of(later) != key_of(other)


@pytest.mark.parametrize(
    ("ranks", "text"),
    [
        (
            [heard(), heard(since("forward", 0.1), ago=31)],
            "EP rank 1 has told nothing for 31 s (its last phase: forward)",
        ),
        (
            [heard(worker=since("transfer", 30, 5))],
            "EP rank 0, the async worker, phase transfer of layer 5, for 31 s",
        ),
        (
            [heard(since("planning", 30))],
            "EP rank 0, the thread that runs the model, phase planning",
        ),
        ([heard(worker=since("ended", 1, 2))], "EP rank 0, the async worker, has ended"),
    ],
)
def test_it_is_told_by_rank_thread_phase_and_layer(ranks: list[Heard], text: str) -> None:
    [stall] = find_stalls(ranks, NOW, LIMIT)
    assert text in describe(stall)


def test_a_pulse_arrives_as_it_was_sent() -> None:
    pulse = Pulse(3, 9, IDLE, since("transfer", 2.5, 4), "paused", "because")
    assert Pulse.from_json(pulse.to_json()) == pulse
    assert Pulse.from_json(Pulse(1, 0, IDLE, None, "on").to_json().encode()).worker is None
