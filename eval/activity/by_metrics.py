# SPDX-License-Identifier: Apache-2.0
"""What EPLB did, as far as the plugin's metrics tell it (docs/metrics.md). Pure functions.

A rank writes its figures once a second, so what moved is counted from the last figures before the
first question to those of the last scrape, `SETTLED_SECONDS` after the last answer.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from eval.activity.scrapes import Scrape, Series
from eval.activity.totals import OUTCOMES, Activity, ModelActivity, Outcome

SETTLED_SECONDS = 2.0
"""After which /metrics has what a rank did before."""

_ENDED = "rearrangements_total"
_AT_ANY_TIME = ("rejected", "failed", "stalled")
"""Outcomes that are wrong whenever they come, so also before the questions."""
_Model = tuple[str, int, int]
"""Its name, its place among the models, and its pipeline stage."""


def tells_of_eplb(scrapes: Sequence[Scrape]) -> bool:
    """Whether what moved can be counted: from two scrapes or more, of which the last has values.

    Before a server's first step there are none, and nothing has moved.
    """
    return len(scrapes) > 1 and all(one.names_eplb for one in scrapes) and bool(scrapes[-1].eplb)


def activity_by_metrics(
    scrapes: Sequence[Scrape], asked_from: float, asked_until: float
) -> Activity:
    """Count what happened between the first and the last scrape, and what is wrong at any time.

    Args:
        scrapes: From before the first question to after the last answer; `tells_of_eplb`.
        asked_from: The first question was sent, in Unix seconds.
        asked_until: The last answer was received.
    """
    first, last = scrapes[0], scrapes[-1]
    models = _models(first, last)
    ended = _grown(first, last, _ENDED)
    return Activity(
        rearrangements=max((one.finished for one in models), default=0),
        rearrangements_started=int(
            max(_by_key(first, last, "rebalance_events_total").values(), default=0)
        ),
        skipped=sum(one.skipped for one in models),
        placements_rejected=sum(one.rejected for one in models),
        drained=sum(one.drained for one in models),
        failed=sum(one.failed for one in models),
        stalled=sum(one.stalled for one in models),
        models=models,
        under_way_seconds=_under_way(last, asked_from, asked_until),
        usual_seconds=_grown(first, last, "rearranging_seconds_total") / ended if ended else None,
        modes=modes_between(first, last),
        events_dropped=int(last.total("events_dropped_total")),
    )


def modes_between(first: Scrape | None, last: Scrape) -> list[str]:
    """Modes of rearrangements that ended between two scrapes; or, without a first, ever."""
    before = first.values(_ENDED) if first is not None else {}
    grown = [
        one
        for key, one in last.values(_ENDED).items()
        if one.value > (before[key].value if key in before else 0.0)
    ]
    return sorted({one.labels.get("mode", "") for one in grown})


def experts_moved(scrapes: Sequence[Scrape]) -> int:
    """Experts that some rank got from another one, between the first scrape and the last."""
    return int(_grown(scrapes[0], scrapes[-1], "moved_experts_total"))


def state_of_eplb(scrape: Scrape) -> tuple[str, str] | None:
    """What EPLB is, such as on, and why it is not on; None: it is not told."""
    found = [one for one in scrape.values("state").values() if one.value]
    return next(((one.labels["state"], one.labels["reason"]) for one in found), None)


def _models(first: Scrape, last: Scrape) -> list[ModelActivity]:
    before = first.values(_ENDED)
    counts: dict[_Model, dict[Outcome, int]] = defaultdict(lambda: defaultdict(int))
    for key, one in last.values(_ENDED).items():
        outcome = next((name for name in OUTCOMES if name == one.labels.get("outcome")), None)
        if outcome is None:
            continue
        earlier = 0.0 if outcome in _AT_ANY_TIME or key not in before else before[key].value
        counts[_model_of(one)][outcome] += int(one.value - earlier)
    return [_model(key, counts[key]) for key in sorted(counts, key=lambda one: (one[1], one[2]))]


def _model(key: _Model, counts: Mapping[Outcome, int]) -> ModelActivity:
    name, index, stage = key
    found = ModelActivity(model=name, model_index=index, stage=stage)
    return found.model_copy(update={outcome: counts.get(outcome, 0) for outcome in OUTCOMES})


def _model_of(one: Series) -> _Model:
    labels = one.labels
    return (
        labels.get("model_name", ""),
        int(labels.get("model_index", 0)),
        int(labels.get("stage", 0)),
    )


def _under_way(last: Scrape, asked_from: float, asked_until: float) -> float | None:
    """`Activity.under_way_seconds`, of the rank with the most of those that are told of."""
    ages = [one.value for one in last.values("rearrangement_age_seconds").values()]
    oldest = max(ages, default=0.0)
    began = last.time - oldest
    if not oldest or began > asked_until:
        return None
    return asked_until - max(began, asked_from)


def _by_key(first: Scrape, last: Scrape, name: str) -> dict[tuple[str, ...], float]:
    before = first.values(name)
    return {
        key: one.value - (before[key].value if key in before else 0.0)
        for key, one in last.values(name).items()
    }


def _grown(first: Scrape, last: Scrape, name: str) -> float:
    return last.total(name) - first.total(name)
