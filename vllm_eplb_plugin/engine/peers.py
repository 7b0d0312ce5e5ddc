# SPDX-License-Identifier: Apache-2.0
"""Which ranks read each other's expert weights: opened on all of them together, and compared."""

import contextlib
import logging
import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.distributed import ProcessGroup, ReduceOp, all_reduce

from vllm_eplb_plugin.engine.gathered import gather_objects
from vllm_eplb_plugin.observe.checks.digests import digest_parts
from vllm_eplb_plugin.transfer.layer_weights import LayerWeights
from vllm_eplb_plugin.transfer.peer_layer import PeerLayer
from vllm_eplb_plugin.transfer.peer_memory import (
    SharedWeights,
    bytes_to_share,
    open_shared,
    share,
    shared_memory_problem,
    storages_of,
)

logger = logging.getLogger("vllm.eplb_plugin")

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_PROCESSES = Path("/proc/self/ns/pid")

Tensors = list[list[torch.Tensor]]


@dataclass(frozen=True)
class _Offer:
    """What one rank tells the others when they open each other's weights."""

    host: str
    device: str
    """Of its experts, as people name it."""
    shared: SharedWeights | None
    digests: torch.Tensor
    """``[layers, 2]``: of one slot of each layer, as its owner reads it."""
    problem: str | None = None


class Peers:
    """One model's expert weights, on the ranks that this one reads."""

    def __init__(
        self,
        layers: Callable[[], Sequence[LayerWeights]],
        arrive: Callable[[BaseException | None], None],
    ) -> None:
        """Take where a model's layers are found; for ``arrive`` see `PeerLayer`.

        They are asked for anew each time: elastic EP gives the model another list.
        """
        self._find_layers, self._arrive = layers, arrive
        self.hosts: Sequence[int] = ()
        """Of each EP rank a number, where weights are open: those of a host have the same."""
        self._tried: tuple[int, list[int]] | None = None
        """Ranks and addresses with which `open` was called last."""
        self._is_open = False

    def open(self, group: ProcessGroup) -> str | None:
        """Open the weights of all ranks of this host, and compare.

        All ranks of the gloo group call together, while no weights move. Either on all of them
        layers pull from now on, or on none.

        Returns:
            Why not, the same on all; None: they do.
        """
        self.close()
        problem = self._look(group) or self._share_and_open(group)
        self._tried = group.size(), self._addresses()
        return problem

    def _look(self, group: ProcessGroup) -> str | None:
        """Before any weights move into shared memory, which they cannot leave."""
        try:
            size, problem = bytes_to_share(self._layers), None
        except RuntimeError as error:  # of tensors that stand for others
            size, problem = 0, f"memory of the expert weights cannot be shared: {error}"
        told = gather_objects((host_name(), size, problem), group)
        if (problem := _first(problem for _, _, problem in told)) is not None:
            return problem
        hosts = [host for host, _, _ in told]
        if len(set(hosts)) == len(hosts):
            return "every EP rank is on a host of its own"
        here = hosts[group.rank()]
        needed = sum(size for host, size, _ in told if host == here)
        problem = shared_memory_problem(needed) if needed else None
        return _first(gather_objects(problem and f"{here}: {problem}", group))

    def _share_and_open(self, group: ProcessGroup) -> str | None:
        offers: list[_Offer] = gather_objects(self._offer(host_name()), group)
        if (problem := _first(offer.problem for offer in offers)) is not None:
            return problem
        opened, problem = self._open(offers, group.rank())
        problem = _first(gather_objects(problem, group))
        if problem is None:
            numbers = [[one.host for one in offers].index(offer.host) for offer in offers]
            self._attach(opened, numbers, group.rank())
        return problem

    @property
    def _layers(self) -> Sequence[LayerWeights]:
        return self._find_layers()

    def close(self) -> None:
        """Let go of other ranks' memory: layers go through vLLM's communicator."""
        self._is_open = False
        self.let_go()

    def let_go(self) -> None:
        """Let go of other ranks' memory until weights move again, as when they are replaced.

        What others have open of a tensor that is replaced is freed only when they let go.
        """
        for layer in self._layers:
            layer.peers = None

    def renew(self, group: ProcessGroup) -> None:
        """Open anew, if on any rank weights lie elsewhere than when it was tried last.

        As after a reload that replaces tensors, or when elastic EP has made other groups. All
        ranks of the gloo group call together.
        """
        if group.size() == 1:  # elastic EP has left no other
            return
        now = group.size(), self._addresses()
        # As after `let_go`, or in layers that vLLM has made anew over the same memory.
        forgotten = self._is_open and any(layer.peers is None for layer in self._layers)
        changed = torch.tensor([int(forgotten or now != self._tried)], dtype=torch.int32)
        all_reduce(changed, op=ReduceOp.MAX, group=group)
        if not changed.item():
            return
        problem = self.open(group)
        if problem is not None and group.rank() == 0:
            logger.warning(
                "EPLB: expert weights go through vLLM's communicator from here on, because EP "
                "ranks can no longer read each other's memory: %s",
                problem,
            )

    def _addresses(self) -> list[int]:
        try:
            return list(storages_of(self._layers))
        except RuntimeError:  # as in `_look`
            return []

    def _offer(self, host: str) -> _Offer:
        device = _describe(self._layers[0][0].device)
        if self._layers[0][0].device.type == "cuda":
            # What others have just closed.
            torch.cuda.ipc_collect()  # type: ignore[no-untyped-call]
        try:
            digests, shared, problem = _digest(self._layers), share(self._layers), None
        except RuntimeError as error:  # of torch, or a SharingError
            shared, digests, problem = None, torch.zeros(0, 2), str(error)
        return _Offer(host, device, shared, digests, problem and f"{host}: {problem}")

    def _open(self, offers: Sequence[_Offer], rank: int) -> tuple[dict[int, Tensors], str | None]:
        mine, opened = offers[rank], dict[int, Tensors]()
        for other, offer in enumerate(offers):
            if offer.host != mine.host or other == rank or offer.shared is None:
                continue
            pair = f"EP rank {rank} ({mine.device}) cannot read EP rank {other} ({offer.device})"
            try:
                opened[other] = open_shared(offer.shared, self._layers[0][0].device)
                is_same = torch.equal(_digest(opened[other]), offer.digests)
            except RuntimeError as error:
                return {}, f"{pair}: {error}"
            if not is_same:
                return {}, f"{pair}: it reads other bytes than are there"
        return opened, None

    def _attach(self, opened: dict[int, Tensors], hosts: Sequence[int], rank: int) -> None:
        self.hosts, self._is_open = hosts, True
        for number, layer in enumerate(self._layers):
            tensors = {rank: layer} | {other: of[number] for other, of in opened.items()}
            layer.peers = PeerLayer(rank, tensors, hosts, self._arrive)


def host_name() -> str:
    """Name what ranks that can read each other have in common, for people to read, too."""
    names = [socket.gethostname()]
    with contextlib.suppress(OSError):  # where /proc is not, or is hidden
        names += [_BOOT_ID.read_text().strip(), str(_PROCESSES.readlink())]
    return " ".join(names)


def _digest(layers: Sequence[Sequence[torch.Tensor]]) -> torch.Tensor:
    """``[layers, 2]``, of a slot in each, another one from layer to layer."""
    slots = (torch.tensor([number % len(layer[0])]) for number, layer in enumerate(layers))
    return torch.cat([digest_parts(layer, slot) for layer, slot in zip(layers, slots, strict=True)])


def _describe(device: torch.device) -> str:
    if device.type != "cuda":
        return str(device)
    properties = torch.cuda.get_device_properties(device)
    return f"{properties.name} {getattr(properties, 'uuid', device.index)}"


def _first(problems: Iterable[str | None]) -> str | None:
    return next((problem for problem in problems if problem is not None), None)
