# SPDX-License-Identifier: Apache-2.0
"""The terms of an MoE layer's output, added in float64 and kept until the ranks' sums are added.

A term is what one expert gives for one token, times the router's weight, rounded to the model's
dtype by the kernel that computed it. Which terms a rank has depends on the placement; what they add
up to must not. vLLM rounds each rank's sum before it adds those of other ranks, so an expert that
moves changes what is rounded together. Sums of terms of 8 bits (bfloat16) or 11 (float16) are exact
in float64 unless their magnitudes spread over 40 bits.
"""

import threading

import torch


class CombineError(RuntimeError):
    """The experts of a layer gave no terms; the message says what to do."""


class _Kept(threading.local):
    # Of its own in every thread: with dual batch overlap two run through a layer at a time.
    total: torch.Tensor | None = None


_kept = _Kept()


def keep_sum(terms: torch.Tensor, is_here: torch.Tensor | None = None) -> torch.Tensor:
    """Add the terms of each token that this rank has, and keep the sum for `take_sum`.

    Args:
        terms: ``[tokens, top_k, hidden]``.
        is_here: ``[tokens, top_k]`` bool; where it is False ``terms`` has anything at all. None:
            terms of experts elsewhere are 0.

    Returns:
        ``[tokens, hidden]``, float64.
    """
    total = terms.new_zeros((terms.shape[0], terms.shape[2]), dtype=torch.float64)
    # One choice after another: all of them in float64 would take four times the terms' memory.
    for choice in range(terms.shape[1]):
        term = terms[:, choice]
        if is_here is not None:
            term = term.masked_fill(~is_here[:, choice, None], 0.0)
        total += term
    _kept.total = total
    return total


def take_sum(rows: int) -> torch.Tensor:
    """Hand out what this thread kept last, once.

    Args:
        rows: Tokens of the layer.

    Raises:
        CombineError: Nothing was kept since, or of another number of tokens.
    """
    total, _kept.total = _kept.total, None
    if total is None or total.shape[0] != rows:
        raise CombineError(
            "exact_combine: vLLM computes the experts of this model with a kernel that does not "
            "show the terms of its sums. On a GPU set VLLM_BATCH_INVARIANT=1, which chooses one "
            "that does, or leave exact_combine out"
        )
    return total
