# SPDX-License-Identifier: Apache-2.0
"""The routes under /eplb of an API server (docs/control.md)."""

import asyncio
import hashlib
import os
import secrets
import time
from dataclasses import asdict
from http import HTTPStatus
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Depends, HTTPException, Request

from vllm_eplb_plugin.observe.commands import STEPS_BETWEEN, STEPS_LATER, Action, Command
from vllm_eplb_plugin.observe.status import FOLDER_VARIABLE, read_statuses

_LIMIT_SECONDS = 5.0
"""For engines to note a command, which each does between two steps."""
_ATTEMPTS = 3
"""To give a command a number that is newer than those the ranks know."""

_NOT_ALLOWED = (
    "EPLB takes no commands here, because its ranks do not ask each other for any. Start the "
    'server, on every node, with --additional-config \'{"eplb_plugin": {"control": true}}\''
)
_NO_ANSWER = (
    f"Not every engine has answered within {_LIMIT_SECONDS:g} s: one is in a long step, or stands "
    "still. Those that noted the command have it carried out once all make steps. GET /eplb/status "
    "says who stands still"
)
_WHEN = (
    f"all ranks carry it out in the same step, within {STEPS_BETWEEN + STEPS_LATER} engine steps; "
    "an idle server makes none"
)


def make_router(is_allowed: bool) -> APIRouter:
    """Make the routes of a server.

    Args:
        is_allowed: Whether its ranks carry out commands; how they are is told in any case.
    """
    router = APIRouter(prefix="/eplb", dependencies=[Depends(_check_key)])

    @router.get("/status")
    def status() -> dict[str, Any]:
        folder = os.environ.get(FOLDER_VARIABLE)
        statuses = [] if folder is None else read_statuses(Path(folder))
        return {"time": time.time(), "control": is_allowed, "ranks": list(map(asdict, statuses))}

    @router.post("/{action}", status_code=HTTPStatus.ACCEPTED)
    async def act(action: Action, request: Request) -> dict[str, Any]:
        if not is_allowed:
            raise HTTPException(HTTPStatus.FORBIDDEN, _NOT_ALLOWED)
        client = getattr(request.app.state, "engine_client", None)
        if client is None:
            raise HTTPException(HTTPStatus.SERVICE_UNAVAILABLE, "This server has no engines yet")
        command = await _give(client, action)
        return {"number": command.number, "action": action, "when": _WHEN}

    return router


async def _give(client: Any, action: Action) -> Command:
    """Let every engine of this API server note a command that is newer than those they know."""
    command = Command(time.time_ns() // 1_000_000, action)
    for _ in range(_ATTEMPTS):
        call = client.collective_rpc("eplb_command", args=(command.number,))
        try:
            # With data parallelism all engines are asked, and the first one's workers answer.
            known = await asyncio.wait_for(call, _LIMIT_SECONDS)
        except asyncio.TimeoutError as error:
            raise HTTPException(HTTPStatus.GATEWAY_TIMEOUT, _NO_ANSWER) from error
        newer = command.after(max(known))
        if newer is command:
            return command
        command = newer
    raise HTTPException(HTTPStatus.CONFLICT, "Others give commands at the same time: try again")


def _check_key(request: Request) -> None:
    """Ask for vLLM's API key, which vLLM itself does only under /v1 and a few other prefixes.

    Raises:
        HTTPException: The server has keys, and the request none of them.
    """
    served = getattr(request.app.state, "args", None)
    keys = [key for key in _keys(served) if key]
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    digest = hashlib.sha256(given.encode()).digest()
    # Each is compared, so that the time tells nothing.
    known = [secrets.compare_digest(digest, hashlib.sha256(key.encode()).digest()) for key in keys]
    if keys and not (scheme.lower() == "bearer" and any(known)):
        raise HTTPException(HTTPStatus.UNAUTHORIZED, "Unauthorized: send vLLM's API key")


def _keys(served: Any) -> list[str | None]:
    """Those of ``--api-key``, which come before the one of the environment."""
    return getattr(served, "api_key", None) or [os.environ.get("VLLM_API_KEY")]
