# SPDX-License-Identifier: Apache-2.0
"""What was found of a vLLM release that the table does not have, as Markdown."""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from scripts.release_fit import Misfit, Target


@dataclass(frozen=True)
class Findings:
    """What was found of one release."""

    version: str
    distribution: str
    """From which its sources are."""
    compared_with: str
    """The newest release of the table, whose overrides it would get."""
    overrides: int
    """Those that could be imported."""
    misfits: list[Misfit]
    unseen: list[Misfit]
    gone: list[str]
    """Names that the plugin imports of vLLM and that are there no longer, with where."""
    changed: list[Target]
    """What is overridden and has the same parameters, perhaps, and another body."""

    @property
    def exit_code(self) -> int:
        """0: it fits; 1: it does not; 2: that cannot be told."""
        if self.misfits or self.gone:
            return 1
        return 2 if self.unseen or not self.overrides else 0

    @property
    def verdict(self) -> str:
        """In a few words."""
        if self.exit_code == 2:
            return "it cannot be told whether it fits"
        number = len(self.misfits) + len(self.gone)
        if number == 0:
            return "fits"
        return f"does not fit in {number} {'place' if number == 1 else 'places'}"


def report(findings: Findings) -> str:
    """Tell of one release, verdict first."""
    return "\n".join(_lines(findings)) + "\n"


def _lines(found: Findings) -> Iterator[str]:
    yield f"# vLLM {found.version}: {found.verdict}"
    yield ""
    yield (
        f"Sources of {found.distribution} {found.version}, against the {found.overrides} overrides "
        f"of {found.compared_with}."
    )
    yield from _section("No longer as expected", _misfits(found.misfits))
    yield from _section(
        f"In {found.compared_with}, and there no longer", (f"- {one}" for one in found.gone)
    )
    yield from _section("Could not be looked at", _misfits(found.unseen))
    yield from _section(
        f"Overridden, and with another body than in {found.compared_with}: read it",
        (f"- `{one.target}`: {one.kind}, {one.file}" for one in found.changed),
    )
    yield from _section("What to do", _next(found))


def _section(title: str, lines: Iterable[str]) -> Iterator[str]:
    lines = list(lines)
    if lines:
        yield from ("", f"## {title}", "", *lines)


def _misfits(misfits: Iterable[Misfit]) -> Iterator[str]:
    def where(one: Misfit) -> tuple[str, str]:
        return one.file, one.when

    for (file, when), of_one in itertools.groupby(sorted(misfits, key=where), where):
        yield f"- {file}, bound when {when}:"
        yield from (f"  - `{one.problem}`" for one in of_one)


def _next(found: Findings) -> Iterator[str]:
    if found.unseen:
        yield (
            "- What could not be looked at most likely needs a package, or a release of one, that "
            "`.venv` lacks: lock this vLLM (`scripts/lock`), and run this again."
        )
    if found.misfits or found.gone:
        yield (
            "- Give each override that no longer fits a second entry, each with its `releases`; "
            "read the release's `vllm/distributed/eplb` before."
        )
    yield f'- Add `Release("{found.version}")` to vllm_eplb_plugin/releases.py; then run it:'
    yield (
        "  `scripts/test --every-release tests/releases/test_matrix.py -k "
        f"{found.version}`. docs/maintaining.md has the rest."
    )
