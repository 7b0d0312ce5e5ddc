# SPDX-License-Identifier: Apache-2.0
"""Loads made from a seed: log-normal popularity of experts, which drifts or changes at once."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from vllm_eplb_plugin.bench.loads.drawn import TOKENS, Run, draw_all
from vllm_eplb_plugin.planning.problem import Floats

DRIFTS = {"stationary": 1.0, "slow": 0.99, "medium": 0.95, "half": 0.5, "switch": 0.0}
"""How much of the log-popularity of one window is that of the next; the rest is new."""

SIGMA = 0.6
"""Of the log-popularity. DeepSeek's published counts have about that; the layers of OLMoE run from
0.3 to 1.8."""

_SPREAD = 0.4
"""Each layer has a sigma of its own, up to so much of `SIGMA` away from it."""


@dataclass(frozen=True)
class Drift:
    """An AR(1) of the log-popularity from window to window, of which counts are drawn."""

    rho: float
    sigma: float = SIGMA
    tokens: int = TOKENS


def synthetic_run(drift: Drift, layers: int, experts: int, plans: int, seed: int) -> Run:
    """Make the windows of one run: a first one, one to plan each time and one more to serve; then
    as many of another domain, which stays as it is."""
    random = np.random.default_rng(seed)
    sigmas = _sigmas(drift.sigma, layers, random)
    steps = _drifting(drift.rho, (layers, experts), random)
    popularities = [np.exp(sigmas * next(steps)) for _ in range(plans + 2)]
    windows = draw_all(popularities, drift.tokens, random)
    other = np.exp(sigmas * random.normal(size=(layers, experts)))
    changed = draw_all([other] * (plans + 1), drift.tokens, random)
    return Run(windows[0], windows[1:-1], windows[2:], changed)


def drifting_parts(
    drift: Drift, layers: int, experts: int, windows: int, parts: int, seed: int
) -> Floats:
    """Make windows in parts, ``[windows * parts, layers, logical]``: over each window the load
    drifts as it does in `synthetic_run`, a little from part to part."""
    random = np.random.default_rng(seed)
    sigmas = _sigmas(drift.sigma, layers, random)
    steps = _drifting(drift.rho ** (1 / parts), (layers, experts), random)
    popularities = [np.exp(sigmas * next(steps)) for _ in range(windows * parts)]
    return draw_all(popularities, drift.tokens // parts, random)


def _sigmas(sigma: float, layers: int, random: np.random.Generator) -> Floats:
    return sigma * (1 + _SPREAD * (2 * random.random((layers, 1)) - 1))


def _drifting(rho: float, shape: tuple[int, int], random: np.random.Generator) -> Iterator[Floats]:
    state = random.normal(size=shape)
    while True:
        yield state
        state = rho * state + np.sqrt(1 - rho * rho) * random.normal(size=shape)
