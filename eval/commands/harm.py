# SPDX-License-Identifier: Apache-2.0
"""What the harness does to a server from outside, and what a fault from inside is ordered with."""

import os
import signal
import time
from collections.abc import Callable

from pydantic import JsonValue

from eval.config.faults import PROMISES, FaultName
from eval.config.schema import Arm, Config
from eval.errors import ConfigError
from eval.serving.ranks import rank_process
from eval.serving.served_arm import ServedArm
from eval.serving.small_disk import filled

RANK = 1
"""That is broken."""
_WARN_SECONDS, _GIVE_UP_SECONDS = 3.0, 12.0
_REARRANGEMENT = 50
"""In which a fault strikes: the same questions have been answered once by then."""


def with_fault(config: Config, arm: Arm, fault: FaultName, seconds: float | None) -> Arm:
    """Order a fault in the settings of an arm, and short limits for its watch, unless it has any.

    Raises:
        ConfigError: It cannot strike there.
    """
    promise = PROMISES[fault]
    if arm.eplb is None or config.is_stock(arm):
        raise ConfigError(f"--fault {fault}: arm {arm.name} has no EPLB of the plugin")
    if promise.needs_worker and not arm.eplb.use_async:
        raise ConfigError(f"--fault {fault}: arm {arm.name} has no async worker: take another one")
    given = config.plugin_settings(arm) or {}
    watch: dict[str, JsonValue] = {
        "warn_after_s": _WARN_SECONDS,
        "give_up_after_s": _GIVE_UP_SECONDS,
    }
    settings: dict[str, JsonValue] = {"watch": watch, **given}
    if not promise.from_outside:
        when: dict[str, JsonValue] = {
            "rank": RANK,
            "rearrangement": _REARRANGEMENT,
            "seconds": seconds or promise.seconds,
        }
        settings = {"fault_when": when, **settings, "fault": fault}
    return arm.model_copy(update={"plugin": settings})


def harm_of(fault: FaultName, one: ServedArm, seconds: float | None) -> Callable[[], None]:
    """Find what does the harm; of a fault from inside, nothing does."""
    lasts = seconds or PROMISES[fault].seconds

    def stop_rank() -> None:
        process = rank_process(one.server.session, RANK)
        os.kill(process, signal.SIGSTOP)
        try:
            time.sleep(lasts)
        finally:
            os.kill(process, signal.SIGCONT)

    def kill_rank() -> None:
        os.kill(rank_process(one.server.session, RANK), signal.SIGKILL)

    def kill_front_end() -> None:
        os.kill(one.server.pid, signal.SIGKILL)

    def fill_disk() -> None:
        with filled(one.events):
            time.sleep(lasts)

    from_outside: dict[FaultName, Callable[[], None]] = {
        "rank_stopped": stop_rank,
        "rank_killed": kill_rank,
        "front_end_killed": kill_front_end,
        "events_disk_full": fill_disk,
    }
    return from_outside.get(fault, lambda: None)
