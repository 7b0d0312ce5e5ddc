# SPDX-License-Identifier: Apache-2.0
"""Do all ranks tell of the same rearrangements, and is each rank's evidence there? Pure."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from eval.activity.rank_files import RankFile
from vllm_eplb_plugin.observe.events import (
    LayerCommitted,
    RearrangementEnded,
    RearrangementEvent,
    RearrangementFailed,
    RearrangementFinished,
    RearrangementPlanned,
    RearrangementStalled,
)

_CUT_OFF = 1
"""Outcomes that a rank may miss at the end, when the server is stopped."""


@dataclass(frozen=True)
class Agreement:
    """What the files of all ranks say together."""

    rearrangements: int = 0
    """With an outcome, at any time, according to the rank that tells of the most."""
    moved: bool = False
    """Some event tells of a rearrangement, at any time."""
    missing: tuple[str, ...] = ()
    """Evidence that should be there and is not."""
    contradictions: tuple[str, ...] = ()
    """What one rank tells otherwise than another, or than itself."""


class _Moved(NamedTuple):
    """What a plan says of its moves."""

    policy: str
    trigger: str
    experts: tuple[int, ...]
    """For each layer, received by some rank."""
    of_ranks: tuple[int, ...]
    """For each rank, bytes that it gets."""


@dataclass(frozen=True)
class _Outcome:
    """What every rank of a stage has to tell alike of one rearrangement of one model."""

    number: int
    kind: str
    mode: str
    slots: tuple[tuple[int, int], ...]
    """Layers with changed slots, and how many: as committed."""
    promised: tuple[tuple[int, int], ...] | None
    """The same as told at the end; none: it did not finish."""
    moved: _Moved | None
    """What was planned; none: nothing was, or it is not told."""
    bytes_sent: int | None
    """Over all ranks, as told at the end."""


def agree(files: Sequence[RankFile], ranks: int, stages: int, until: float) -> Agreement:
    """Compare the files of all ranks.

    Args:
        files: From `eval.activity.rank_files.read_rank_files`.
        ranks: Of expert parallelism.
        stages: Of the pipeline.
        until: The last answer was received, in Unix seconds.
    """
    outcomes = {file.path.name: _outcomes(file) for file in files}
    most = max((len(one) for told in outcomes.values() for one in told.values()), default=0)
    gaps = {file.path.name: list(file.gaps(until)) for file in files}
    missing = [gap for found in gaps.values() for gap in found]
    missing += _absent(files, ranks, stages, bool(most))
    contradictions: list[str] = []
    for stage in range(stages):
        of_stage = {
            file.path.name: outcomes[file.path.name]
            for file in files
            if file.source is not None and file.source.stage == stage
        }
        missing += _shorter(of_stage)
        # What a file lacks makes it tell otherwise, too.
        contradictions += _contradictions(
            {name: told for name, told in of_stage.items() if not gaps[name]}
        )
    moved = any(isinstance(one.event, RearrangementEvent) for file in files for one in file.told)
    return Agreement(most, moved, tuple(missing), tuple(contradictions))


def _absent(files: Sequence[RankFile], ranks: int, stages: int, any_outcome: bool) -> Iterator[str]:
    """Ranks without a file of their own, or with several."""
    if len(files) < ranks * stages:
        yield f"{ranks * stages} ranks should tell, and {len(files)} do"
        return
    if not any_outcome:
        return
    found: dict[tuple[int, int], list[str]] = defaultdict(list)
    for file in files:
        if file.source is None:
            yield f"{file.path.name} is empty"
        else:
            found[file.source.rank, file.source.stage].append(file.path.name)
    for (rank, stage), names in sorted(found.items()):
        if rank >= ranks or stage >= stages:
            yield f"{names[0]} is of EP rank {rank}, stage {stage}, which the server does not have"
        elif len(names) > 1:
            yield f"{' and '.join(names)} are of the same rank"


def _outcomes(file: RankFile) -> dict[int, list[_Outcome]]:
    """Of each model."""
    committed: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    found: dict[int, list[_Outcome]] = defaultdict(list)
    moved: dict[tuple[int, int], _Moved] = {}
    for told in file.told:
        event = told.event
        if isinstance(event, RearrangementPlanned):
            moved[event.model_index, event.rearrangement] = _Moved(
                event.policy,
                event.trigger,
                tuple(event.experts_received),
                tuple(event.bytes_received),
            )
        elif isinstance(event, LayerCommitted) and event.slots_changed:
            layers = committed[event.model_index, event.rearrangement]
            layers.append((event.layer, event.slots_changed))
        elif isinstance(event, RearrangementEnded):
            layers = committed[event.model_index, event.rearrangement]
            found[event.model_index].append(
                _Outcome(
                    event.rearrangement,
                    event.kind,
                    event.mode,
                    tuple(sorted(layers)),
                    _promised(event),
                    moved.get((event.model_index, event.rearrangement)),
                    event.bytes_sent if isinstance(event, RearrangementFinished) else None,
                )
            )
    return found


def _promised(event: RearrangementEnded) -> tuple[tuple[int, int], ...] | None:
    if not isinstance(event, RearrangementFinished):
        return None
    return tuple((layer, slots) for layer, slots in enumerate(event.slots_changed) if slots)


_Told = Mapping[str, Mapping[int, Sequence[_Outcome]]]
"""What the files of one stage tell of each model."""


def _shorter(ranks: _Told) -> Iterator[str]:
    """Files that tell fewer outcomes than the longest."""
    for model in _models(ranks):
        counts = {name: len(told.get(model, [])) for name, told in ranks.items()}
        most = max(counts.values())
        for name, count in counts.items():
            if count < most - _CUT_OFF:
                yield f"{name} tells {count} outcomes of {most}"


def _contradictions(ranks: _Told) -> Iterator[str]:
    """The first of each file beside the longest: others follow from it."""
    for model in _models(ranks):
        by_file = {name: told.get(model, []) for name, told in ranks.items()}
        expected = max(by_file.values(), key=len)
        failed = {
            one.number
            for told in by_file.values()
            for one in told
            # Of which the other ranks need not hear.
            if one.kind in (RearrangementFailed.kind, RearrangementStalled.kind)
        }
        for name, told in by_file.items():
            pairs = zip(told, expected, strict=False)
            sound = (pair for pair in pairs if pair[0].number not in failed)
            yield from islice(filter(None, (_contradiction(name, *pair) for pair in sound)), 1)


def _contradiction(name: str, one: _Outcome, other: _Outcome) -> str | None:
    if one.promised is not None and one.promised != one.slots:
        return f"{name} tells of other slots when rearrangement {one.number} ends than before"
    if one.promised is not None and one.moved is not None and not _possible(one.moved, one):
        return f"{name} tells of moves in rearrangement {one.number} that its slots do not allow"
    if one != other:
        return f"{name} tells otherwise of rearrangement {one.number} than another rank"
    return None


def _possible(moved: _Moved, one: _Outcome) -> bool:
    """Whoever receives an expert has a slot that changes; what ranks get is what was sent."""
    slots = dict(one.slots)
    fits = all(experts <= slots.get(layer, 0) for layer, experts in enumerate(moved.experts))
    return fits and sum(moved.of_ranks) == one.bytes_sent


def _models(ranks: _Told) -> list[int]:
    return sorted({model for told in ranks.values() for model in told})
