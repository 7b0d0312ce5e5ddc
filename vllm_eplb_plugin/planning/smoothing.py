# SPDX-License-Identifier: Apache-2.0
"""Loads of earlier windows count, too, where a window alone has too few tokens to tell."""

from dataclasses import dataclass

import numpy as np

from vllm_eplb_plugin.planning.problem import Floats


@dataclass
class Smoothing:
    """A smoothing is what is remembered of one model's earlier windows."""

    weight: float
    """What all earlier windows together weigh, above 0 and below 1."""
    max_tokens: int
    """A window with more tokens a layer is used as it is: then drift does more harm than chance."""
    _before: Floats | None = None
    """``[layers, logical]``: shares of the load, each layer's sum 1 or 0."""

    def forget(self) -> None:
        """Forget earlier windows: the load is another one."""
        self._before = None

    def smooth(self, load: Floats) -> Floats:
        """Take one more window; return what to plan from, as many tokens as it has.

        Args:
            load: ``[layers, logical]``, tokens of all ranks.
        """
        tokens = load.sum(axis=1, keepdims=True)
        share = np.divide(load, tokens, out=np.zeros_like(load), where=tokens > 0)
        if self._before is not None and tokens.max(initial=0) <= self.max_tokens:
            known = self._before.sum(axis=1, keepdims=True) > 0
            mixed = self.weight * self._before + (1 - self.weight) * share
            share = np.where(known & (tokens > 0), mixed, share)
        self._before = np.where(tokens > 0, share, 0.0 if self._before is None else self._before)
        smooth: Floats = share * tokens
        return smooth
