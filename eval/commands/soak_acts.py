# SPDX-License-Identifier: Apache-2.0
"""What happens to a server that is soaked, and what it has to be started with for that."""

import asyncio
import os
import random
import signal
from collections.abc import Mapping
from pathlib import Path

import httpx

from eval.config.schema import Config
from eval.load.completions import new_client
from eval.load.soak import Act
from eval.serving.ranks import rank_process
from eval.serving.served_arm import ServedArm

_EXTENSION = "eval.serving.kept_experts.KeptExperts"
_ROOT = Path(__file__).parents[2]
_SHOWN = 200
_STOPPED_SECONDS = (1.0, 8.0)

_SMALL_BLOCKS_ARE_GIVEN_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "2"}
"""Of glibc: else its heaps grow with the lengths of requests, and a leak could not be seen."""


def with_reloads(config: Config) -> Config:
    """Let the server's workers keep their experts, and reload them when asked over HTTP."""
    path = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
    environment = {
        **_SMALL_BLOCKS_ARE_GIVEN_BACK,
        **config.serve.environment,
        "VLLM_SERVER_DEV_MODE": "1",
        "PYTHONPATH": path,
    }
    options = {**config.serve.options, "worker-extension-cls": _EXTENSION}
    serve = config.serve.model_copy(update={"environment": environment, "options": options})
    return config.model_copy(update={"serve": serve})


def keep_experts(one: ServedArm) -> bool:
    """Let the workers keep their experts, before any has moved; False: they have none."""
    answer = httpx.post(
        f"{one.server.url}/collective_rpc",
        json={"method": "keep_experts"},
        headers=one.server.headers,
        timeout=60,
        trust_env=False,
    )
    return answer.is_success and '"0"' not in answer.text


def acts_on(one: ServedArm, ranks: int, reloads: bool) -> Mapping[str, Act]:
    """Find what can be done to a server at random times, by name."""
    acts: dict[str, Act] = {"rank stopped": _stopping(one, ranks)}
    if reloads:
        acts["reload"] = _reloading(one)
    return acts


def _stopping(one: ServedArm, ranks: int) -> Act:
    async def stop(choose: random.Random) -> str:
        rank = choose.randrange(ranks)
        process = rank_process(one.server.session, rank)
        os.kill(process, signal.SIGSTOP)
        try:
            await asyncio.sleep(choose.uniform(*_STOPPED_SECONDS))
        finally:
            os.kill(process, signal.SIGCONT)
        return f"EP rank {rank}"

    return stop


def _reloading(one: ServedArm) -> Act:
    async def reload(_: random.Random) -> str:
        async with new_client(one.server.url, one.server.headers, timeout=120) as client:
            try:
                answer = await client.post("/collective_rpc", json={"method": "reload_experts"})
            except httpx.HTTPError as error:
                return f"{type(error).__name__}: {error}"
        return "" if answer.is_success else answer.text[:_SHOWN]

    return reload
