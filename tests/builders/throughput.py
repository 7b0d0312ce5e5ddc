# SPDX-License-Identifier: Apache-2.0
"""Made-up throughput runs."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from eval.commands.throughput_setup import ThroughputArm, ThroughputSetup, throughput_config
from eval.results.latency import ModelShape
from eval.results.schema import ArmResult, Result
from eval.results.surroundings import Machine
from eval.results.throughput import Measurement, Percentiles, ThroughputWorkload, Traffic
from tests.builders.arms import VERSIONS

DECODE = Traffic(
    name="decode-switching", kind="decode", load="switching", prompt_tokens=16, tokens=32
)
COMPLETIONS = 8


def measurement(number: int, rate: float, **changes: Any) -> Measurement:
    """One round in which so many tokens a second were read and generated."""
    usual = Measurement(
        traffic=DECODE.name,
        round=number,
        group=1,
        asked_from=100.0 * number,
        seconds=10.0,
        prompt_tokens=round(rate * 10 / 3),
        generated_tokens=round(rate * 10) - round(rate * 10 / 3),
        completions=COMPLETIONS,
        whole=COMPLETIONS,
        first_token=Percentiles(count=COMPLETIONS, p50=20, p99=40),
        between_tokens=Percentiles(count=100, p50=5, p99=9),
        asking=0.1,
        logged_rearrangements=0,
    )
    return usual.model_copy(update=changes)


def setup(**changes: Any) -> ThroughputSetup:
    """Two GPUs and the wide shape."""
    usual = ThroughputSetup(
        executable="vllm",
        model=Path("model"),
        shape=ModelShape(),
        redundant=32,
        gpus=("0", "1"),
        graphs=True,
        streams=64,
        traffics=[DECODE],
    )
    return usual._replace(**changes)


def throughput_result(
    rates: Mapping[str, Sequence[float]],
    skew: float = 0.5,
    moved: Sequence[str] = ("stock-async", "async", "async-incremental"),
    repeats: int = 3,
    **workload: Any,
) -> Result:
    """Arms by the tokens a second of their rounds.

    Args:
        rates: Of each arm, round by round.
        skew: Of the router.
        moved: Arms of which vLLM's log tells that rearrangements began.
        repeats: Rounds.
        workload: Other values of what was asked.
    """
    names = [ThroughputArm(name) for name in rates]
    served = setup(initial=Path("loads"))
    config = throughput_config("throughput", served, names, Path("arms"))
    asked = ThroughputWorkload(
        shape=served.shape,
        skew=skew,
        domains=["domain 1", "domain 2"],
        traffics=[DECODE],
        completions=COMPLETIONS,
        streams=64,
        turn=64,
        repeats=repeats,
        ranks=2,
        gpus=2,
        loopback=False,
        servers_at_once=6,
        recorded_by=None,
        most_loss=0.03,
    )
    return Result(
        kind="throughput",
        name="throughput",
        verdict="passed",
        reasons=[],
        started=datetime(2026, 1, 1, tzinfo=timezone.utc),
        finished=datetime(2026, 1, 1, tzinfo=timezone.utc),
        versions=VERSIONS,
        machine=Machine(processor="p", accelerators=[], cores=1, memory_gib=1),
        config=config,
        config_sha256=config.sha256(),
        throughput=asked.model_copy(update=workload),
        arms=[
            ArmResult(
                name=name,
                tasks=[],
                start_seconds=1,
                asked_from=0,
                asked_until=1,
                logged_rearrangements=4 if name in moved else 0,
                seconds=1,
                tokens_per_second=1,
                command=["vllm", "serve", "model"],
                log="server.log",
                throughput=[measurement(number, rate) for number, rate in enumerate(found, 1)],
            )
            for name, found in rates.items()
        ],
    )
