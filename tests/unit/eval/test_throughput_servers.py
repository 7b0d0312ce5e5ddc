# SPDX-License-Identifier: Apache-2.0
"""The throughput benchmark's models and servers, and which are up together."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from eval.commands.latency_model import SHAPES, ShapeName, write_model
from eval.commands.latency_weights import write_weights
from eval.commands.throughput_setup import (
    ThroughputArm,
    groups_of,
    recorder_of,
    throughput_config,
)
from eval.config.schema import Arm
from eval.errors import ConfigError
from eval.load.domains import DOMAINS
from eval.results.latency import ModelShape
from eval.serving.command import server_command
from tests.builders.throughput import setup

ALL = list(ThroughputArm)
ARMS = Path("arms")
SMALL = ModelShape(moe_layers=1, experts=4, redundant=2, vocabulary=256)
SMALL_QWEN3 = SMALL.model_copy(
    update={"architecture": "qwen3_moe", "shared_experts": 0, "attention_heads": 4}
)


def arms(names: list[ThroughputArm], **changes: Any) -> dict[str, Arm]:
    config = throughput_config("throughput", setup(**changes), names, ARMS)
    return {arm.name: arm for arm in config.arms}


def groups(names: str, at_once: int, recorder: str | None = None) -> list[str]:
    found = groups_of(
        [ThroughputArm(name) for name in names.split()],
        at_once,
        ThroughputArm(recorder) if recorder else None,
    )
    return [" ".join(one.value for one in group) for group in found]


@pytest.mark.parametrize(
    ("names", "at_once", "recorder", "expected"),
    [
        ("off", 3, None, ["off"]),
        ("off sync async", 1, None, ["off", "sync", "async"]),
        ("off sync async balanced", 2, None, ["off sync", "off async", "off balanced"]),
        ("off sync async balanced", 3, None, ["off sync async", "off balanced"]),
        ("off sync async", 9, None, ["off sync async"]),
        ("sync async balanced", 2, None, ["sync async", "balanced"]),
        ("off sync warm", 9, None, ["off sync warm"]),
        ("off warm async", 9, "async", ["off async", "off warm"]),
        ("off warm async", 1, "async", ["off", "async", "warm"]),
        # Beside others, as long as the one that records has ended.
        ("off warm async sync balanced", 3, "async", ["off async sync", "off balanced warm"]),
        ("off warm async sync balanced", 2, "async", [
            "off async", "off sync", "off balanced", "off warm",
        ]),
    ],
)  # fmt: skip
def test_off_is_up_beside_every_other_and_warm_after_what_records(
    names: str, at_once: int, recorder: str | None, expected: list[str]
) -> None:
    assert groups(names, at_once, recorder) == expected


def test_warm_begins_where_another_arm_recorded_and_stays_there() -> None:
    names = [ThroughputArm.off, ThroughputArm.async_incremental, ThroughputArm.async_]
    found = arms([*names, ThroughputArm.warm])
    folder = str((ARMS / "async/loads").absolute())
    assert [name for name, arm in found.items() if "recording" in arm.plugin] == ["async"]
    assert found["async"].plugin["recording"] == {"dir": folder}
    planning = found["warm"].plugin["planning"]
    assert isinstance(planning, dict)
    assert planning["initial"] == {"path": folder, "any_name": True}
    assert planning["rearrange"] == "never"
    assert not any("recording" in arm.plugin for arm in arms(names).values())


def test_a_recording_that_is_given_needs_no_arm_that_records() -> None:
    given = setup(initial=Path("/loads"))
    assert recorder_of(given, ALL) is None
    found = arms([ThroughputArm.off, ThroughputArm.warm], initial=Path("/loads"))
    assert "/loads" in json.dumps(found["warm"].plugin)
    with pytest.raises(ConfigError, match="add --arm async, or give a recording with --initial"):
        recorder_of(setup(), [ThroughputArm.off, ThroughputArm.stock_sync, ThroughputArm.warm])


def test_arms_differ_in_eplb_and_planning_alone() -> None:
    found = arms(ALL)
    assert found["off"].eplb is None and found["balanced"].eplb is None
    assert found["balanced"].environment["VLLM_MOE_ROUTING_SIMULATION_STRATEGY"]
    for mode in ("sync", "async"):
        stock, other, incremental = (
            found[name] for name in (f"stock-{mode}", mode, f"{mode}-incremental")
        )
        assert stock.eplb == other.eplb == incremental.eplb
        assert stock.eplb is not None and stock.eplb.use_async is (mode == "async")
        assert (stock.eplb.window_size, stock.eplb.step_interval) == (100, 100)
        assert stock.plugin == {"enabled": False}
        assert other.plugin["planning"] == {"policy": "default"}
        assert incremental.plugin["planning"] == {"policy": "incremental"}
    assert found["warm"].eplb == found["async"].eplb


def test_no_round_finds_prompts_in_a_cache_and_all_have_room(tmp_path: Path) -> None:
    served = throughput_config("throughput", setup(), ALL, ARMS)
    for arm in served.arms:
        command = server_command(served, arm, "vllm", 1234, None)
        assert "--no-enable-prefix-caching" in command
    options = served.serve.options
    assert options["max-model-len"] == 16 + 32
    assert options["kv-cache-memory-bytes"] == max(2**28, 64 * 48 * 59 * 1152)
    graphs = options["compilation-config"]
    assert isinstance(graphs, dict)
    # As vLLM compiles by default: a prompt among many completions is in a graph's step, too.
    assert list(graphs) == ["cudagraph_capture_sizes"]
    assert options["max-num-batched-tokens"] == 8192


def test_a_model_that_was_given_decides_how_long_a_sequence_is() -> None:
    served = throughput_config("throughput", setup(shape=None), ALL, ARMS)
    assert "max-model-len" not in served.serve.options
    assert served.model == "model"


def gates(folder: Path, skew: float) -> torch.Tensor:
    write_weights(SMALL, folder / "model.safetensors", skew)
    loaded = load_file(folder / "model.safetensors")["model.layers.1.mlp.gate.weight"]
    return loaded.float()[:, :DOMAINS]


def test_a_router_is_as_skewed_as_is_told(tmp_path: Path) -> None:
    assert not gates(tmp_path, 0.0).any()
    assert torch.allclose(gates(tmp_path, 1.0), 4 * gates(tmp_path, 0.25), rtol=0.02)
    write_model(SMALL, tmp_path, weights=True, skew=0.0)
    loaded = load_file(tmp_path / "model.safetensors")["model.layers.1.mlp.gate.weight"]
    assert not loaded[:, :DOMAINS].any() and loaded[:, DOMAINS:].any()


def test_qwen3_30b_has_its_own_sizes(tmp_path: Path) -> None:
    write_model(SHAPES[ShapeName.qwen3_30b], tmp_path)
    published = {
        "architectures": ["Qwen3MoeForCausalLM"],
        "decoder_sparse_step": 1,
        "head_dim": 128,
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "max_position_embeddings": 40960,
        "mlp_only_layers": [],
        "model_type": "qwen3_moe",
        "moe_intermediate_size": 768,
        "norm_topk_prob": True,
        "num_attention_heads": 32,
        "num_experts": 128,
        "num_experts_per_tok": 8,
        "num_hidden_layers": 48,
        "num_key_value_heads": 4,
        "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0,
        "tie_word_embeddings": False,
        "vocab_size": 151936,
    }
    assert json.loads((tmp_path / "config.json").read_text()).items() >= published.items()


def test_weights_of_qwen3_are_those_that_the_model_has(tmp_path: Path) -> None:
    write_model(SMALL_QWEN3, tmp_path, weights=True)
    written = {
        name: [*one.shape] for name, one in load_file(tmp_path / "model.safetensors").items()
    }
    layer = "model.layers.0"
    of_layer = {
        "input_layernorm": [64],
        "mlp.gate": [4, 64],
        "post_attention_layernorm": [64],
        "self_attn.k_norm": [128],
        "self_attn.k_proj": [2 * 128, 64],
        "self_attn.o_proj": [64, 4 * 128],
        "self_attn.q_norm": [128],
        "self_attn.q_proj": [4 * 128, 64],
        "self_attn.v_proj": [2 * 128, 64],
    }
    for expert in range(4):
        of_layer |= {
            f"mlp.experts.{expert}.{name}_proj": shape
            for name, shape in (("gate", [32, 64]), ("up", [32, 64]), ("down", [64, 32]))
        }
    assert written == {
        "lm_head.weight": [256, 64],
        "model.embed_tokens.weight": [256, 64],
        "model.norm.weight": [64],
        **{f"{layer}.{name}.weight": shape for name, shape in of_layer.items()},
    }
    assert SMALL_QWEN3.cache_bytes_a_token == 2 * 2 * 2 * 128
