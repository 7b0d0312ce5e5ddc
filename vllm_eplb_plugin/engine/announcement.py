# SPDX-License-Identifier: Apache-2.0
"""The one line of the log that says what is on."""

import functools
import logging
import sys
from typing import Any

from vllm_eplb_plugin.compatibility import Support, installed_support
from vllm_eplb_plugin.engine.policy_words import policy_in_words
from vllm_eplb_plugin.engine.session import ModelSession, Session
from vllm_eplb_plugin.settings import Settings

logger = logging.getLogger("vllm.eplb_plugin")


def announce(
    session: Session, model: ModelSession, is_async: bool, transfer: str, tried: str | None
) -> None:
    """Say it in the log of this process: once, and again only if it has changed.

    Args:
        session: One that has its policy.
        model: One of its models, committed once.
        is_async: Whether vLLM's async worker plans and transfers.
        transfer: See `transfer_choice.choose_transfer`.
        tried: See `self_test.run_self_test`.
    """
    mode = "async" if is_async else "sync"
    commits, policy, settings = model.committer.way, session.policy, session.settings
    support = installed_support()
    _say_once(describe(support, tried, mode, policy, transfer, commits, settings))


def describe(
    support: Support,
    tried: str | None,
    mode: str,
    policy: Any,
    transfer: str,
    commits: str,
    settings: Settings,
) -> str:
    """Describe what is on, in one line; the switch interval is that of this process."""
    by = policy_in_words(policy)
    untested = "" if support.tested else f" (untested, overridden as {support.release}, {tried})"
    checked = "placements before weights move"
    if settings.check_weights:
        checked += ", weights and router maps after every commit"
    events = "not written" if settings.events_dir is None else f"to {settings.events_dir}"
    recorded = "" if settings.recording is None else f"; recording: to {settings.recording.dir}"
    planning, begins = settings.planning, ""
    if planning is not None and planning.initial is not None:
        then = ", and for good" if planning.rearrange == "never" else ""
        begins = f"experts: at first as {planning.initial.path} says{then}; "
    return (
        f"EPLB is vllm-eplb-plugin's: vLLM {support.installed}{untested}, {mode} mode; policy: "
        f"{by}; {begins}weights: {transfer}; commits: {commits}; checked: {checked}; events: "
        f"{events}{recorded}; switch interval: {sys.getswitchinterval() * 1000:g} ms."
    )


@functools.cache
def _say_once(line: str) -> None:
    logger.info("%s", line)
