# SPDX-License-Identifier: Apache-2.0
"""Print what README and docs have to say by the JSON files that they name, or check that they do.

    .venv/bin/python -m scripts.figures            # --check: only say where they do not

What is printed is put into the page. A figure that is measured anew gets its file first.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

from scripts.figures import (
    accuracy,
    commit,
    exact,
    faults,
    latency,
    policies,
    readme,
    schedules,
    step,
    stress,
    switching,
    throughput,
    transfer,
)
from scripts.figures.checking import problems
from scripts.figures.claim import Claim, Kept
from scripts.figures.unclaimed import unclaimed

ROOT = Path(__file__).parents[2]
KINDS = (
    *(commit, step, transfer, switching, latency, policies, schedules, throughput),
    *(accuracy, exact, stress, faults, readme),
)
"""Modules that each know one kind of file; the last knows README."""


def all_claims(kept: Kept) -> list[Claim]:
    """Of every page.

    Args:
        kept: The files that they are made from.
    """
    return list(chain.from_iterable(kind.claims(kept) for kind in KINDS))


def wrong(root: Path) -> Iterator[str]:
    """Whatever a page says that its files do not, and what README says without a file."""
    claims = all_claims(Kept(root))
    yield from problems(claims, root)
    text = (root / readme.PAGE).read_text(encoding="utf-8")
    of_readme = [claim.text for claim in claims if claim.page == readme.PAGE]
    for one in unclaimed(text, of_readme, readme.EXEMPT):
        yield f"{readme.PAGE}: {one}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print claims, or what is wrong.

    Args:
        arguments: Of the command line, which it takes without them.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--root", type=Path, default=ROOT, help="another checkout")
    options = parser.parse_args(arguments)
    if not options.check:
        for claim in all_claims(Kept(options.root)):
            print(f"{claim.page} <- {claim.file}: {claim.text}")
        return 0
    found = list(wrong(options.root))
    for one in found:
        print(one)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
