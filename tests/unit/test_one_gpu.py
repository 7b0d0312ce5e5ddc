# SPDX-License-Identifier: Apache-2.0
"""What loopback on one GPU refuses before a model loads, and how it shares the GPU's memory."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from vllm_eplb_plugin.loopback.one_gpu import preparation
from vllm_eplb_plugin.loopback.one_gpu.preparation import (
    checkpoint_bytes,
    prepare_arguments,
    prepare_config,
    share_of_each_rank,
)
from vllm_eplb_plugin.loopback.refusals import LoopbackError

GIB = 2**30


@dataclass
class Arguments:
    """Of vLLM's EngineArgs, what loopback looks at; defaults are vLLM 0.26's."""

    model: str = "nowhere"
    load_format: str = "auto"
    enforce_eager: bool = False
    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1
    data_parallel_size: int = 2
    data_parallel_size_local: int | None = None
    data_parallel_backend: str = "mp"
    distributed_executor_backend: str | None = None
    all2all_backend: str = "allgather_reducescatter"
    gpu_memory_utilization: float = 0.92
    kv_cache_memory_bytes: int | None = None
    eplb_config: Any = field(default_factory=lambda: SimpleNamespace(communicator=None))


@pytest.fixture(autouse=True)
def _gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparation, "_memory_of_first_gpu", lambda: (78 * GIB, 80 * GIB))
    platform = SimpleNamespace(device_count=lambda: 1)
    monkeypatch.setitem(sys.modules, "vllm.platforms", SimpleNamespace(current_platform=platform))


def test_two_ranks_share_the_gpu_and_run_eager() -> None:
    arguments = Arguments()
    prepare_arguments(arguments)
    assert arguments.enforce_eager
    assert arguments.gpu_memory_utilization == 0.43
    assert arguments.kv_cache_memory_bytes == GIB
    assert arguments.distributed_executor_backend == "uni"


def test_a_gpu_that_is_hidden_is_missed_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    platform = SimpleNamespace(device_count=lambda: 0)
    monkeypatch.setitem(sys.modules, "vllm.platforms", SimpleNamespace(current_platform=platform))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(LoopbackError, match=r"CUDA finds none here \(CUDA_VISIBLE_DEVICES is ''\)"):
        prepare_arguments(Arguments())


def test_what_a_user_asks_for_is_kept_if_it_fits() -> None:
    arguments = Arguments(
        gpu_memory_utilization=0.3,
        kv_cache_memory_bytes=5 * GIB,
        distributed_executor_backend="mp",
    )
    prepare_arguments(arguments)
    assert arguments.distributed_executor_backend == "mp"
    assert (arguments.gpu_memory_utilization, arguments.kv_cache_memory_bytes) == (0.3, 5 * GIB)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tensor_parallel_size": 2}, r"--tensor-parallel-size is 2"),
        ({"pipeline_parallel_size": 4}, r"--pipeline-parallel-size is 4"),
        ({"data_parallel_size_local": 1}, r"--data-parallel-size-local is 1 of 2"),
        ({"data_parallel_backend": "ray"}, r"--data-parallel-backend is 'ray'"),
        ({"all2all_backend": "deepep_low_latency"}, r"--all2all-backend is 'deepep_low_latency'"),
        (
            {"eplb_config": SimpleNamespace(communicator="pynccl")},
            r"communicator in --eplb-config is 'pynccl': make it 'torch_gloo'",
        ),
        ({"gpu_memory_utilization": 0.5}, r"0.5 of each is 80.0 GiB.* 78.0 are free: make it 0.43"),
        ({"data_parallel_size": 40}, r"40 ranks do not fit.* 80.0 GiB at least .*78.0 are free"),
        ({"kv_cache_memory_bytes": 60 * GIB}, r"a KV cache of 60.0"),
    ],
)
def test_what_cannot_be_served_is_refused_by_name(changes: dict[str, Any], message: str) -> None:
    arguments = Arguments(**changes)
    with pytest.raises(LoopbackError, match=message):
        prepare_arguments(arguments)


def test_weights_that_do_not_fit_are_refused_before_they_are_loaded(tmp_path: Path) -> None:
    for number in range(2):
        with (tmp_path / f"model-{number}.safetensors").open("wb") as file:
            file.truncate(40 * GIB)
    assert checkpoint_bytes(str(tmp_path)) == 80 * GIB
    with pytest.raises(LoopbackError, match=r"need 84.0 GiB at least \(weights 80.0,"):
        prepare_arguments(Arguments(model=str(tmp_path)))
    prepare_arguments(Arguments(model=str(tmp_path), load_format="dummy"))


@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
def test_shares_of_all_ranks_fit_into_what_is_free(ranks: int) -> None:
    share = share_of_each_rank(
        ranks, free=30 * GIB, total=80 * GIB, asked=None, kv_cache=1, weights=1
    )
    assert 0.3 / ranks < share <= 0.375 / ranks


def test_no_group_of_the_config_is_nccl_s() -> None:
    eplb = SimpleNamespace(communicator="pynccl", use_async=True)
    parallel = SimpleNamespace(eplb_config=eplb, worker_cls="auto")
    prepare_config(SimpleNamespace(parallel_config=parallel))
    assert parallel.worker_cls == preparation.WORKER
    assert parallel.disable_nccl_for_dp_synchronization
    assert (eplb.communicator, eplb.use_async) == ("torch_gloo", True)
