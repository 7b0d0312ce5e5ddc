# SPDX-License-Identifier: Apache-2.0
"""The command `vllm-eplb`."""

import contextlib
import json
import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from vllm_eplb_plugin import __version__
from vllm_eplb_plugin.bench.cli import bench
from vllm_eplb_plugin.cli.advising import advise
from vllm_eplb_plugin.cli.control import ctl, status
from vllm_eplb_plugin.cli.converting import convert
from vllm_eplb_plugin.cli.doctor import examine
from vllm_eplb_plugin.cli.explain import ExplainError, explain
from vllm_eplb_plugin.cli.explanation import show
from vllm_eplb_plugin.cli.offline_packages import needs_offline_packages
from vllm_eplb_plugin.cli.recording import recording
from vllm_eplb_plugin.cli.report import Report
from vllm_eplb_plugin.cli.simulate import simulate
from vllm_eplb_plugin.overrides.override import KINDS, Kind
from vllm_eplb_plugin.releases import known_release, supported_releases

main = typer.Typer(
    name="vllm-eplb",
    help="Single-map Expert Parallelism Load Balancer for vLLM.",
    no_args_is_help=True,
    add_completion=False,
)
main.add_typer(bench, name="bench")
main.command()(ctl)
main.command()(status)
for offline in (recording, convert, simulate, advise):
    main.command()(needs_offline_packages(offline))

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"vllm-eplb-plugin {__version__}")
        raise typer.Exit


@main.callback()
def _main(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print it, and exit."
        ),
    ] = False,
) -> None: ...


@main.command()
def doctor(
    as_json: AsJson = False,
    additional_config: Annotated[
        list[str] | None,
        typer.Option(
            metavar="JSON", help="Settings that a server is to get, to be checked; repeatable."
        ),
    ] = None,
) -> None:
    """Say whether the plugin works with the installed vLLM; exit code 0 if it does, else 2."""
    # vLLM logs to standard output, and so does whatever else is imported.
    with contextlib.redirect_stdout(sys.stderr):
        report = examine(additional_config or [])
    if as_json:
        typer.echo(json.dumps(report.as_dict(), indent=2))
    else:
        _show(report)
    raise typer.Exit(0 if report.works else 2)


def _parse_release(version: str) -> str:
    release = known_release(version)
    if release is None:
        raise typer.BadParameter(f"{version} is none of {', '.join(supported_releases())}.")
    return release


def _parse_kind(name: str) -> Kind:
    for kind in KINDS:
        if name == kind:
            return kind
    raise typer.BadParameter(f"{name} is none of {', '.join(KINDS)}.")


@main.command("explain")
def explain_command(
    release: Annotated[
        str | None,
        typer.Option(
            parser=_parse_release,
            metavar="VERSION",
            help="A supported vLLM, installed or not, such as 0.26.0.",
            show_default="the installed one",
        ),
    ] = None,
    kind: Annotated[
        Kind | None,
        typer.Option(parser=_parse_kind, metavar="KIND", help=f"Only one of {', '.join(KINDS)}."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say what is overridden of vLLM: which failure each override mends, when, and until when."""
    try:
        with contextlib.redirect_stdout(sys.stderr):
            explanation = explain(release, kind)
    except ExplainError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error
    if as_json:
        typer.echo(json.dumps(explanation.as_dict(), indent=2))
    else:
        show(explanation, Console(highlight=False))


def _show(report: Report) -> None:
    console = Console(highlight=False)
    console.print(f"vllm-eplb-plugin {__version__}")
    console.print(f"vLLM: {escape(report.installed or 'not installed')}")
    if report.processor is not None:
        console.print(f"processor: {escape(report.processor.description)}", soft_wrap=True)
    for gpu in report.gpus:
        memory = f"{gpu.free_gib} of {gpu.memory_gib} GiB free"
        console.print(f"GPU: {escape(gpu.name)}, {memory}")
    if not report.on_cpu:
        console.print(f"DeepEP: {escape(report.deep_ep or 'can be used')}", soft_wrap=True)
        if report.deep_ep is None and report.deep_ep_v2 is not None:
            console.print(f"DeepEP, deepep_v2: {escape(report.deep_ep_v2)}", soft_wrap=True)
    if report.expert_weights is not None:
        console.print(f"expert weights: {escape(report.expert_weights)}", soft_wrap=True)
    for moment in dict.fromkeys(row.bound_when for row in report.overrides):
        rows = [row for row in report.overrides if row.bound_when == moment]
        misfits = [row.target.partition(":")[2] for row in rows if not row.fits]
        but = f", but not {', '.join(misfits)}" if misfits else ""
        fitting = len(rows) - len(misfits)
        console.print(f"bound when {moment}: {fitting} of {len(rows)} fit{escape(but)}")
    if report.planning is not None:
        console.print(f"planning: {escape(report.planning)}; it has planned something small")
    if report.fast_ways:
        ways = [f"{way.name}: {'no' if way.problem else 'yes'}" for way in report.fast_ways]
        console.print(f"fast ways: {', '.join(ways)}")
    for problem in report.problems:
        console.print(f"[red]problem:[/] {escape(problem)}", soft_wrap=True)
    for hint in report.hints:
        console.print(f"[yellow]note:[/] {escape(hint)}", soft_wrap=True)
    console.print("works" if report.works else "does not work")
