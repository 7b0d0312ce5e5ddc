# SPDX-License-Identifier: Apache-2.0
"""MoE layers that differ, dtypes that no communicator carries, redundant slots that are empty: two
gloo ranks of the oldest, a middle and the newest release."""

from typing import Any

import pytest
import torch

from tests.releases.ranks import Ranks, assert_nothing_wrong

Spec = list[tuple[str, list[int]]]

USUAL: Spec = [("float32", [6]), ("float16", [4])]
DTYPES = [
    name
    for name in (
        "float8_e8m0fnu",
        "float8_e4m3fn",
        "float8_e5m2",
        "float4_e2m1fn_x2",
        "bfloat16",
        "int32",
        "bool",
    )
    if hasattr(torch, name)
]
OTHER_LAYERS: dict[str, Spec] = {
    "another dtype of the same size": [("float32", [6]), ("bfloat16", [4])],
    "another dtype of another size": [("float16", [6]), ("float32", [4])],
    "another shape": [("float32", [2, 5]), ("float16", [3])],
    "larger": [("float32", [600]), ("float16", [400])],
    "more tensors": [*USUAL, ("float32", [1]), ("uint8", [3])],
    "fewer tensors": [("float32", [6])],
}
both_modes = pytest.mark.parametrize("use_async", [False, True], ids=["sync", "async"])


def run(ranks: Ranks, layers: list[Spec], use_async: bool, **more: Any) -> list[dict[str, Any]]:
    """Rearrange twice; nothing may be wrong at any step."""
    settings = {"check_weights": False} | more.pop("settings", {})
    arguments = {"layers": layers} | more.pop("arguments", {})
    reports = ranks(
        scenario="layers",
        arguments=arguments,
        settings=settings,
        use_async=use_async,
        rearrangements=2,
        **more,
    )
    assert_nothing_wrong(reports)
    assert len(reports[0]["placements"]) == 2
    return reports


def refused(ranks: Ranks, layers: list[Spec], **more: Any) -> str:
    """The error with which both ranks refuse to add the model."""
    settings = {"check_weights": False} | more.pop("settings", {})
    arguments = {"layers": layers, "refused": True} | more.pop("arguments", {})
    reports = ranks(scenario="layers", arguments=arguments, settings=settings, **more)
    assert reports[0] == reports[1]
    error: str = reports[0]["error"]
    return error


@both_modes
@pytest.mark.parametrize("other", OTHER_LAYERS.values(), ids=OTHER_LAYERS)
@pytest.mark.parametrize("place", ["first", "middle", "last"])
def test_experts_of_layers_that_differ_move_right(
    other: Spec, place: str, use_async: bool, some_ranks: Ranks
) -> None:
    layers = [USUAL, USUAL, USUAL]
    layers[["first", "middle", "last"].index(place)] = other
    run(some_ranks, layers, use_async, settings={"check_weights": place == "last"})


@both_modes
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_is_profiled_and_moved(dtype: str, use_async: bool, some_ranks: Ranks) -> None:
    layers: list[Spec] = [[(dtype, [16]), ("float32", [3])]] * 3
    reports = run(some_ranks, layers, use_async, arguments={"profile": True})
    assert all(report["dtypes"] == ["torch.uint8"] for report in reports)


@both_modes
def test_weights_that_come_from_a_generator_move_right(use_async: bool, some_ranks: Ranks) -> None:
    run(some_ranks, [USUAL] * 3, use_async, arguments={"lazy": True})


@both_modes
def test_a_drafter_of_other_sizes_moves_right(use_async: bool, some_ranks: Ranks) -> None:
    run(some_ranks, [USUAL] * 3, use_async, arguments={"drafter": [[("bfloat16", [5])]]})


def test_fewer_slots_are_refused_by_layer_and_tensor(some_ranks: Ranks) -> None:
    for check_weights in (False, True):
        error = refused(
            some_ranks,
            [USUAL] * 3,
            arguments={"fewer_slots": 2},
            settings={"check_weights": check_weights},
        )
        assert "LayersError" in error
        assert "tensor 0 of layer 2 (float32 [6]) has 4 slots" in error
        assert "each rank holds 6 slots of every layer. Serve it without --enable-eplb" in error


def test_a_layer_whose_weights_are_missing_is_refused(some_ranks: Ranks) -> None:
    error = refused(some_ranks, [USUAL] * 3, arguments={"forget_layer": True})
    assert "it has 3 MoE layers, and gave weights of 2" in error


@both_modes
def test_layers_that_differ_on_one_rank_only_are_refused_on_both(
    use_async: bool, some_ranks: Ranks
) -> None:
    other = {
        "refused": True,
        "layers": [USUAL, OTHER_LAYERS["another dtype of the same size"], USUAL],
    }
    error = refused(some_ranks, [USUAL] * 3, use_async=use_async, on_rank_1={"arguments": other})
    assert "RanksDisagreeError: The MoE layers: the 2 EP ranks do not agree" in error
    assert 'float32 [6] in 6 slots on cpu, float16 [4] in 6 slots on cpu: "0-2" on rank 0' in error
    assert '"0, 2" on rank 1' in error
    assert "bfloat16" in error


@both_modes
def test_redundant_slots_that_are_empty_are_refused_on_both_ranks(
    use_async: bool, some_ranks: Ranks
) -> None:
    for check_weights in (False, True):
        error = refused(
            some_ranks,
            [USUAL] * 3,
            use_async=use_async,
            arguments={"unfilled": -1},
            settings={"check_weights": check_weights},
        )
        assert "WeightsError: layer 0 of model" in error
        assert ": slot 8 was loaded with other weights than slot 0" in error
        assert "both hold logical expert 0 (and 11 more slots)" in error


@both_modes
def test_dummy_weights_are_warned_of_once(use_async: bool, some_ranks: Ranks) -> None:
    before = len(some_ranks.log.read_text())
    some_ranks(
        scenario="layers",
        arguments={"layers": [USUAL] * 3, "unfilled": -1, "dummy": True},
        settings={"check_weights": False},
        use_async=use_async,
        rearrangements=1,
    )
    log = some_ranks.log.read_text()[before:]
    assert log.count("EPLB does not compare redundant slots of model0") == 1


def test_dummy_weights_on_one_rank_only_are_refused(some_ranks: Ranks) -> None:
    layers = {"refused": True, "layers": [USUAL] * 3}
    error = refused(some_ranks, [USUAL] * 3, on_rank_1={"arguments": layers | {"dummy": True}})
    assert "dummy weights: false on rank 0" in error and "true on rank 1" in error


@both_modes
@pytest.mark.parametrize("check_weights", [False, True], ids=["unchecked", "checked"])
def test_replicas_that_differ_in_something_small_are_served_with_a_warning(
    check_weights: bool, use_async: bool, some_ranks: Ranks, tmp_path: Any
) -> None:
    before = len(some_ranks.log.read_text())
    reports = some_ranks(
        scenario="layers",
        arguments={"layers": [[("float32", [64]), ("float16", [4])]] * 3, "unfilled": 1},
        settings={"check_weights": check_weights},
        use_async=use_async,
        rearrangements=2,
    )
    assert len(reports[0]["placements"]) == 2
    log = some_ranks.log.read_text()[before:]
    assert log.count("differ in something small beside them") == 1
    assert "EPLB weight check failed" not in log


def test_without_redundant_experts_nothing_is_compared(some_ranks: Ranks) -> None:
    run(some_ranks, [USUAL] * 3, False, redundant=0)


def test_a_rank_that_elastic_ep_adds_waits_for_nobody(some_ranks: Ranks) -> None:
    reports = some_ranks(
        scenario="layers",
        arguments={"layers": [USUAL] * 3, "joins": True},
        elastic=True,
        redundant=8,
    )
    assert [report["added"] for report in reports] == [False, True]
