# SPDX-License-Identifier: Apache-2.0
"""Whether experts' outputs can be added exactly, asked before a model is loaded (docs/exact.md)."""

from collections.abc import Iterator
from typing import Any

from vllm_eplb_plugin.compatibility import installed_support
from vllm_eplb_plugin.overrides.catalogue import overrides_at

_BACKENDS = ("allgather_reducescatter", "naive")


class ExactCombineError(ValueError):
    """The setting ``exact_combine`` cannot work; the message says why, and what to do."""


def check_exact_combine(config: Any) -> None:
    """Refuse what cannot be added exactly.

    Args:
        config: vLLM's, as it was made.

    Raises:
        ExactCombineError: Names all that is in the way.
    """
    if problems := list(_problems(config)):
        raise ExactCombineError(
            f"exact_combine cannot work: {'; '.join(problems)}. Change that, or leave the setting "
            "out (docs/exact.md)"
        )


def _problems(config: Any) -> Iterator[str]:
    support, parallel = installed_support(), config.parallel_config
    on_cpu = config.device_config.device_type == "cpu"
    if not overrides_at(support.release, "exact_on_cpu" if on_cpu else "exact_on_gpu"):
        oldest = "0.32.0 on a CPU" if on_cpu else "0.21.0"
        yield f"it needs vLLM {oldest} or later, and this is {support.installed}"
    if not parallel.enable_expert_parallel or parallel.data_parallel_size == 1:
        yield "it needs --enable-expert-parallel and a --data-parallel-size of 2 or more"
    if parallel.tensor_parallel_size > 1:
        yield f"--tensor-parallel-size is {parallel.tensor_parallel_size}, and it takes 1"
    if parallel.all2all_backend not in _BACKENDS:
        yield f"--all2all-backend is {parallel.all2all_backend}, and it takes {_BACKENDS[0]}"
    if config.quant_config is not None:
        yield f"the model is quantized ({config.model_config.quantization})"
