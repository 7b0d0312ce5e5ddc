# SPDX-License-Identifier: Apache-2.0
"""Loads that somebody recorded: how often a router chose each expert, by domain of the text."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vllm_eplb_plugin.bench.loads.drawn import Run, draw, draw_all
from vllm_eplb_plugin.bench.result import BenchError
from vllm_eplb_plugin.planning.problem import Floats


@dataclass(frozen=True)
class Recording:
    """A recording holds the counts of one model."""

    model: str
    domains: dict[str, Floats]
    """``[layers, logical]`` of each."""

    @property
    def layers(self) -> int:
        return len(next(iter(self.domains.values())))

    @property
    def experts(self) -> int:
        """Logical experts of a layer."""
        return int(next(iter(self.domains.values())).shape[1])


def read_recordings(folder: Path) -> list[Recording]:
    """Read each ``*.json`` of a folder that has ``counts``: ``{DOMAIN: [layers][logical]}``.

    Raises:
        BenchError: There is none, or one of another form.
    """
    if not folder.is_dir():
        raise BenchError(f"there is no folder {folder} with recorded loads")
    found = []
    for file in sorted(folder.glob("*.json")):
        try:
            written = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise BenchError(f"{file} is no JSON: {error}") from error
        if isinstance(written, dict) and "counts" in written:
            found.append(_recording(file, written))
    if not found:
        raise BenchError(f'no *.json in {folder} has "counts": {{DOMAIN: [layers][experts]}}')
    return found


def _recording(file: Path, written: dict[str, object]) -> Recording:
    counts = written["counts"]
    try:
        domains = {name: np.array(rows, np.float64) for name, rows in counts.items()}  # type: ignore[attr-defined]
        shapes = {domain.shape for domain in domains.values()}
        [(_, _)] = shapes
        if any(not (domain > 0).any(axis=1).all() for domain in domains.values()):
            raise ValueError("a layer without load")
    except (AttributeError, TypeError, ValueError) as error:
        raise BenchError(
            f'{file}: "counts" are not {{DOMAIN: [layers][experts]}}, all of one shape: {error}'
        ) from error
    return Recording(str(written.get("model", file.stem)), domains)


def own_domain(recording: Recording, plans: int, tokens: int, seed: int) -> list[Run]:
    """Plan from and serve the same domain, each in turn; then another one comes."""
    random = np.random.default_rng(seed)
    domains = list(recording.domains.values())
    runs = []
    for domain, other in zip(domains, [*domains[1:], domains[0]], strict=True):
        windows = draw_all([domain] * (plans + 2), tokens, random)
        changed = draw_all([other] * (plans + 1), tokens, random)
        runs.append(Run(windows[0], windows[1:-1], windows[2:], changed))
    return runs


def another_domain(recording: Recording, plans: int, tokens: int, seed: int) -> list[Run]:
    """Serve another domain than was planned from: all pairs."""
    random = np.random.default_rng(seed)
    domains = list(recording.domains.values())
    planned = draw_all(domains * (len(domains) - 1), tokens, random)
    others = [
        domains[(place + distance) % len(domains)]
        for distance in range(1, len(domains))
        for place in range(len(domains))
    ]
    served = draw_all(others, tokens, random)
    changed = draw_all([domains[0]] * (plans + 1), tokens, random)
    return [Run(draw(domains[0], tokens, random), planned, served, changed)]


def mixed_domains(recording: Recording, plans: int, tokens: int, seed: int) -> list[Run]:
    """Plan from a mix of all domains in equal parts, and serve each of them alone."""
    random = np.random.default_rng(seed)
    domains = list(recording.domains.values())
    mix = np.mean([one / one.sum(axis=1, keepdims=True) for one in domains], axis=0)
    planned = draw_all([mix] * len(domains), tokens, random)
    changed = draw_all([domains[0]] * (plans + 1), tokens, random)
    served = draw_all(domains, tokens, random)
    return [Run(draw(mix, tokens, random), planned, served, changed)]


def domains_in_turn(
    recording: Recording, windows: int, before: int, tokens: int, seed: int
) -> Floats:
    """Draw so many windows of each domain, one domain after another, and of the first one some
    before, ``[windows, layers, logical]``."""
    random = np.random.default_rng(seed)
    domains = list(recording.domains.values())
    order = [domain for domain in domains for _ in range(windows)]
    return draw_all([domains[0]] * before + order, tokens, random)
