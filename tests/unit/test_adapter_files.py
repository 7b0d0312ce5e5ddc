# SPDX-License-Identifier: Apache-2.0
"""Which adapters change experts that EPLB moves."""

from pathlib import Path

import pytest

from tests.builders.adapters import ATTENTION, EXPERT, write_adapter
from vllm_eplb_plugin.adapter_files import ExpertAdapterError, names_in, refuse_expert_weights


@pytest.mark.parametrize("pickled", [None, "adapter_model.bin", "adapter_model.pt"])
def test_all_names_of_an_adapter_s_file_are_read(pickled: str | None, tmp_path: Path) -> None:
    write_adapter(tmp_path, [ATTENTION, EXPERT.format(7)], pickled)
    names = {
        f"base_model.model.{m}.lora_{f}.weight" for m in (ATTENTION, EXPERT.format(7)) for f in "AB"
    }
    assert set(names_in(tmp_path)) == names


def test_a_folder_without_an_adapter_has_no_names(tmp_path: Path) -> None:
    assert names_in(tmp_path) == []


@pytest.mark.parametrize(
    "name",
    [
        "base_model.model.model.layers.1.mlp.experts.0.gate_proj.lora_A.weight",
        "base_model.model.model.layers.1.mlp.experts.base_layer.lora_A.weight",
        "base_model.model.model.layers.1.mlp.experts.lora_B.weight",
        "base_model.model.model.layers.1.block_sparse_moe.experts.3.w2.lora_B.weight",
        "model.layers.1.mlp.experts",
    ],
)
def test_weights_of_routed_experts_are_refused_by_name(name: str) -> None:
    with pytest.raises(ExpertAdapterError, match=name.replace(".", r"\.")):
        refuse_expert_weights("mine", [ATTENTION, name])


@pytest.mark.parametrize(
    "name",
    [
        ATTENTION,
        "base_model.model.model.layers.1.mlp.shared_experts.gate_proj.lora_A.weight",
        "base_model.model.model.layers.1.mlp.shared_expert.down_proj.lora_A.weight",
        "base_model.model.model.layers.1.mlp.gate.lora_A.weight",
    ],
)
def test_weights_that_do_not_move_are_served(name: str) -> None:
    refuse_expert_weights("mine", [name])
