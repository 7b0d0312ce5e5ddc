# SPDX-License-Identifier: Apache-2.0
"""Give a running server a command, and wait until its ranks have carried it out."""

import time
from dataclasses import dataclass, field

from vllm_eplb_plugin.cli.server_client import ServerClient, ServerError
from vllm_eplb_plugin.observe.commands import Action, CommandStatus
from vllm_eplb_plugin.observe.status import RankStatus, status_of

_BETWEEN_LOOKS_SECONDS = 0.5
_NOT_WELL = (": failed", ": stalled", ": rejected", "not begun")


@dataclass
class Ordered:
    """What came of a command."""

    lines: list[str] = field(default_factory=list)
    exit_code: int = 0
    """1: it was not carried out well, or not at all; 2: that cannot be told."""


def order(server: ServerClient, action: Action, seconds: float) -> Ordered:
    """Give a command, and wait for what comes of it; 0 seconds: for nothing.

    Raises:
        ServerError: The server does not answer, or does not do it.
    """
    answer = server(f"/eplb/{action}", "POST")
    if answer.status == 404:
        raise ServerError(
            f"{server.url} has no /eplb: start it with --enable-eplb and --additional-config "
            '\'{"eplb_plugin": {"control": true}}\', on every node'
        )
    if answer.status != 202:
        raise ServerError(f"{action} is not carried out (HTTP {answer.status}): {answer.reason}")
    told = answer.json()
    ordered = Ordered([f"{action}: {told['when']}"])
    if seconds > 0:
        _wait(server, told["number"], seconds, ordered)
    return ordered


def _wait(server: ServerClient, number: int, seconds: float, ordered: Ordered) -> None:
    deadline = time.monotonic() + seconds
    while True:
        ranks = statuses(server)
        if _tell(ranks, number, ordered):
            return
        if time.monotonic() > deadline:
            ordered.exit_code = 2
            ordered.lines.append(_waited(ranks, number, seconds))
            return
        time.sleep(_BETWEEN_LOOKS_SECONDS)


def statuses(server: ServerClient) -> list[RankStatus]:
    """Ask how the ranks of the server's host are.

    Raises:
        ServerError: It does not say.
    """
    answer = server("/eplb/status")
    if answer.status != 200:
        raise ServerError(f"{server.url}/eplb/status (HTTP {answer.status}): {answer.reason}")
    return [status_of(rank) for rank in answer.json()["ranks"]]


def _tell(ranks: list[RankStatus], number: int, ordered: Ordered) -> bool:
    """Say what came of a command, if all ranks of the host are through with it."""
    off = [rank.why for rank in ranks if rank.state == "off"]
    if off:
        ordered.exit_code = 1
        ordered.lines.append(f"EPLB is off until the server starts again: {off[0]}")
        return True
    found = [_find(rank, number) for rank in ranks]
    if not ranks or not all(one is not None and one.ended for one in found):
        return _is_superseded(ranks, number, ordered)
    # EP rank 0 of each stage stands for its others.
    for rank, one in zip(ranks, found, strict=True):
        if one is not None and rank.rank == min(other.rank for other in ranks):
            ordered.lines.append(f"carried out in step {one.step} by {len(ranks)} ranks")
            ordered.lines += one.outcomes
            if any(word in outcome for word in _NOT_WELL for outcome in one.outcomes):
                ordered.exit_code = 1
    return True


def _find(rank: RankStatus, number: int) -> CommandStatus | None:
    return next((one for one in rank.commands if one.number == number), None)


def _is_superseded(ranks: list[RankStatus], number: int, ordered: Ordered) -> bool:
    for rank in ranks:
        newer = [one for one in rank.commands if one.number > number]
        if newer and _find(rank, number) is None:
            ordered.exit_code = 1
            ordered.lines.append(f"not carried out: {newer[0].action} came after it")
            return True
    return False


def _waited(ranks: list[RankStatus], number: int, seconds: float) -> str:
    if not ranks:
        return "its ranks do not say how they are: what came of it stands in their log and events"
    begun = [one for rank in ranks if (one := _find(rank, number)) is not None]
    if not begun:
        return (
            f"not carried out in {seconds:g} s, and still to come: ranks make no steps without "
            "requests, or one stands still (vllm-eplb status)"
        )
    what = (
        "under way"
        if any(one.rearrangement for one in begun)
        else (
            "to begin once none is under way and the load window is that of the placement in force"
        )
    )
    return f"carried out in step {begun[0].step}; its rearrangement is {what} after {seconds:g} s"
