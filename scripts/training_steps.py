# SPDX-License-Identifier: Apache-2.0
"""One step of training, and what a model has learned so far."""

import os
from collections.abc import Iterable
from typing import Any

# Read by cuBLAS when it starts; without it, matrix products may differ from run to run.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import torch
from gsm_tiny_sequences import Example
from torch.nn.functional import cross_entropy
from training_options import Options


def build_optimizer(model: Any, options: Options, fused: bool = False) -> torch.optim.AdamW:
    """AdamW that decays matrices only."""
    matrices = [one for one in model.parameters() if one.dim() > 1]
    others = [one for one in model.parameters() if one.dim() <= 1]
    groups = [
        {"params": matrices, "weight_decay": options.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    # None leaves the choice to torch, False would not.
    return torch.optim.AdamW(
        groups, lr=options.learning_rate, betas=(0.9, 0.95), fused=fused or None
    )


def learning_rate(options: Options, step: int) -> float:
    """Up in a line, then down to 0 along half a cosine."""
    warm = min(1.0, (step + 1) / options.warmup_steps)
    turn = torch.pi * step / options.steps
    return options.learning_rate * warm * 0.5 * (1 + float(torch.tensor(turn).cos()))


def forward(model: Any, tokens: torch.Tensor, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    """Logits, float32 ``[sequences, length, vocabulary]``.

    Args:
        model: With float32 weights.
        tokens: ``[sequences, length]``.
        dtype: What matrix products are computed in.
    """
    if dtype is torch.float32:
        logits: torch.Tensor = model(input_ids=tokens, use_cache=False).logits
        return logits
    with torch.autocast(tokens.device.type, dtype=dtype):
        logits = model(input_ids=tokens, use_cache=False).logits
    return logits.float()


def training_step(
    model: Any,
    optimizer: torch.optim.AdamW,
    rate: float,
    batch: Example,
    dtype: torch.dtype = torch.bfloat16,
) -> torch.Tensor:
    """Do one step, and return its loss without waiting for it."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    logits = forward(model, batch.tokens, dtype)
    loss = cross_entropy(logits.flatten(0, 1), batch.labels.flatten())
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.detach()


@torch.no_grad()
def validate(model: Any, batches: Iterable[Example], dtype: torch.dtype = torch.bfloat16) -> float:
    """Share of answers that greedy decoding gives token by token as they are written."""
    right = total = 0
    for tokens, labels, answers in batches:
        wrong = (forward(model, tokens, dtype).argmax(-1) != labels) & (answers >= 0)
        for sequence, mistakes in zip(answers.tolist(), wrong.tolist(), strict=True):
            whole = set(sequence) - {-1}
            total += len(whole)
            right += len(whole - {one for one, bad in zip(sequence, mistakes, strict=True) if bad})
    return right / total
