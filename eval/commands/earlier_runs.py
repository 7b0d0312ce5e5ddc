# SPDX-License-Identifier: Apache-2.0
"""Servers of runs whose harness was killed."""

from pathlib import Path

from rich.console import Console

from eval.serving.leftovers import RECORD, end_recorded
from eval.serving.small_disk import unmount_left

_SECONDS_FOR_A_GUARDIAN = 45.0
"""To end what it was about to end anyway."""


def end_what_they_left(runs: Path, console: Console) -> None:
    """End servers that run for nobody any more, unmount what they had, and say so.

    Args:
        runs: Folder of all runs. One whose harness is alive is left alone.
        console: Is told of each.
    """
    for file in sorted([*runs.glob(f"*/arms/*/*{RECORD}"), *runs.glob(f"*/oracle/*{RECORD}")]):
        if ended := end_recorded(file, _SECONDS_FOR_A_GUARDIAN):
            count = "a process" if len(ended) == 1 else f"{len(ended)} processes"
            console.print(
                f"{file.parent}: {count} of an earlier run, which was killed, ended",
                highlight=False,
                soft_wrap=True,
            )
    for folder in unmount_left(runs):
        console.print(f"{folder}: a file system of an earlier run was unmounted", soft_wrap=True)
