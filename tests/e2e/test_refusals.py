# SPDX-License-Identifier: Apache-2.0
"""Servers that must not start, and what they say."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import OlmoeConfig, OlmoeForCausalLM

from tests.e2e.conftest import MODEL, refusal

SYNC: dict[str, Any] = {"name": "sync", "eplb": {"use_async": False}}
LOOPBACK = {"loopback": True}


def test_a_misspelt_setting_names_the_nearest_one(tmp_path: Path) -> None:
    log = refusal(tmp_path, SYNC, plugin={"loopbak": True})
    assert "unknown setting 'loopbak', the nearest is 'loopback'" in log


def test_without_loopback_vllm_s_own_refusal_stays(tmp_path: Path) -> None:
    log = refusal(tmp_path, SYNC, plugin={})
    assert "Expert parallelism load balancing is only supported on CUDA" in log


def test_compiled_models_are_refused_in_loopback(tmp_path: Path) -> None:
    options = {"data-parallel-size": 2, "enable-expert-parallel": True}
    log = refusal(tmp_path, SYNC, plugin=LOOPBACK, serve={"options": options})
    assert "loopback needs --enforce-eager" in log


def test_sums_that_cannot_be_exact_are_refused_without_eplb_too(tmp_path: Path) -> None:
    plugin = {**LOOPBACK, "exact_combine": True}
    serve = {"options": {"enforce-eager": True}}
    log = refusal(tmp_path, {"name": "off-again"}, plugin=plugin, serve=serve)
    assert "exact_combine cannot work: it needs --enable-expert-parallel and a --data-par" in log


@pytest.fixture
def olmoe(tmp_path: Path) -> Path:
    """A random model with experts, of a class that vLLM cannot rearrange."""
    folder = tmp_path / "olmoe"
    vocabulary = json.loads((MODEL / "config.json").read_text())["vocab_size"]
    config = OlmoeConfig(
        vocab_size=vocabulary,
        hidden_size=128,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=4,
        num_experts=8,
        num_experts_per_tok=2,
        max_position_embeddings=4096,
    )
    torch.manual_seed(0)
    OlmoeForCausalLM(config).save_pretrained(folder)
    for file in MODEL.glob("tokenizer*"):
        shutil.copy(file, folder)
    return folder


def test_a_model_whose_experts_cannot_move_is_refused(olmoe: Path, tmp_path: Path) -> None:
    log = refusal(tmp_path, SYNC, model=str(olmoe), plugin=LOOPBACK)
    assert "OlmoeForCausalLM does not implement vLLM's MixtureOfExperts" in log, log[-4000:]
    assert "Serve it without --enable-eplb" in log
