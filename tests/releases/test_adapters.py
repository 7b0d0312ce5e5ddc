# SPDX-License-Identifier: Apache-2.0
"""With EPLB, LoRA adapters for experts are refused where they are loaded, by every rank."""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
from vllm.lora.request import LoRARequest
from vllm.v1.engine.input_processor import InputProcessor

from tests.builders.adapters import ATTENTION, EXPERT, write_adapter
from tests.releases.conftest import RanksOf, releases
from tests.releases.ranks import Ranks
from vllm_eplb_plugin.adapter_files import ExpertAdapterError
from vllm_eplb_plugin.front_end.engine_config import _guard_adapters
from vllm_eplb_plugin.overrides.binding import unbind
from vllm_eplb_plugin.overrides.catalogue import places
from vllm_eplb_plugin.releases import Release


@pytest.fixture
def lora_ranks(some_release: Release, ranks_of: RanksOf) -> Ranks:
    """Ranks of the oldest release with LoRA on experts, one in the middle and the newest."""
    if some_release.version.startswith("0.18."):  # asserts that there is no expert parallelism
        [some_release] = releases("0.21.0")
    return ranks_of(some_release)


Load = Callable[..., list[object]]


@pytest.fixture
def load(lora_ranks: Ranks, tmp_path: Path) -> Load:
    """What both ranks have loaded, or why not."""

    def load(*names: str, eplb: bool = True) -> list[object]:
        write_adapter(tmp_path, names)
        arguments = {"adapter": str(tmp_path), "eplb": eplb}
        return [report["loaded"] for report in lora_ranks(scenario="adapters", arguments=arguments)]

    return load


def test_an_adapter_for_attention_is_loaded(load: Load) -> None:
    assert load(ATTENTION) == [["layers.0.self_attn.q_proj"]] * 2


def test_one_expert_s_weights_are_refused_by_every_rank(load: Load) -> None:
    refused = load(ATTENTION, EXPERT.format(0))
    assert refused[0] == refused[1]
    assert "'mine' has weights for routed experts" in str(refused[0])
    assert "without --enable-eplb" in str(refused[0])


def test_without_eplb_it_is_vllm_s_own_affair(load: Load) -> None:
    loaded = load(EXPERT.format(0), eplb=False)
    assert loaded[0] == ["layers.0.mlp.experts.0.w1"]


@pytest.fixture
def _guarded() -> Iterator[None]:
    _guard_adapters()
    yield
    unbind(place.override for place in places())


@pytest.mark.usefixtures("_guarded")
@pytest.mark.parametrize("eplb", [True, False])
def test_a_request_that_names_one_is_refused_before_it_reaches_a_step(
    eplb: bool, tmp_path: Path
) -> None:
    write_adapter(tmp_path, [EXPERT.format(3)])
    parallel = SimpleNamespace(enable_eplb=eplb)
    processor = MagicMock(vllm_config=SimpleNamespace(parallel_config=parallel), tokenizer=None)
    request = LoRARequest("mine", 1, str(tmp_path))
    InputProcessor._validate_lora(processor, None)
    if eplb:
        with pytest.raises(ExpertAdapterError, match="'mine' has weights for routed experts"):
            InputProcessor._validate_lora(processor, request)
    else:
        InputProcessor._validate_lora(processor, request)
