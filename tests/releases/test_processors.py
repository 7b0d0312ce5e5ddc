# SPDX-License-Identifier: Apache-2.0
"""What vLLM chooses by processor or environment, where loopback asks for it instead."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.processors import PROCESSORS, pretend, skip_without_instructions
from tests.releases.conftest import fetch
from vllm_eplb_plugin.releases import RELEASES

PREPARE = """
import vllm_eplb_plugin
vllm_eplb_plugin.register()
from vllm.engine.arg_utils import EngineArgs
arguments = dict(
    model="eval/models/gsm-tiny",
    enforce_eager=True,
    data_parallel_size=2,
    enable_expert_parallel=True,
    additional_config={"eplb_plugin": {"loopback": True}},
)
"""
CONFIG = PREPARE + "config = EngineArgs(**arguments, %s).create_engine_config()\n"


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    own = {key: value for key, value in os.environ.items() if not key.startswith("VLLM_")}
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**own, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


CHOICES = """
def configure(**more):
    return EngineArgs(**arguments, **more).create_engine_config()
def refusal(**more):
    try:
        configure(**more)
    except ValueError as error:
        return str(error)
def attention(config):
    cache, scheduler = config.cache_config, config.scheduler_config
    backend = config.attention_config.backend
    return [backend.name, cache.block_size, scheduler.enable_chunked_prefill]
import json, torch
from vllm.platforms import current_platform
current_platform.import_kernels()
amx = "AMX_MLA"
print(json.dumps({
    "libraries": sorted({line.split("/")[-1].split(".")[0] for line in open("/proc/self/maps")
                         if "/vllm/_C" in line}),
    "amx": torch.cpu._is_amx_tile_supported(),
    "float32": attention(configure(dtype="float32")),
    "bfloat16": attention(configure(dtype="bfloat16")),
    "asked": attention(configure(dtype="bfloat16", attention_backend=amx))[0],
    "refusals": [
        refusal(dtype="float32", attention_backend=amx),
        refusal(dtype="float32", attention_config={"backend": amx}),
    ],
}))
"""


@pytest.fixture(scope="module", params=PROCESSORS)
def processor(request: pytest.FixtureRequest) -> str:
    """From older to newer."""
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def choices(processor: str) -> dict[str, Any]:
    """What vLLM chooses there, in loopback."""
    skip_without_instructions(processor)
    done = python(PREPARE + CHOICES, **pretend(processor))
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_the_pretended_processor_decides_which_kernels_vllm_loads(
    processor: str, choices: dict[str, Any]
) -> None:
    library = {"avx2": "_C_AVX2", "avx512": "_C_AVX512"}.get(processor, "_C")
    assert choices["libraries"] == [library]
    assert choices["amx"] == (processor == "amx")


def test_latent_attention_is_the_same_on_every_processor(choices: dict[str, Any]) -> None:
    assert choices["float32"] == choices["bfloat16"] == ["CPU_MLA", 16, False]


def test_amx_s_attention_is_for_who_asks_for_it_and_for_bfloat16(choices: dict[str, Any]) -> None:
    assert choices["asked"] == "AMX_MLA"
    for message in choices["refusals"]:
        assert "AMX_MLA takes bfloat16 only, and the model's dtype is float32" in message


def test_what_vllm_would_choose_by_the_environment_is_set_unless_the_user_has() -> None:
    show = (
        "import os; from vllm.platforms import current_platform; print("
        "config.use_v2_model_runner, config.cache_config.kv_cache_memory_bytes, "
        "os.environ['VLLM_CPU_OMP_THREADS_BIND'])"
    )
    # A Triton that works on a CPU, which would bring model runner V2.
    triton = "import vllm.config.vllm as one; one.HAS_TRITON = True\n"
    # Empty is as good as not set.
    done = python(triton + CONFIG % "" + show, VLLM_USE_V2_MODEL_RUNNER="")
    assert done.stdout.splitlines()[-1] == f"False {2**30} nobind", done.stderr
    done = python(CONFIG % "kv_cache_memory_bytes=5000000" + show, VLLM_CPU_OMP_THREADS_BIND="0|1")
    assert done.stdout.splitlines()[-1] == "False 5000000 0|1", done.stderr


@pytest.mark.parametrize("variable", ["VLLM_USE_V2_MODEL_RUNNER", "VLLM_CPU_SGL_KERNEL"])
def test_kernels_and_runners_that_loopback_does_not_serve_with_are_refused(variable: str) -> None:
    done = python(CONFIG % "", **{variable: "1"})
    assert "LoopbackError: loopback does not serve with" in done.stderr
    assert f"unset {variable}" in done.stderr


def test_zentorch_is_refused() -> None:
    installed = "import vllm_eplb_plugin.processor as one; one._takes_zentorch = lambda: True\n"
    done = python(installed + CONFIG % "")
    assert "LoopbackError: loopback cannot serve on this CPU: zentorch is installed" in done.stderr
    done = python(installed + "from vllm_eplb_plugin.cli.main import main; main(['doctor'])")
    assert done.returncode == 2
    assert "problem: zentorch is installed" in done.stdout


def test_a_rank_asks_linux_for_the_registers_of_amx() -> None:
    done = python(
        "import torch, types; torch.cpu._init_amx = lambda: print('asked')\n"
        "from vllm_eplb_plugin.loopback.cpu import worker\n"
        "worker.CPUWorker.__init__ = lambda self, *_: print('made')\n"
        "worker.LoopbackCPUWorker(types.SimpleNamespace(additional_config={}))"
    )
    assert done.stdout.splitlines()[-2:] == ["asked", "made"], done.stderr


def test_vllm_018_s_experts_in_torch_take_what_loopback_gives_them() -> None:
    """It takes them with AMX in float32, and always without AVX-512."""
    [release] = [release for release in RELEASES if release.version == "0.18.1"]
    code = """
import torch, types, weakref
from vllm.model_executor.layers.fused_moe import cpu_fused_moe
from vllm_eplb_plugin.loopback.cpu.experts import keep_local_experts
torch.manual_seed(0)
tokens, top_k, ranks, local, hidden, inner = 33, 4, 2, 6, 16, 8
x = torch.randn(tokens, hidden)
ids = torch.stack([torch.randperm(ranks * local)[:top_k] for _ in range(tokens)])
weights = torch.rand(tokens, top_k)
w13 = torch.randn(ranks * local, 2 * inner, hidden)
w2 = torch.randn(ranks * local, hidden, inner)
def expert(e, rows):
    gate, up = (rows @ w13[e].T).chunk(2, dim=-1)
    return (torch.nn.functional.silu(gate) * up) @ w2[e].T
wanted = sum(weights[:, [k]] * torch.stack([expert(ids[t, k], x[t]) for t in range(tokens)])
             for k in range(top_k))
found = torch.zeros_like(x)
for rank in range(ranks):
    mine = range(rank * local, (rank + 1) * local)
    expert_map = torch.full((ranks * local,), -1)
    expert_map[rank * local:(rank + 1) * local] = torch.arange(local)
    layer = types.SimpleNamespace(
        gate_up_linear=[lambda rows, e=e: rows @ w13[e].T for e in mine],
        down_linear=[lambda rows, e=e: rows @ w2[e].T for e in mine])
    cpu_fused_moe._CPU_MOE_LAYER_CACHE[rank] = lambda layer=layer: layer
    part = torch.empty_like(x)
    local_ids, local_weights = keep_local_experts(ids, weights, expert_map)
    cpu_fused_moe.cpu_fused_moe_torch(
        rank, part, x, local_weights, local_ids, "silu", ranks * local)
    found += part
torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
print("alike")
"""
    done = python(code, PYTHONPATH=str(fetch(release)))
    assert done.stdout.splitlines()[-1:] == ["alike"], done.stderr[-2000:]
