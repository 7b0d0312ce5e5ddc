# SPDX-License-Identifier: Apache-2.0
"""Simulate arms that are asked until a loss is decided, as the table in docs/statistics.md.

python -m scripts.simulate_enough            # 2,000 runs for each row
"""

import argparse
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from eval.judging.sequential import Design, What, find, looks
from eval.judging.statistics import Pairs

_MARGIN = 0.03
_SHARES = ((0.0, 0.0), (0.01, 0.0), (0.02, 0.0), (0.05, 0.0), (0.1, 0.0), (0.03, 0.03),
           (0.05, 0.03), (0.1, 0.03), (0.05, 0.015), (0.05, 0.05))  # fmt: skip
"""Answers that flip, and the loss among them."""


class End(NamedTuple):
    """Of a run."""

    what: What
    questions: int


def counts_by_chance(
    generator: np.random.Generator, flips: float, loss: float, most: int
) -> list[Pairs]:
    """What is seen at each look, if all questions are asked."""
    chances = [(flips + loss) / 2, (flips - loss) / 2, 1 - flips]
    batches = np.diff([0, *looks(most, most)])
    counts = np.cumsum([generator.multinomial(size, chances) for size in batches], axis=0)
    return [Pairs(0, *row) for row in counts.tolist()]


def end_of(design: Design, seen: Sequence[Pairs]) -> End:
    """Of a run that is asked no more once something is decided."""
    for look in range(1, len(seen) + 1):
        found = find(design, seen[:look])
        if found.questions is not None:
            return End(found.what, found.questions)
    return End("undecided", seen[-1].questions)


def simulated(design: Design, flips: float, loss: float, runs: int, seed: int = 0) -> list[End]:
    """How so many runs end."""
    generator = np.random.default_rng(seed)
    return [
        end_of(design, counts_by_chance(generator, flips, loss, design.most)) for _ in range(runs)
    ]


def rows(design: Design, runs: int) -> Iterator[str]:
    """Of a table in Markdown."""
    yield "| flips | loss | failed | passed | not tested | questions |"
    yield "|---|---|---|---|---|---|"
    for flips, loss in _SHARES:
        ends = simulated(design, flips, loss, runs)
        shares = [
            f"{100 * sum(end.what == what for end in ends) / runs:.1f}"
            for what in ("loss", "no loss", "undecided")
        ]
        mean = sum(end.questions for end in ends) / runs
        yield f"| {100 * flips:g}% | {100 * loss:g} | {' | '.join(shares)} | {mean:.0f} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--alpha", type=float, default=0.005, help="of one comparison")
    parser.add_argument("--questions", type=int, default=1319, help="all that there are")
    given = parser.parse_args()
    for row in rows(Design(given.alpha, _MARGIN, given.questions), given.runs):
        print(row)


if __name__ == "__main__":
    main()
