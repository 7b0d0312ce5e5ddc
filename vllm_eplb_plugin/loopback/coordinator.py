# SPDX-License-Identifier: Apache-2.0
"""The process between a server's front end and its ranks, started without a new interpreter."""

import multiprocessing
from collections.abc import Callable
from typing import Any

from vllm_eplb_plugin.overrides.override import Override


def _override_get_mp_context(_: Callable[[], Any]) -> Callable[[], Any]:
    def get_mp_context() -> Any:
        # It uses zmq only: nothing that a fork of the front end would break.
        return multiprocessing.get_context("fork")

    return get_mp_context


FORK_COORDINATOR = Override(
    # Only this module's name: ranks are still processes with an interpreter of their own.
    target="vllm.v1.engine.coordinator:get_mp_context",
    signature="()",
    kind="replace",
    replace=_override_get_mp_context,
    fixes="With several ranks vLLM starts a coordinator, waits until that process has imported "
    "vLLM again, and starts the ranks only then: 11 s of 45 s on one machine with an H100.",
    delete_when="vLLM starts the ranks without waiting for the coordinator.",
)
