# SPDX-License-Identifier: Apache-2.0
"""Whether pages say what their files say."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from difflib import SequenceMatcher
from pathlib import Path

from scripts.figures.claim import Claim


def problems(claims: Iterable[Claim], root: Path) -> Iterator[str]:
    """Every claim that its page does not make exactly once.

    Args:
        claims: All of them.
        root: The folder that pages are named from.
    """
    pages: dict[str, str] = {}
    for claim in claims:
        if claim.page not in pages:
            pages[claim.page] = (root / claim.page).read_text(encoding="utf-8")
        said = times_said(pages[claim.page], claim.text)
        if not said:
            yield (
                f"{claim.page} does not say what {claim.file} does:\n"
                f"    expected: {claim.text}\n"
                f"    nearest:  {nearest(pages[claim.page], claim.text)}"
            )
        elif said > 1:
            yield (
                f"{claim.page} says {said} times '{claim.text}', of {claim.file}: "
                "claim more of the sentence or row, so that it is one place"
            )


def times_said(page: str, text: str) -> int:
    """How often a text stands in a page, whose lines may end anywhere; not amid a number."""
    one_line = " ".join(page.split())
    return len(re.findall(rf"(?<![\d.]){re.escape(' '.join(text.split()))}(?!\.?\d)", one_line))


def nearest(page: str, text: str) -> str:
    """The row, or as many lines of a paragraph as the text has, that has most of its words."""
    lines = page.splitlines()
    if not text.startswith("|"):
        spanned = 1 + len(text) // 100
        lines = [" ".join(lines[at : at + 1 + spanned]) for at in range(len(lines))]
    wanted = Counter(text.split())
    shared = {line: (Counter(line.split()) & wanted).total() for line in lines}
    most = max(shared.values(), default=0)
    best = [line for line, count in shared.items() if count == most]
    return max(best, key=lambda line: SequenceMatcher(None, line, text).ratio(), default="")
