# SPDX-License-Identifier: Apache-2.0
"""What the gate and others can detect, as the Markdown tables of docs/statistics.md."""

from collections.abc import Iterator, Sequence

from eval.judging.power import (
    Model,
    PairedTest,
    detectable_loss,
    probability_not_passed,
    threshold_fails,
)

QUESTIONS = (200, 300, 500, 1319)
_FLIPS = (0.01, 0.02, 0.05, 0.1)
_LOSSES = (0.0, 0.01, 0.02, 0.03, 0.04, 0.05)
_ACCURACY = 0.375


def power_table(test: PairedTest) -> str:
    """Two tables: of ``test``, and of vLLM's own gates on an accuracy of 0.375."""
    losses = [f"{100 * loss:g}" for loss in _LOSSES]
    own = _table(["questions", "flips", *losses, "detectable"], _own(test))
    others = _table(["questions", "gate", *losses], _others())
    return f"{own}\n\n{others}"


def _own(test: PairedTest) -> Iterator[list[str]]:
    failing = test._replace(margin=None)
    for questions in QUESTIONS:
        for flips in _FLIPS:
            cells = []
            for loss in _LOSSES:
                model = Model(questions, max(flips, loss), loss)
                failed, not_passed = (probability_not_passed(one, model) for one in (failing, test))
                cells.append(f"{_percent(failed)} / {_percent(not_passed)}")
            detectable = detectable_loss(failing, Model(questions, flips))
            yield [
                str(questions),
                f"{flips:.0%}",
                *cells,
                "-" if detectable is None else f"{100 * detectable:.1f}",
            ]


def _others() -> Iterator[list[str]]:
    gates = {"at least 0.25": 0.25, "at least 0.375 - 0.08": _ACCURACY - 0.08}
    for questions in QUESTIONS:
        for name, threshold in gates.items():
            fails = (threshold_fails(questions, _ACCURACY - loss, threshold) for loss in _LOSSES)
            yield [str(questions), name, *(_percent(share) for share in fails)]


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _table(head: Sequence[str], rows: Iterator[list[str]]) -> str:
    lines = [list(head), ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
