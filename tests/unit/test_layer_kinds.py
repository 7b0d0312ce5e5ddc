# SPDX-License-Identifier: Apache-2.0
"""What cannot be moved is named by layer and tensor, before anything is moved."""

import pytest

from vllm_eplb_plugin.engine.layer_kinds import describe_layers, find_misfit
from vllm_eplb_plugin.transfer.layer_weights import TensorKind

WEIGHTS, SCALE = TensorKind(6, 24, "cuda", "float32 [6]"), TensorKind(6, 2, "cuda", "bfloat16 [1]")
USUAL = [WEIGHTS, SCALE]
SMALLER = [TensorKind(6, 12, "cuda", "float16 [6]"), SCALE]


@pytest.mark.parametrize("communicator", [None, "torch_nccl", "torch_gloo", "pynccl", "torch_xccl"])
def test_layers_that_differ_can_be_moved(communicator: str | None) -> None:
    assert find_misfit([USUAL, SMALLER, [WEIGHTS]], 3, 6, communicator) is None


def test_layers_of_other_dtypes_and_the_same_bytes_can_be_moved_by_nixl() -> None:
    other = [TensorKind(6, 24, "cuda", "bfloat16 [12]"), SCALE]
    assert find_misfit([USUAL, other], 2, 6, "nixl") is None


@pytest.mark.parametrize(
    ("layers", "communicator", "problem"),
    [
        ([USUAL], None, "it has 2 MoE layers, and gave weights of 1"),
        ([USUAL] * 3, None, "it has 2 MoE layers, and gave weights of 3"),
        ([USUAL, []], None, "layer 1 gave no tensors"),
        (
            [USUAL, [WEIGHTS, TensorKind(7, 2, "cuda", "int8 [2]")]],
            None,
            "tensor 1 of layer 1 (int8 [2]) has 7 slots, and each rank holds 6 slots",
        ),
        ([USUAL, [TensorKind(-1, 4, "cuda", "float32 []")]], None, "has no dimensions"),
        (
            [USUAL, [WEIGHTS, TensorKind(6, 2, "cpu", "bfloat16 [1]")]],
            "torch_nccl",
            "the tensors of layers 0 and 1 are on cpu and cuda",
        ),
        ([USUAL, SMALLER], "nixl", "tensor 0: 12 bytes a slot, float16 [6], not 24 bytes"),
        ([USUAL, [WEIGHTS]], "nixl", "layer 1 differs from layer 0 (1 tensors, not 2)"),
    ],
)
def test_what_cannot_be_moved_is_named_with_the_next_step(
    layers: list[list[TensorKind]], communicator: str | None, problem: str
) -> None:
    found = find_misfit(layers, 2, 6, communicator)
    assert found is not None and problem in found and "without --enable-eplb" in found


def test_layers_on_two_devices_are_moved_over_the_host() -> None:
    layers = [USUAL, [TensorKind(6, 24, "cpu", "float32 [6]"), SCALE]]
    assert find_misfit(layers, 2, 6, "torch_gloo") is None


def test_layers_are_described_by_what_they_have_in_common() -> None:
    kinds = "layers of {} tensors, float32 [6] in 6 slots on cuda"
    second = ", bfloat16 [1] in 6 slots on cuda"
    described = describe_layers([USUAL, USUAL, [WEIGHTS], USUAL])
    assert described == {kinds.format(2) + second: "0-1, 3", kinds.format(1): "2"}
