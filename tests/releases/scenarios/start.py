# SPDX-License-Identifier: Apache-2.0
"""An `EplbState` is made: whether a rank was refused, and by what."""

from typing import Any

import torch

from tests.releases.two_ranks import Job


def drive(job: Job, rank: int, config: Any) -> dict[str, Any]:
    """Make it, as a rank of the plugin's version that `Job.arguments` names."""
    from vllm.distributed.eplb.eplb_state import EplbState

    if (version := job.arguments.get("version")) is not None:
        from vllm_eplb_plugin.engine import common_settings

        common_settings.__version__ = version
    if job.arguments.get("stages"):
        make_each_rank_a_stage()
    for name, value in job.arguments.get("eplb_config", {}).items():
        setattr(config.parallel_config.eplb_config, name, value)
    try:
        EplbState(config.parallel_config, torch.device("cpu"))
    except RuntimeError as error:
        return {"refused": f"{type(error).__name__}: {error}"}
    return {"refused": None}


def make_each_rank_a_stage() -> None:
    """Pipeline parallelism: an EP group of its own for each stage."""
    from vllm.distributed import parallel_state

    parallel_state.destroy_model_parallel()
    parallel_state.initialize_model_parallel(1, pipeline_model_parallel_size=2, backend="gloo")
    assert parallel_state.get_ep_group().ranks == [torch.distributed.get_rank()]
