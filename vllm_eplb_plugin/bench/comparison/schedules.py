# SPDX-License-Identifier: Apache-2.0
"""Policies and schedules on a row of short windows, in numbers."""

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from vllm_eplb_plugin.bench.comparison.contestants import Contestant
from vllm_eplb_plugin.bench.comparison.loads import Loads, recorded, shapes_of
from vllm_eplb_plugin.bench.comparison.served import Schedule, Served, serve
from vllm_eplb_plugin.bench.comparison.windows import Cluster
from vllm_eplb_plugin.bench.loads.recorded import domains_in_turn
from vllm_eplb_plugin.bench.loads.synthetic import DRIFTS, Drift, drifting_parts
from vllm_eplb_plugin.bench.options import PARTS
from vllm_eplb_plugin.bench.result import BenchError
from vllm_eplb_plugin.bench.shapes import SHAPES, Shape
from vllm_eplb_plugin.planning.problem import Floats, Limits

DOMAINS = "domains"
"""The load of a recording's domains, one after another."""


@dataclass(frozen=True)
class Sequence:
    """A sequence is the short windows of one load of one shape."""

    shape: Shape
    load: str
    windows: Callable[[int], Floats]
    """By seed, ``[windows, layers, logical]``; the first `PARTS` are what the start is planned
    from, and not served."""
    changes: list[int]
    """Served windows with which another domain begins."""


@dataclass(frozen=True)
class ScheduleRow:
    """A row is one policy by one schedule on one sequence; what is moved is of `PARTS` windows."""

    shape: str
    ranks: int
    load: str
    policy: str
    every: int
    recorded: int
    below: float | None
    changed: float | None
    served: float
    """Balancedness, averaged over all windows."""
    received: float
    """Experts that ranks get from others."""
    plans: float
    triggered: float
    """Those that were not an interval's."""
    changes: int
    """Of domain, of all seeds."""
    never: int
    """Those after which no window was balanced."""
    until_balanced: float | None
    """Windows after a change until one is, of the other changes; None: there are none."""
    slowest: int | None
    """Most of them."""


def sequences(
    shapes: list[Shape] | None, names: list[str], loads: Loads, domain_windows: int
) -> Iterator[Sequence]:
    """Put each shape and each load together.

    Args:
        shapes: As in `loads.tasks`.
        names: Of `DRIFTS`, or `DOMAINS`.
        loads: Of these, `plans` are the whole windows that are served.
        domain_windows: Short windows of each domain.

    Raises:
        BenchError: No such load, or no folder or no recording for it.
    """
    for name in names:
        if name in DRIFTS:
            for shape in shapes or SHAPES:
                yield Sequence(shape, name, _drifting(shape, name, loads), [])
        elif name == DOMAINS:
            for recording in recorded(loads.folder):
                for shape in shapes_of(recording, shapes):
                    tokens = loads.tokens // PARTS

                    def windows(seed: int, recording=recording, tokens=tokens) -> Floats:  # type: ignore[no-untyped-def]  # noqa: ANN001
                        return domains_in_turn(recording, domain_windows, PARTS, tokens, seed)

                    number = len(recording.domains)
                    changes = [domain_windows * place for place in range(1, number)]
                    yield Sequence(shape, name, windows, changes)
        else:
            raise BenchError(
                f"there is no load {name!r}: there are {', '.join((*DRIFTS, DOMAINS))}"
            )


def _drifting(shape: Shape, name: str, loads: Loads) -> Callable[[int], Floats]:
    drift = Drift(DRIFTS[name], loads.sigma, loads.tokens)

    def windows(seed: int) -> Floats:
        number = loads.plans + 1
        return drifting_parts(drift, shape.layers, shape.logical, number, PARTS, seed)

    return windows


def compare_schedules(
    all_sequences: list[Sequence],
    contestants: list[Contestant],
    schedules: list[Schedule],
    seeds: int,
    limits: Limits,
) -> Iterator[ScheduleRow]:
    """Serve all sequences by all policies, with all schedules."""
    for sequence in all_sequences:
        cluster = Cluster(sequence.shape, 1, limits, sequence.load)
        for contestant in contestants:
            for schedule in schedules:
                yield _row(sequence, cluster, contestant, schedule, seeds)


def _row(
    sequence: Sequence, cluster: Cluster, contestant: Contestant, schedule: Schedule, seeds: int
) -> ScheduleRow:
    served: list[Served] = []
    for seed in range(seeds):
        windows = sequence.windows(seed)
        first = windows[:PARTS].sum(axis=0)
        served.append(serve(cluster, contestant, schedule, windows[PARTS:], first))
    waits = [wait for one in served for wait in one.until_balanced(sequence.changes)]
    reached = [wait for wait in waits if wait is not None]
    each = PARTS / len(served[0].balancedness)
    return ScheduleRow(
        shape=str(sequence.shape),
        ranks=sequence.shape.ranks,
        load=sequence.load,
        policy=contestant.name,
        every=schedule.every,
        recorded=schedule.recorded,
        below=schedule.rule.below,
        changed=schedule.rule.changed,
        served=statistics.fmean(one.mean for one in served),
        received=statistics.fmean(int(one.received.sum()) for one in served) * each,
        plans=statistics.fmean(int((one.planned > 0).sum()) for one in served) * each,
        triggered=statistics.fmean(int((one.planned == 2).sum()) for one in served) * each,
        changes=len(waits),
        never=len(waits) - len(reached),
        until_balanced=statistics.fmean(reached) if reached else None,
        slowest=max(reached, default=None),
    )
