# SPDX-License-Identifier: Apache-2.0
"""A run is not evidence beside itself: arms that are copies of one another are found."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from eval.errors import GateError
from eval.judging.arms import ArmToJudge
from eval.results.digests import file_digest


def require_different_arms(arms: Sequence[tuple[ArmToJudge, Path]]) -> None:
    """Refuse arms of which one is a copy of another, whatever it is called.

    Args:
        arms: Each with its folder.

    Raises:
        GateError: Two have a trait in common that no two servers have; names both folders.
    """
    seen: dict[tuple[str, object], Path] = {}
    for arm, folder in arms:
        for trait in _traits(arm, folder):
            other = seen.setdefault(trait, folder)
            if other != folder:
                raise GateError(
                    f"{folder} and {other} are one and the same: {trait[0]} is equal. A run cannot "
                    "be compared with itself or with a copy: evaluate again under another --name"
                )


def require_different_runs(runs: Mapping[Path, str]) -> None:
    """Refuse the same run twice, be it a copy or a link.

    Args:
        runs: The identity of each, by its folder.

    Raises:
        GateError: Two have the same identity; names both.
    """
    seen: dict[str, Path] = {}
    for folder, identity in runs.items():
        other = seen.setdefault(identity, folder)
        if identity and other != folder:
            raise GateError(
                f"{folder} and {other} are one and the same run. A run cannot be compared with "
                "itself or with a copy: evaluate again under another --name"
            )


def _traits(arm: ArmToJudge, folder: Path) -> Iterator[tuple[str, object]]:
    """What is measured so finely, or has so much of its server in it, that it happens once."""
    run = arm.run
    yield "the time of the first question", run.asked_from
    yield "the time of the last answer", run.asked_until
    for what, file in (
        ("the server's log", folder / "server.log"),
        *(("a file of events", one) for one in sorted((folder / "events").glob("rank*.jsonl"))),
    ):
        if file.is_file() and file.stat().st_size:
            # The beginning, which a server does not change while it writes on.
            yield what, file_digest(file, _HEAD).sha256


_HEAD = 4096
