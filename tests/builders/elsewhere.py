# SPDX-License-Identifier: Apache-2.0
"""Servers that run elsewhere: stand-ins for vLLM that a test starts, and the harness only asks."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import httpx

from eval.serving.server import choose_port
from tests.builders.harness import FAKE_VLLM, small_config

EPLB = {"window_size": 10, "step_interval": 10, "num_redundant_experts": 4}


class Running(NamedTuple):
    """One of them."""

    url: str
    process: "subprocess.Popen[bytes]"


@contextmanager
def running(
    folder: Path,
    name: str,
    model: str = "someone/some-moe",
    plugin: Any = None,
    names: Sequence[str] = (),
    port: int | None = None,
    **behaviour: Any,
) -> Iterator[Running]:
    """A server that runs inside, with the EPLB that its name says; it writes its events."""
    settings = {"events_dir": str(folder / "events" / name), **(plugin or {})}
    command = [sys.executable, str(FAKE_VLLM), "serve", model]
    command += ["--additional-config", json.dumps({"eplb_plugin": settings})]
    if name != "off":
        eplb = {**EPLB, "use_async": name.startswith("async")}
        command += ["--enable-eplb", "--eplb-config", json.dumps(eplb)]
    command += ["--served-model-name", *names] if names else []
    environment = {**os.environ, "FAKE_VLLM": json.dumps({"worker_seconds": "0", **behaviour})}
    with (folder / f"{name}-elsewhere.log").open("wb") as log, ExitStack() as started:
        for _ in range(3):  # again where another process took the port before it listened there
            server = started.enter_context(_started(command, environment, log, choose_port(port)))
            if _gets_healthy(server):
                break
        else:
            raise AssertionError(f"the server ended, see {log.name}")
        yield server


@contextmanager
def _started(
    command: list[str], environment: dict[str, str], log: IO[bytes], port: int
) -> Iterator[Running]:
    command = [*command, "--port", str(port)]
    process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        yield Running(f"http://127.0.0.1:{port}", process)
    finally:
        process.kill()
        process.wait()


def _gets_healthy(server: Running) -> bool:
    """False: it has ended."""
    for _ in range(300):
        if server.process.poll() is not None:
            return False
        try:
            httpx.get(f"{server.url}/health", trust_env=False).raise_for_status()
        except httpx.HTTPError:
            time.sleep(0.1)
        else:
            return True
    raise AssertionError(f"{server.url} does not answer")


@contextmanager
def deployments(folder: Path, *names: str, **of_each: Any) -> Iterator[dict[str, Running]]:
    """Several, by their names; ``of_each`` has the behaviour of one, or one for all."""
    shared = {key: value for key, value in of_each.items() if key not in names}
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(running(folder, name, **{**shared, **of_each.get(name, {})}))
            for name in names
        }


def url_config(servers: dict[str, Running], events: Path | None = None,
               **changes: Any) -> dict[str, Any]:  # fmt: skip
    """`small_config`, judged over url only; ``events`` is the folder of those of all servers."""
    arms: list[dict[str, Any]] = []
    for name, server in servers.items():
        arm: dict[str, Any] = {"name": name, "url": server.url}
        if name != "off":
            arm["eplb"] = {**EPLB, "use_async": name.startswith("async")}
            arm |= {} if events is None else {"events": str(events / name)}
        arms.append(arm)
    serve = {"executable": None, "options": {"data-parallel-size": 2}}
    return small_config(**{"arms": arms, "serve": serve, **changes})
