# SPDX-License-Identifier: Apache-2.0
"""The latency benchmark's models and servers."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from eval.commands.latency_gpus import choose_gpus
from eval.commands.latency_model import SHAPES, ShapeName, write_model
from eval.commands.latency_setup import ArmName, Setup, latency_config
from eval.config.schema import Config
from eval.errors import EvaluationError
from eval.results.latency import ModelShape
from eval.serving import served_arm
from eval.serving.command import server_command
from eval.serving.served_arm import ServedArm

CPU: tuple[str, ...] = ()
ONE, TWO = ("0",), ("0", "1")
ALIKE = [name for name in ArmName if not name.incremental and name is not ArmName.balanced]
"""They differ in EPLB alone, not in how it plans or where tokens go."""
EARLIER: dict[str, Any] = json.loads(
    (Path(__file__).parent / "latency_servers/by_a_builder_of_their_own.json").read_text()
)


def setup(gpus: tuple[str, ...], streams: int = 8) -> Setup:
    """CUDA graphs where they are possible."""
    graphs = gpus == TWO
    return Setup("vllm", Path("model"), ModelShape(), gpus, graphs, streams, 100)


def config(gpus: tuple[str, ...], streams: int = 8) -> Config:
    return latency_config("latency", setup(gpus, streams), ALIKE, Path("arms"))


def commands(gpus: tuple[str, ...], streams: int = 8) -> dict[str, list[str]]:
    served = config(gpus, streams)
    return {arm.name: server_command(served, arm, "vllm", 1234, None) for arm in served.arms}


def options(command: list[str]) -> dict[str, Any]:
    """What a command line says, in whatever order and spelling of JSON."""
    found: dict[str, Any] = {"": command[:3]}
    for word in command[3:]:
        if word.startswith("--"):
            found[word] = True
        else:
            found[list(found)[-1]] = json.loads(word) if word[0] == "{" else word
    return found


@pytest.mark.parametrize("gpus", [CPU, ONE, TWO], ids=list(EARLIER))
def test_servers_get_what_their_own_builder_gave_them(gpus: tuple[str, ...]) -> None:
    before = EARLIER[["cpu", "one-gpu", "two-gpus"][len(gpus)]]
    now = {name: options(command) for name, command in commands(gpus).items()}
    assert now == {name: options(command) for name, command in before["commands"].items()}
    assert config(gpus).serve.environment == before["environment"]


def test_arms_that_are_not_measured_are_not_told_of_but_for_the_baseline() -> None:
    served = latency_config("latency", setup(CPU), [ArmName.sync], Path("arms"))
    assert [arm.name for arm in served.arms] == ["off", "sync"]


def test_the_ceiling_is_the_baseline_but_for_where_tokens_go() -> None:
    served = latency_config("latency", setup(TWO), [ArmName.balanced], Path("arms"))
    off, balanced = served.arms
    by_chance = {"VLLM_MOE_ROUTING_SIMULATION_STRATEGY": "uniform_random"}
    assert balanced == off.model_copy(update={"name": "balanced", "environment": by_chance})
    assert not ArmName.balanced.plugin and not ArmName.balanced.stock


def test_an_arm_s_environment_is_its_server_s_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served_arm, "Server", lambda *told: told)
    served = latency_config("latency", setup(CPU), [ArmName.balanced], Path("arms"))
    found = {}
    for arm in served.arms:
        _, environment, *_ = ServedArm(served, arm, "vllm", tmp_path).server
        found[arm.name] = environment
    assert found["off"] == served.serve.environment
    assert found["balanced"] == {**served.serve.environment, **served.arms[1].environment}


def value(command: list[str], option: str) -> Any:
    text = command[command.index(option) + 1]
    return json.loads(text) if text[0] in "{0123456789" else text


def written(shape: ModelShape, folder: Path) -> dict[str, Any]:
    write_model(shape, folder)
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return config


def test_a_model_has_the_layers_and_experts_that_were_asked_for(tmp_path: Path) -> None:
    config = written(ModelShape(moe_layers=5, experts=32, experts_per_token=3), tmp_path)
    assert config["num_hidden_layers"] - config["first_k_dense_replace"] == 5
    assert (config["n_routed_experts"], config["num_experts_per_tok"]) == (32, 3)
    assert (tmp_path / "tokenizer.json").exists()


def test_the_wide_shape_stays_the_one_that_was_measured(tmp_path: Path) -> None:
    write_model(SHAPES[ShapeName.wide], tmp_path)
    digest = hashlib.sha256((tmp_path / "config.json").read_bytes()).hexdigest()
    assert digest == "accf3b892f0d4dc1d2d3d6ec3d02b2f3cc343a122efcc505af64d7c7bffc64e9"


def test_deepseek_v2_lite_has_its_own_sizes(tmp_path: Path) -> None:
    shape = SHAPES[ShapeName.deepseek_v2_lite]
    assert shape.redundant == 16
    config = written(shape, tmp_path)
    published = {
        "hidden_size": 2048,
        "num_hidden_layers": 27,
        "first_k_dense_replace": 1,
        "intermediate_size": 10944,
        "moe_intermediate_size": 1408,
        "n_routed_experts": 64,
        "n_shared_experts": 2,
        "num_experts_per_tok": 6,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "q_lora_rank": None,
        "kv_lora_rank": 512,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
        "vocab_size": 102400,
        "max_position_embeddings": 163840,
        "routed_scaling_factor": 1.0,
        "topk_method": "greedy",
        "scoring_func": "softmax",
        "norm_topk_prob": False,
    }
    assert config.items() >= published.items()
    assert config["rope_scaling"]["factor"] == 40


@pytest.mark.parametrize("gpus", [CPU, ONE, TWO])
def test_arms_differ_in_eplb_alone(gpus: tuple[str, ...]) -> None:
    arms = commands(gpus)
    plugin = {
        name: value(command, "--additional-config")["eplb_plugin"] for name, command in arms.items()
    }
    assert all(settings.get("loopback", False) is (gpus != TWO) for settings in plugin.values())
    assert {name: settings.get("enabled") for name, settings in plugin.items()} == {
        "off": None,
        "stock-sync": False,
        "sync": True,
        "stock-async": False,
        "async": True,
    }
    off = arms.pop("off")
    assert "--enable-eplb" not in off
    assert all(plugin[name]["step_times_dir"] == f"arms/{name}/steps" for name in arms)
    eplb = {name: value(command, "--eplb-config") for name, command in arms.items()}
    assert {name: one["use_async"] for name, one in eplb.items()} == {
        "stock-sync": False,
        "sync": False,
        "stock-async": True,
        "async": True,
    }
    assert eplb["sync"]["step_interval"] == 64
    assert eplb["async"]["step_interval"] == 16
    for name in ("sync", "async"):
        assert eplb[f"stock-{name}"] == eplb[name]
        assert without_settings(arms[f"stock-{name}"]) == without_settings(arms[name])
        # Last come the flags of EPLB.
        assert without_settings(arms[name])[:-3] == without_settings(off)


def without_settings(command: list[str]) -> list[str]:
    place = command.index("--additional-config")
    return command[:place] + command[place + 2 :]


def test_ranks_of_one_gpu_use_no_graphs() -> None:
    for command in commands(ONE).values():
        assert "--enforce-eager" in command
        assert value(command, "--dtype") == "bfloat16"


def test_two_gpus_use_graphs_and_vllm_chooses_how_experts_are_sent() -> None:
    for name, command in commands(TWO).items():
        assert "--enforce-eager" not in command
        assert value(command, "--compilation-config")["cudagraph_mode"] == "FULL_DECODE_ONLY"
        assert name == "off" or "communicator" not in value(command, "--eplb-config")


def test_a_cpu_has_its_own_environment_and_no_options_of_gpus() -> None:
    for command in commands(CPU).values():
        assert value(command, "--dtype") == "float32"
        assert "--enforce-eager" in command
        assert "--kv-cache-memory-bytes" not in command
        assert "--gpu-memory-utilization" not in command
    assert setup(CPU).environment()["VLLM_CPU_KVCACHE_SPACE"] == "1"
    assert "VLLM_CPU_KVCACHE_SPACE" not in setup(ONE).environment()


@pytest.mark.parametrize("gpus", [ONE, TWO])
def test_every_arm_has_the_same_cache_whatever_its_weights_leave(gpus: tuple[str, ...]) -> None:
    caches = {value(one, "--kv-cache-memory-bytes") for one in commands(gpus).values()}
    assert caches == {2 * 2**30}


def test_the_cache_grows_with_the_streams() -> None:
    command = commands(TWO, streams=32)["off"]
    assert value(command, "--kv-cache-memory-bytes") == 8 * 2**30


@pytest.mark.parametrize(
    ("asked", "there", "visible", "chosen"),
    [
        (None, 0, None, ()),
        (None, 1, None, ("0",)),
        (None, 8, None, ("0", "1")),
        (1, 8, None, ("0",)),
        (0, 8, None, ()),
        (None, 8, "3", ("3",)),
        (None, 8, "5, 6,7", ("5", "6")),
        (1, 8, "5,6", ("5",)),
        (None, 8, "", ()),
        (None, 2, "GPU-1f,GPU-2e", ("GPU-1f", "GPU-2e")),
    ],
)
def test_servers_see_the_gpus_that_they_use(
    asked: int | None, there: int, visible: str | None, chosen: tuple[str, ...]
) -> None:
    assert choose_gpus(asked, there, visible) == chosen
    assert setup(chosen).environment()["CUDA_VISIBLE_DEVICES"] == ",".join(chosen)


@pytest.mark.parametrize(
    ("asked", "there", "visible", "rule"),
    [
        (2, 1, None, "--gpus 2: nvidia-smi lists 1"),
        (1, 0, None, "--gpus 1: nvidia-smi lists 0"),
        (2, 8, "3", "--gpus 2: CUDA_VISIBLE_DEVICES=3 leaves 1"),
        (1, 0, "0,1", "--gpus 1: CUDA_VISIBLE_DEVICES=0,1 leaves 0"),
    ],
)
def test_gpus_that_are_not_there_are_refused(
    asked: int, there: int, visible: str | None, rule: str
) -> None:
    with pytest.raises(EvaluationError, match=rule):
        choose_gpus(asked, there, visible)


def test_four_ranks_use_four_gpus() -> None:
    assert choose_gpus(None, 8, None, ranks=4) == ("0", "1", "2", "3")
    four = setup(("0", "1", "2", "3"))._replace(ranks=4)
    assert not four.loopback
    assert four._replace(gpus=TWO).loopback
    served = latency_config("latency", four, ALIKE, Path("arms"))
    command = server_command(served, served.arms[0], "vllm", 1234, None)
    assert value(command, "--data-parallel-size") == 4
