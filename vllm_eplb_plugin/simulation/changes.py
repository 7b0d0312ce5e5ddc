# SPDX-License-Identifier: Apache-2.0
"""Where a recording changes from one domain to another, and how long that is felt."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from vllm_eplb_plugin.planning.problem import Floats
from vllm_eplb_plugin.planning.triggers import changed_share
from vllm_eplb_plugin.recording.recording import Recording

BALANCED = 0.95
"""Balancedness from which a domain counts as served well."""

CHANGED = 0.15
"""Part of the load that is on other experts than in the window before: another domain."""


def changed_shares(recording: Recording) -> Floats:
    """``[windows]``: which part of each window's load is on other experts than in the one before,
    beyond what is chance (`planning.triggers.changed_share`); 0 for the first."""
    loads = [window.load.astype(np.float64) for window in recording.windows]
    return np.array([0.0, *(changed_share(after, before) for before, after in pairwise(loads))])


def changes_of(shares: Floats, threshold: float = CHANGED) -> list[int]:
    """Find the windows with which another domain begins.

    Windows that change one after another are one change: a window may hold the end of one domain
    and the beginning of the next.

    Args:
        shares: See `changed_shares`.
        threshold: The share above which a window is of another domain.
    """
    changed = shares > threshold
    return [at for at in range(1, len(changed)) if changed[at] and not changed[at - 1]]


def windows_until_balanced(
    balancedness: Floats, changes: Sequence[int], enough: float = BALANCED
) -> list[int | None]:
    """For each change count windows from it on that are not balanced enough.

    Args:
        balancedness: ``[windows]`` as served; NaN where nothing was.
        changes: See `changes_of`.
        enough: What counts as balanced.

    Returns:
        None: the next change, or the end, came before one was.
    """
    found: list[int | None] = []
    for first, end in pairwise([*changes, len(balancedness)]):
        good = np.flatnonzero(balancedness[first:end] >= enough)
        found.append(int(good[0]) if len(good) else None)
    return found
