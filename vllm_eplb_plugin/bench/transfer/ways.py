# SPDX-License-Identifier: Apache-2.0
"""Ways in which vLLM moves the experts of a layer, made as a server makes them."""

import functools
import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from vllm.distributed.eplb import eplb_communicator, rebalance_execute

from vllm_eplb_plugin.bench.transfer.held_weights import HeldWeights
from vllm_eplb_plugin.bench.transfer.placements import Placement
from vllm_eplb_plugin.bench.transfer.task import WAYS
from vllm_eplb_plugin.engine.peers import Peers
from vllm_eplb_plugin.overrides.binding import bind
from vllm_eplb_plugin.overrides.catalogue import overrides_at
from vllm_eplb_plugin.transfer.layer_weights import LayerWeights, byte_view

_MOVES = ("move_to_buffer", "move_from_buffer")


@dataclass(frozen=True)
class Functions:
    """vLLM's two functions that move a layer, as they are or as the plugin makes them."""

    to_buffer: Callable[..., Any]
    from_buffer: Callable[..., Any]

    @classmethod
    def now(cls) -> "Functions":
        """Those that a server of this process would call."""
        return cls(*(getattr(rebalance_execute, name) for name in _MOVES))


@dataclass(frozen=True)
class Way:
    """One way, ready to move any layer."""

    functions: Functions
    weights: Sequence[Sequence[torch.Tensor]]
    """By layer."""
    buffer: Sequence[torch.Tensor]
    communicator: Any
    stream: Any
    """On which transfers are queued, as by vLLM's async worker."""
    rank: int

    def transfer(self, layer: int, old: Placement, new: Placement) -> Any:
        """Bring a layer into the buffer, which is done when the stream is."""
        return self.functions.to_buffer(
            num_local_experts=len(self.buffer[0]),
            old_indices=old,
            new_indices=new,
            expert_weights=self.weights[layer],
            expert_weights_buffers=self.buffer,
            ep_rank=self.rank,
            communicator=self.communicator,
            layer_idx=layer,
            **{_stream_name(): self.stream},
        )

    def commit(self, layer: int, new: Placement, received: Any) -> None:
        """Copy what `transfer` returned from the buffer into the weights."""
        self.functions.from_buffer(
            expert_weights=self.weights[layer],
            expert_weights_buffers=self.buffer,
            transfer_metadata=received,
            new_indices=new,
            ep_rank=self.rank,
        )


class Absent(RuntimeError):  # noqa: N818
    """A way is not to be had here; the message says why."""


class Makers:
    """Makes ways over the same weights; the plugin's functions are bound when it is made."""

    def __init__(self, group: Any, release: str) -> None:
        """Take vLLM's group of EPLB; ``release`` is that of the installed vLLM's overrides."""
        self._group = group
        self._stock = Functions.now()
        moves = (one for one in overrides_at(release, "state") if _is_move(one.target))
        bind(tuple(moves))
        self._plugin = Functions.now()

    def make(self, name: str, held: HeldWeights) -> Way:
        """Make one of `WAYS`; all ranks call together.

        Raises:
            Absent: It cannot be had on this rank.
        """
        if name == "nixl" and not eplb_communicator.has_nixl():
            raise Absent("not installed")
        if name == "nccl" and held.layers[0][0].device.type == "cpu":
            raise Absent("needs GPUs")  # vLLM would take gloo under this name
        if name in ("nccl", "pynccl") and self._group.world_size > torch.cuda.device_count() > 0:
            raise Absent("needs a GPU for each rank")
        if name == "peers":
            return self._make_peers(held)
        return self._way(self._stock, WAYS[name], held.layers, held.buffer)

    def _make_peers(self, held: HeldWeights) -> Way:
        layers = [LayerWeights(layer) for layer in held.layers]
        buffer = [byte_view(tensor) for tensor in held.buffer]
        # Between transfer and commit the benchmark lets all ranks arrive itself, out of the time.
        problem = Peers(lambda: layers, lambda *_: None).open(self._group.cpu_group)
        if problem is not None:
            raise Absent(problem)
        return self._way(self._plugin, WAYS["peers"], layers, buffer)

    def _way(
        self,
        functions: Functions,
        backend: str,
        weights: Sequence[Sequence[torch.Tensor]],
        buffer: Sequence[torch.Tensor],
    ) -> Way:
        try:
            communicator = eplb_communicator.create_eplb_communicator(
                group_coordinator=self._group,
                backend=backend,
                expert_weights=weights,
                expert_buffer=buffer,
            )
        except (RuntimeError, ValueError) as error:
            raise Absent(str(error)) from error
        # On a CPU this module's torch has streams of the host.
        stream = rebalance_execute.torch.cuda.Stream()
        communicator.set_stream(stream)
        return Way(functions, weights, buffer, communicator, stream, self._group.rank_in_group)


def bind_host_streams(release: str) -> None:
    """Let vLLM's functions run on a CPU, which has no streams."""
    bind(overrides_at(release, "loopback"))


def _is_move(target: str) -> bool:
    return target in [f"{rebalance_execute.__name__}:{name}" for name in _MOVES]


@functools.cache
def _stream_name() -> str:
    """``cuda_stream`` up to 0.30."""
    names: Iterable[str] = inspect.signature(rebalance_execute.move_to_buffer).parameters
    return next(name for name in names if name.endswith("stream"))
