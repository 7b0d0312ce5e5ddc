# SPDX-License-Identifier: Apache-2.0
"""Which GPUs the servers use."""

from eval.errors import EvaluationError

RANKS = 2
"""Of each server unless another number is given, a GPU each; with fewer GPUs they share."""


def choose_gpus(
    asked: int | None, there: int, visible: str | None, ranks: int = RANKS
) -> tuple[str, ...]:
    """Choose the first ones.

    Args:
        asked: So many; None: all there are, one for each rank at most.
        there: GPUs of the machine.
        visible: ``CUDA_VISIBLE_DEVICES``; None: it is not set.
        ranks: Of each server.

    Returns:
        Entries of ``CUDA_VISIBLE_DEVICES`` for the servers.

    Raises:
        EvaluationError: There are fewer.
    """
    if visible is None:
        found, source = [str(number) for number in range(there)], "nvidia-smi lists"
    else:
        entries = [one.strip() for one in visible.split(",") if one.strip()]
        found, source = entries[:there], f"CUDA_VISIBLE_DEVICES={visible} leaves"
    if asked is not None and asked > len(found):
        raise EvaluationError(
            f"--gpus {asked}: {source} {len(found)}. Ask for no more, or leave it out to use all"
        )
    return tuple(found[: ranks if asked is None else asked])
