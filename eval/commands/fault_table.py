# SPDX-License-Identifier: Apache-2.0
"""``python -m eval faults``: every fault in every mode to which it applies, and one table."""

import json
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any

import typer

from eval.commands.keeping import require_writable
from eval.commands.stress_run import stress
from eval.config.faults import PROMISES, FaultName
from eval.config.find import find_config
from eval.config.loading import ALL_ARMS, load_config
from eval.errors import ConfigError
from eval.report.console import PlainConsole
from eval.report.fault_rows import HEADINGS, FaultRow, row_of
from eval.results.stress import StressWorkload
from eval.results.writing import write_named

_QUICK: tuple[tuple[FaultName, str], ...] = (("transfer_fails", "async"), ("policy_hangs", "sync"))
_MODES = ("sync", "async")
_HANG_SECONDS = 120.0


def faults_command(
    config_file: Annotated[str, typer.Argument(metavar="CONFIG")],
    only: Annotated[
        list[str] | None, typer.Option(metavar="FAULT", help="This one only; repeatable.")
    ] = None,
    modes: Annotated[
        list[str] | None, typer.Option("--mode", help="sync or async only: arms of these names.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Two of them.")] = False,
    seconds: Annotated[float, typer.Option(min=20, help="Of load, for each.")] = 60,
    streams: Annotated[int, typer.Option(min=1, help="Completions at the same time.")] = 8,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY.PATH=VALUE", help="Another value, in YAML; repeatable."),
    ] = None,
    folder: Annotated[Path, typer.Option(help="Gets a run for each.")] = Path("runs/faults"),
    file: Annotated[
        Path | None, typer.Option("--json", help="Write the table here, as JSON.")
    ] = None,
) -> None:
    """Let every fault strike in a server under load, and print what became of each.

    Exit code 0: all is as promised; 1: something is not; 2: a server could not run.
    """
    require_writable(file)
    chosen = [*_QUICK] if quick else list(_all(only, modes))
    console = PlainConsole(highlight=False, soft_wrap=True)
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for fault, mode in chosen:
        workload = StressWorkload(
            seconds=seconds,
            streams=streams,
            hang_seconds=_HANG_SECONDS,
            rearrangements=1,
            fault=fault,
        )
        values = [*(settings or []), f"name={json.dumps(f'{mode}-{fault}')}"]
        config = load_config(find_config(config_file), values, arms=ALL_ARMS)
        result, kept = stress(config, mode, workload, folder, console)
        rows.append(row_of(result, mode))
        console.print(f"{mode} {fault}: {result.verdict}; {'; '.join(result.reasons)} ({kept})")
    _print(rows, console)
    if file is not None:
        write_named(file, json.dumps(_kept(rows), indent=1) + "\n")
    verdicts = {row.verdict for row in rows}
    raise typer.Exit(0 if verdicts <= {"passed"} else 1 if "failed" in verdicts else 2)


def _all(only: list[str] | None, modes: list[str] | None) -> Iterator[tuple[FaultName, str]]:
    unknown = {*(only or ())} - {*PROMISES} | {*(modes or ())} - {*_MODES}
    if unknown:
        raise ConfigError(f"{min(unknown)}: faults are {', '.join(PROMISES)}; modes sync and async")
    for fault, promise in PROMISES.items():
        for mode in _MODES:
            applies = mode == "async" or not promise.needs_worker
            if applies and fault in (only or PROMISES) and mode in (modes or _MODES):
                yield fault, mode


def _print(rows: list[FaultRow], console: PlainConsole) -> None:
    lines = [HEADINGS, tuple("---" for _ in HEADINGS), *(row.cells() for row in rows)]
    for line in lines:
        console.print(f"| {' | '.join(line)} |")


def _kept(rows: list[FaultRow]) -> dict[str, Any]:
    today = datetime.now(timezone.utc).date().isoformat()
    return {"date": today, "faults": [row.model_dump() for row in rows]}
