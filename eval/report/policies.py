# SPDX-License-Identifier: Apache-2.0
"""What the policy of each arm moved and what it was good for, in words."""

from collections.abc import Iterator, Sequence

from eval.activity.moves import Moves
from eval.report.sizes import size
from eval.report.view import PolicyRow
from eval.results.schema import ArmResult


def policy_rows(run: str, arms: Sequence[ArmResult]) -> Iterator[PolicyRow]:
    """One for each arm and model whose events tell what plans moved."""
    for arm in arms:
        labels = arm.labels() if len(arm.models) > 1 else [""]
        for label, model in zip(labels, arm.models, strict=False):
            if model.moves is not None:
                yield PolicyRow(run, arm.name, label, _cells(model.moves))


def _cells(moves: Moves) -> dict[str, str]:
    held_back = moves.layers_held_back or moves.bytes_held_back
    return {
        "policy": ", ".join([*moves.policies, *moves.steps]),
        "rearrangements": str(moves.rearrangements),
        "experts received": str(sum(moves.experts_received)),
        "bytes received": size(sum(moves.bytes_received)),
        "from other nodes": size(sum(moves.bytes_from_other_nodes)),
        "busiest rank": size(max(moves.bytes_received, default=0)),
        "balancedness": f"{moves.balancedness_before:.3f} → {moves.balancedness_expected:.3f}",
        "planning, median": f"{1000 * moves.planning_seconds:.2f} ms",
        "layers changed": f"{moves.layers_changed} of {moves.layers}",
        "held back": (
            f"{moves.layers_held_back} layers, {size(moves.bytes_held_back)}" if held_back else "-"
        ),
    }
