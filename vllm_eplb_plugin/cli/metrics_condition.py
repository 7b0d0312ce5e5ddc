# SPDX-License-Identifier: Apache-2.0
"""How EPLB is by what stands on /metrics, where no more is told."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from vllm_eplb_plugin.cli.condition import SILENT_SECONDS, Condition

_SAMPLE = re.compile(r"vllm:eplb_(\w+?)\{(.*)\} (\S+)")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_FIGURES = (
    ("under way (1: yes)", "rebalancing"),
    ("for seconds", "rearrangement_age_seconds"),
    ("layers left", "layers_left"),
    ("steps to the next", "steps_to_next_rearrangement"),
    ("the last took seconds", "rearrangement_seconds"),
    ("balancedness, mean", "balancedness_avg"),
    ("worst layer", "balancedness_min"),
    ("expected", "balancedness_expected"),
    ("stalls so far", "stalls_total"),
    ("events dropped", "events_dropped_total"),
)


@dataclass(frozen=True)
class _Sample:
    name: str
    labels: dict[str, str]
    value: float


def condition_by_metrics(text: str) -> Condition | None:
    """Read a page in Prometheus' text format; None: nothing of EPLB stands on it."""
    samples = list(_samples(text))
    if not samples:
        return None
    condition = Condition()
    condition.wrong += _wrong(samples)
    condition.lines += _lines(samples)
    return condition


def _samples(text: str) -> Iterator[_Sample]:
    for match in map(_SAMPLE.match, text.splitlines()):
        if match is not None:
            name, labels, value = match.groups()
            yield _Sample(name, dict(_LABEL.findall(labels)), float(value))


def _wrong(samples: list[_Sample]) -> Iterator[str]:
    for sample in samples:
        labels = sample.labels
        if sample.name == "state" and labels.get("state") == "off" and sample.value:
            yield f"EPLB is off: {labels.get('reason', '')}"
        if sample.name == "stalled_seconds":
            layer = f" of layer {labels['layer']}" if labels.get("layer") else ""
            doing = f"{labels.get('thread')}, {labels.get('phase')}{layer}"
            yield f"EP rank {labels.get('rank')} stands still: {doing}, for {sample.value:.0f} s"
        if sample.name == "rank_age_seconds" and sample.value > SILENT_SECONDS:
            yield f"EP rank {labels.get('rank')} has said nothing for {sample.value:.0f} s"


def _lines(samples: list[_Sample]) -> Iterator[str]:
    states = [one.labels.get("state", "") for one in samples if one.name == "state" and one.value]
    yield f"EPLB: {', '.join(states) or 'not told'}"
    policies = dict.fromkeys(
        one.labels.get("policy", "") for one in samples if one.name == "policy"
    )
    yield f"policy: {', '.join(policies) or 'not told'}"
    outcomes: dict[str, float] = {}
    for one in samples:
        if one.name == "rearrangements_total":
            outcome = one.labels.get("outcome", "")
            outcomes[outcome] = outcomes.get(outcome, 0) + one.value
    told = ", ".join(f"{number:.0f} {name}" for name, number in outcomes.items() if number)
    yield f"rearrangements: {told or 'none'}"
    for text, name in _FIGURES:
        if values := [f"{one.value:.4g}" for one in samples if one.name == name]:
            yield f"{text}: {', '.join(values)}"
    survivable = [
        one.labels.get("rank", "") for one in samples if one.name == "rank_survivable" and one.value
    ]
    if any(one.name == "rank_survivable" for one in samples):
        ranks = ", ".join(survivable) or "none"
        yield f"EP ranks whose death every expert would survive: {ranks}"
