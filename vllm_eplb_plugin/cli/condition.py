# SPDX-License-Identifier: Apache-2.0
"""How EPLB is, in a few lines for whoever is on call."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from vllm_eplb_plugin.observe.status import ModelStatus, RankStatus, Stall, ThreadStatus

SILENT_SECONDS = 10.0
"""A rank says how it is once a second."""


@dataclass
class Condition:
    """What is told, and whether any of it is wrong."""

    lines: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All lines, what is wrong first."""
        return "\n".join([*(f"WRONG: {one}" for one in self.wrong), *self.lines])


def condition_of(statuses: Iterable[RankStatus], now: float) -> Condition:
    """Say how the ranks of one host are.

    Args:
        statuses: What they said last; one at least.
        now: Unix seconds, by the clock of their host.
    """
    by_stage: dict[int, list[RankStatus]] = {}
    for status in sorted(statuses, key=lambda one: (one.stage, one.rank)):
        by_stage.setdefault(status.stage, []).append(status)
    condition = Condition()
    for stage, ranks in by_stage.items():
        prefix = f"stage {stage}: " if len(by_stage) > 1 else ""
        condition.wrong += [prefix + line for line in _wrong(ranks, now)]
        condition.lines += [prefix + line for line in _lines(ranks)]
    return condition


def _wrong(ranks: Sequence[RankStatus], now: float) -> Iterator[str]:
    off = [rank for rank in ranks if rank.state == "off"]
    if off:
        yield f"EPLB is off on {_named(off)}: {off[0].why}"
    for stall in _stalls(ranks):
        yield f"EP rank {stall.rank} stands still: {stall.thread}, {_doing(stall)}"
    for rank in ranks:
        if (age := now - rank.time) > SILENT_SECONDS:
            yield (
                f"EP rank {rank.rank} (process {rank.process} on {rank.host}) has said nothing "
                f"for {age:.0f} s; then its model's thread was in {_doing(rank.model_thread)}"
            )


def _stalls(ranks: Sequence[RankStatus]) -> Iterable[Stall]:
    """Each thread once, as the rank saw it that has for longest."""
    longest: dict[tuple[int, str], Stall] = {}
    for stall in (stall for rank in ranks for stall in rank.stalled):
        known = longest.get((stall.rank, stall.thread))
        if known is None or stall.seconds > known.seconds:
            longest[stall.rank, stall.thread] = stall
    return longest.values()


def _lines(ranks: Sequence[RankStatus]) -> Iterator[str]:
    # The newest: a rank that stands still may have told another state.
    told = max(ranks, key=lambda one: one.time)
    state = {"on": "on", "paused": "paused by an operator", "off": "off"}[told.state]
    why = f" ({told.why})" if told.why else ""
    here = f"{len(ranks)} of its {told.num_ranks} EP ranks" if told.num_ranks else _named(ranks)
    yield f"EPLB: {state}{why}; {told.mode} mode; {here} on {told.host}"
    yield f"policy: {told.policy}; weights: {told.transfer or 'not told'}"
    yield _rearrangement(told)
    threads = f"model's thread {_doing(told.model_thread)}"
    if told.worker is not None:
        threads += f", worker {_doing(told.worker)}"
    yield f"threads of EP rank {told.rank}: {threads}"
    # EP rank 0 alone knows what was moved over all ranks.
    for model in ranks[0].models:
        yield from _of_model(model)
    dropped, stalls = sum(r.events_dropped for r in ranks), max(r.stalls for r in ranks)
    held = max(rank.seconds_in_eplb for rank in ranks)
    yield (
        f"since the start: {stalls} stalls, {dropped} events dropped, EPLB held the model's thread "
        f"for {held:.3g} s"
    )
    if told.commands:
        last = told.commands[-1]
        yield f"last command: {last.action}, in step {last.step}"


def _rearrangement(told: RankStatus) -> str:
    if told.under_way is not None:
        way, left = told.under_way, "is being planned"
        if way.layers_left is not None:
            left = f"{way.layers_left} layers left"
        return f"under way: rearrangement {way.rearrangement}, for {way.seconds:.1f} s, {left}"
    due = "" if told.steps_to_next is None else f", the next is due in {told.steps_to_next} steps"
    return f"under way: nothing{due} (step {told.step})"


def _of_model(model: ModelStatus) -> Iterator[str]:
    outcomes = ", ".join(f"{number} {name}" for name, number in model.outcomes.items() if number)
    last = "" if model.last_seconds is None else f", the last in {model.last_seconds:.3g} s"
    moved = f"{model.experts_received} experts ({model.bytes_received / 1e6:.3g} MB) moved"
    yield f"{model.model}: rearrangements: {outcomes or 'none'}{last}; {moved}"
    told = []
    if model.balancedness:
        mean = sum(model.balancedness) / len(model.balancedness)
        told.append(f"{mean:.3f}, worst layer {min(model.balancedness):.3f}")
    if model.balancedness_expected is not None:
        told.append(f"planned for {model.balancedness_expected:.3f}")
    yield f"{model.model}: balancedness: {'; '.join(told) or 'not known yet'}"
    if model.survivable is not None:
        ranks = ", ".join(map(str, model.survivable)) or "none"
        yield f"{model.model}: EP ranks whose death every expert would survive: {ranks}"


def _doing(thread: ThreadStatus | Stall) -> str:
    layer = "" if thread.layer is None else f" of layer {thread.layer}"
    return f"{thread.phase}{layer}, for {thread.seconds:.0f} s"


def _named(ranks: Sequence[RankStatus]) -> str:
    return f"EP ranks {', '.join(str(rank.rank) for rank in ranks)}"
