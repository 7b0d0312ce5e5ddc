# SPDX-License-Identifier: Apache-2.0
"""The commands by which an operator asks how EPLB is, and acts on it."""

import time
from pathlib import Path
from typing import Annotated

import typer

from vllm_eplb_plugin.cli.condition import Condition, condition_of
from vllm_eplb_plugin.cli.metrics_condition import condition_by_metrics
from vllm_eplb_plugin.cli.ordering import order
from vllm_eplb_plugin.cli.server_client import ServerClient, ServerError
from vllm_eplb_plugin.observe.commands import ACTIONS, Action
from vllm_eplb_plugin.observe.status import FOLDER_VARIABLE, read_statuses, status_of

WRONG, UNKNOWN = 1, 2

Key = Annotated[
    str | None,
    typer.Option(metavar="KEY", envvar="VLLM_API_KEY", help="vLLM's, if it has one."),
]


def _parse_action(name: str) -> Action:
    for action in ACTIONS:
        if name == action:
            return action
    raise typer.BadParameter(f"{name} is none of {', '.join(ACTIONS)}.")


def ctl(
    url: Annotated[str, typer.Argument(metavar="URL", help="Such as http://localhost:8000.")],
    action: Annotated[
        Action, typer.Argument(parser=_parse_action, metavar="|".join(ACTIONS), help="What to do.")
    ],
    wait: Annotated[
        float, typer.Option(metavar="SECONDS", min=0, help="For what comes of it; 0: do not.")
    ] = 60.0,
    api_key: Key = None,
) -> None:
    """Hold or resume EPLB of a running server, let it rearrange, or say what it would move.

    Exit code 0: done; 1: not, or not well; 2: that cannot be told.
    """
    try:
        ordered = order(ServerClient(url, api_key), action, wait)
    except ServerError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(UNKNOWN) from error
    for line in ordered.lines:
        typer.echo(line)
    raise typer.Exit(ordered.exit_code)


def status(
    where: Annotated[
        str,
        typer.Argument(
            metavar="URL|FOLDER",
            help=f"A server; where it does not answer, the folder that {FOLDER_VARIABLE} names in "
            "the environment of its processes.",
        ),
    ],
    api_key: Key = None,
) -> None:
    """Say how EPLB of a running server is; exit code 0: well, 1: not, 2: that cannot be told."""
    try:
        condition = _of_server(ServerClient(where, api_key)) if "://" in where else _of(Path(where))
    except ServerError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(UNKNOWN) from error
    typer.echo(condition.text)
    raise typer.Exit(WRONG if condition.wrong else 0)


def _of(folder: Path) -> Condition:
    if statuses := list(read_statuses(folder)):
        return condition_of(statuses, time.time())
    raise ServerError(f"no rank has said in {folder} how it is (a server begins with http://)")


def _of_server(server: ServerClient) -> Condition:
    answer = server("/eplb/status")
    if answer.status == 200:
        told = answer.json()
        if told["ranks"]:
            return condition_of(map(status_of, told["ranks"]), told["time"])
    page = server("/metrics")
    condition = condition_by_metrics(page.text) if page.status == 200 else None
    if condition is not None:
        return condition
    raise ServerError(
        f"{server.url} tells nothing of EPLB, on /eplb/status (HTTP {answer.status}: "
        f"{answer.reason}) or on /metrics (HTTP {page.status}): it is not asked for there "
        "(--enable-eplb), its plugin is turned off, it has served nothing since it started, or its "
        "ranks are on other hosts"
    )
