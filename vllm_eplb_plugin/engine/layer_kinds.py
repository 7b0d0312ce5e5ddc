# SPDX-License-Identifier: Apache-2.0
"""Whether vLLM can move the experts of a model's MoE layers, by what their tensors are."""

from collections.abc import Sequence

from vllm_eplb_plugin.engine.rendezvous import spans
from vllm_eplb_plugin.transfer.layer_weights import TensorKind

_SERVE_WITHOUT = "Serve it without --enable-eplb."
Layer = Sequence[TensorKind]


def describe_layers(layers: Sequence[Layer]) -> dict[str, str]:
    """Describe layers in a few words however many there are, to be compared over ranks.

    Returns:
        By the tensors of a layer, the numbers of the layers that have them.
    """
    numbers: dict[str, list[int]] = {}
    for number, layer in enumerate(layers):
        numbers.setdefault(_name(layer), []).append(number)
    return {name: spans(of_kind) for name, of_kind in numbers.items()}


def find_misfit(
    layers: Sequence[Layer], num_moe_layers: int, slots: int, communicator: str | None
) -> str | None:
    """Find the first thing for which experts cannot be moved.

    Args:
        layers: Of each MoE layer, its tensors.
        num_moe_layers: How many the model says it has.
        slots: Of a rank, in each layer.
        communicator: vLLM's, of --eplb-config; None before 0.20, which has no choice.

    Returns:
        It, and what to do; None: all of them can be moved.
    """
    if len(layers) != num_moe_layers:
        return (
            f"it has {num_moe_layers} MoE layers, and gave weights of {len(layers)}; with pipeline "
            f"parallelism, some models count the layers of all stages. {_SERVE_WITHOUT}"
        )
    for number, layer in enumerate(layers):
        if not layer:
            return f"layer {number} gave no tensors. {_SERVE_WITHOUT}"
        for index, tensor in enumerate(layer):
            if tensor.slots != slots:
                has = "no dimensions" if tensor.slots < 0 else f"{tensor.slots} slots"
                return (
                    f"tensor {index} of layer {number} ({tensor.text}) has {has}, and each rank "
                    f"holds {slots} slots of every layer. {_SERVE_WITHOUT}"
                )
        problem = _where_it_differs(number, layer, layers[0], communicator)
        if problem is not None:
            return problem
    return None


def _where_it_differs(
    number: int, layer: Layer, first: Layer, communicator: str | None
) -> str | None:
    devices = {tensor.device for tensor in (*layer, *first)}
    if len(devices) > 1 and communicator != "torch_gloo":
        return (
            f"the tensors of layers 0 and {number} are on {' and '.join(sorted(devices))}. Keep "
            "experts on one device, or let them be moved over the host, by --eplb-config "
            f'\'{{"communicator": "torch_gloo"}}\' (vLLM 0.20 and later). {_SERVE_WITHOUT}'
        )
    if communicator == "nixl" and (difference := _difference(layer, first)) is not None:
        return (
            f"layer {number} differs from layer 0 ({difference}), and NIXL knows buffers like "
            "layer 0's only. Choose another one by --eplb-config "
            '\'{"communicator": "torch_gloo"}\', or serve it without --enable-eplb.'
        )
    return None


def _difference(layer: Layer, first: Layer) -> str | None:
    if len(layer) != len(first):
        return f"{len(layer)} tensors, not {len(first)}"
    for index, (tensor, like) in enumerate(zip(layer, first, strict=True)):
        if tensor.slot_bytes != like.slot_bytes:
            return (
                f"tensor {index}: {tensor.slot_bytes} bytes a slot, {tensor.text}, not "
                f"{like.slot_bytes} bytes, {like.text}"
            )
    return None


def _name(layer: Layer) -> str:
    tensors = [f"{tensor.text} in {tensor.slots} slots on {tensor.device}" for tensor in layer]
    return f"layers of {len(layer)} tensors, {', '.join(tensors)}"
