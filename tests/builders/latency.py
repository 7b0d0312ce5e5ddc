# SPDX-License-Identifier: Apache-2.0
"""Made-up latency runs."""

from datetime import datetime, timezone
from pathlib import Path

from eval.commands.latency_setup import CHECKED, ArmName, Checks, Setup, Switching, latency_config
from eval.results.latency import Distribution, LatencyTimes, LatencyWorkload, LoadName, ModelShape
from eval.results.schema import ArmResult, Result
from eval.results.surroundings import Machine
from tests.builders.arms import VERSIONS

_FACTORS = {
    "off": (1, None),
    "stock-sync": (2, 300),
    "sync": (2, 200),
    "stock-async": (3, 40),
    "async": (1.05, 2),
}
"""Of times between tokens, and of those in the state manager."""


def distribution(factor: float, count: int = 100) -> Distribution:
    """From ``factor`` to a hundred times as many milliseconds."""
    times = [factor * number / 1000 for number in range(1, count + 1)]
    found = Distribution.of(times)
    assert found is not None
    return found


def latency_result(
    *names: str,
    loopback: bool = True,
    most_p99: float | None = None,
    times: float | None = None,
    count: int = 100,
    load: LoadName = "steady",
    checks: Checks = Checks.none,
) -> Result:
    """All arms, or those named; ``times`` is for how many times as long ``async`` takes."""
    chosen = names or tuple(_FACTORS)
    gpus = () if loopback else ("0", "1")
    switching = None if load == "steady" else Switching(completions=4, turn=2, most_seconds=None)
    setup = Setup(
        *("vllm", Path("model"), ModelShape(), gpus, False, 2, 100),
        switching=switching,
        checks=checks,
    )
    config = latency_config("latency", setup, [ArmName(name) for name in chosen], Path("arms"))

    def arm(name: str) -> ArmResult:
        factor, steps = _FACTORS.get(name.removesuffix(CHECKED), (1.0, None))
        if times is not None and name == "async":
            factor = times
        return ArmResult(
            name=name,
            tasks=[],
            start_seconds=1,
            asked_from=0,
            asked_until=1,
            logged_rearrangements=0 if name in ("off", "balanced") else 3,
            seconds=1,
            tokens_per_second=200,
            command=["vllm", "serve", "model"],
            log="server.log",
            latency=LatencyTimes(
                rearranging_steps=1,
                state_manager=None if steps is None else distribution(steps),
                between_tokens=distribution(factor, count),
                slow=0.01,
                gpu_memory_mib=None if loopback else 700,
                completions=[100, 100] * (1 if switching is None else 2),
            ),
        )

    return Result(
        kind="latency",
        name="latency",
        verdict="passed",
        reasons=[],
        started=datetime(2026, 1, 1, tzinfo=timezone.utc),
        finished=datetime(2026, 1, 1, tzinfo=timezone.utc),
        versions=VERSIONS,
        machine=Machine(processor="p", accelerators=[], cores=1, memory_gib=1),
        config=config,
        config_sha256=config.sha256(),
        latency=LatencyWorkload(
            shape=setup.shape,
            streams=2,
            tokens=100,
            loopback=loopback,
            gpus=len(gpus),
            servers_at_once=1,
            load=load,
            completions=switching.completions if switching else None,
            turn=switching.turn if switching else None,
            most_p99=most_p99,
        ),
        arms=[arm(one.name) for one in config.arms if one.name in chosen or CHECKED in one.name],
    )
