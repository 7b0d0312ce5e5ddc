# SPDX-License-Identifier: Apache-2.0
"""Values of metrics, with those of their own labels, from what a rank says of itself."""

from collections.abc import Callable, Sequence
from typing import get_args

import numpy as np

from vllm_eplb_plugin.observe.metrics.host import Stage
from vllm_eplb_plugin.observe.metrics.kinds import Rows
from vllm_eplb_plugin.observe.progress import Outcome
from vllm_eplb_plugin.observe.status import ModelStatus, RankStatus


def one(value: float | None) -> Rows:
    """A value without labels; None: nothing is told."""
    return () if value is None else (((), value),)


def of_model(name: str) -> Callable[[ModelStatus, RankStatus], Rows]:
    """A field of the model."""
    return lambda model, _: one(getattr(model, name))


def of_rank(name: str) -> Callable[[RankStatus], Rows]:
    """A field of the rank."""
    return lambda status: one(getattr(status, name))


def balancedness(
    figure: Callable[[Sequence[float]], float],
) -> Callable[[ModelStatus, RankStatus], Rows]:
    """One figure of all layers."""
    return lambda model, _: one(float(figure(model.balancedness)) if model.balancedness else None)


def percentile(of_layers: float) -> Callable[[Sequence[float]], float]:
    """What so many of 100 layers are below."""
    return lambda values: float(np.percentile(values, of_layers))


def outcomes(model: ModelStatus, teller: RankStatus) -> Rows:
    """All that may come in the server's mode, so that rates are there from the first; the rest
    when it has come."""
    for mode, ended in {teller.mode: {}, **model.by_mode}.items():
        for outcome in get_args(Outcome):
            if mode == teller.mode or outcome in ended:
                yield (outcome, mode), ended.get(outcome, 0)


def survivable(model: ModelStatus, teller: RankStatus) -> Rows:
    """Each rank of the stage."""
    if model.survivable is not None:
        for rank in range(teller.num_ranks):
            yield (rank,), rank in model.survivable


def state(stage: Stage) -> Rows:
    """One series, which another one follows when the state changes."""
    worst = stage.worst
    return [((worst.state, worst.reason or "none"), 1)]


def policy(stage: Stage) -> Rows:
    """One series: ranks that do not plan alike refuse to start."""
    return [((stage.statuses[0].policy,), 1)]


def under_way(status: RankStatus) -> Rows:
    """Its age."""
    return one(0.0 if status.under_way is None else status.under_way.seconds)


def layers_left(status: RankStatus) -> Rows:
    """Of what is under way."""
    return one(0 if status.under_way is None else status.under_way.layers_left)


def phases(status: RankStatus) -> Rows:
    """Of both threads, if there are two."""
    for thread, doing in (("model", status.model_thread), ("worker", status.worker)):
        if doing is not None:
            yield (thread, doing.phase), doing.seconds


def stalled(stage: Stage) -> Rows:
    """All that stands still now."""
    for stall in stage.stalls:
        layer = "" if stall.layer is None else stall.layer
        yield (stall.rank, stall.thread, stall.phase, layer), stall.seconds
