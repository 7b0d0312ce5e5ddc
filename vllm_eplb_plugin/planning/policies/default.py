# SPDX-License-Identifier: Apache-2.0
"""vLLM's default policy, compiled: the same placement for the same load, ten times sooner.

The algorithm is that of ``vllm.distributed.eplb.policy.default`` (all of 0.18 to 0.33 place alike),
in its order of operations and its precision, because ties decide where experts go. Sorting stays
numpy's own, whose order of equal elements depends on the machine.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vllm_eplb_plugin.placement.compiling import compiled
from vllm_eplb_plugin.planning.problem import Problem
from vllm_eplb_plugin.planning.slots import keep_slots

Floats = NDArray[np.floating]
Ints = NDArray[np.int64]


class CompiledPolicy:
    """This stands for vLLM's ``DefaultEplbPolicy``."""

    @classmethod
    def rebalance_experts(
        cls,
        weight: torch.Tensor,
        num_replicas: int,
        num_groups: int,
        num_nodes: int,
        num_ranks: int,
        old_global_expert_indices: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Place experts so that every rank has about the same load.

        Args:
            weight: ``[layers, logical]``, tokens of each logical expert, of any dtype.
            num_replicas: Physical experts, a multiple of ``num_ranks``.
            num_groups: Expert groups; where it is a multiple of ``num_nodes``, a group stays on
                one node.
            num_nodes: Nodes.
            num_ranks: EP ranks, a multiple of ``num_nodes``.
            old_global_expert_indices: ``[layers, physical]``, the placement in force: experts
                that stay on their rank keep their slots.

        Returns:
            ``[layers, num_replicas]`` int64 on the CPU.

        Raises:
            ValueError: Numbers that do not divide as they must, or fewer slots than experts.
        """
        load = weight.float().cpu().numpy()
        if num_groups % num_nodes != 0:
            num_groups = num_nodes = 1
        _check(load.shape[1], num_replicas, num_groups, num_nodes, num_ranks)
        placement = _place(load, num_replicas, num_groups, num_nodes, num_ranks)
        if old_global_expert_indices is not None:
            old = old_global_expert_indices.cpu().numpy().astype(np.int64, copy=False)
            if old.shape[1] < num_replicas:
                raise ValueError(
                    f"old_global_expert_indices has {old.shape[1]} slots a layer: "
                    f"it needs num_replicas={num_replicas} or more"
                )
            keep_slots(placement, np.ascontiguousarray(old), num_ranks)
        return torch.from_numpy(placement)


@dataclass(frozen=True)
class Default:
    """The same as a policy of this package, from whatever plans as vLLM's does."""

    policy: Any = CompiledPolicy
    """Anything with vLLM's ``rebalance_experts``."""

    def __call__(self, problem: Problem) -> Ints:
        """Plan ``[layers, slots]``."""
        answer = self.policy.rebalance_experts(
            torch.from_numpy(problem.load),
            problem.num_slots,
            problem.num_groups,
            problem.num_nodes,
            problem.num_ranks,
            torch.from_numpy(problem.old),
        )
        answer = answer[0] if isinstance(answer, tuple) else answer
        placement: Ints = answer.cpu().numpy()
        return placement


def _check(experts: int, slots: int, groups: int, nodes: int, ranks: int) -> None:
    if slots < experts:
        raise ValueError(f"num_replicas={slots} is fewer than the {experts} logical experts")
    for name, number, divisor_name, divisor in (
        ("logical experts", experts, "num_groups", groups),
        ("num_ranks", ranks, "num_nodes", nodes),
        ("num_replicas", slots, "num_ranks", ranks),
    ):
        if number % divisor != 0:
            raise ValueError(f"{name}={number} is not divisible by {divisor_name}={divisor}")


def _place(load: Floats, slots: int, groups: int, nodes: int, ranks: int) -> Ints:
    layers, experts = load.shape
    group_size = experts // groups
    # Groups to nodes: experts in the order in which the nodes hold them.
    group_load = load.reshape(layers, groups, group_size).sum(axis=-1)
    by_node = _pack(group_load, nodes)[..., None] * group_size + np.arange(group_size)
    by_node = by_node.reshape(layers, experts)
    # On each node, replicas of its busiest experts, and all of them to its ranks.
    node_load = np.take_along_axis(load, by_node, axis=1).reshape(layers * nodes, -1)
    expert_of, slot_load = _replicate(node_load.astype(np.float64), slots // nodes)
    by_rank = np.take_along_axis(expert_of, _pack(slot_load, ranks // nodes), axis=1)
    first = np.arange(nodes)[:, None] * (experts // nodes)
    by_rank = (by_rank.reshape(layers, nodes, -1) + first).reshape(layers, slots)
    placement: Ints = np.take_along_axis(by_node, by_rank, axis=1)
    return placement


def _pack(load: Floats, packs: int) -> Ints:
    """``[rows, items]``: the items of each row, those of the first pack first."""
    rows, items = load.shape
    if items == packs:
        return np.tile(np.arange(items, dtype=np.int64), (rows, 1))
    heaviest_first = np.argsort(-load, axis=-1)
    packed: Ints = _pack_in_order(load.astype(np.float64), heaviest_first, packs)
    return packed


# Without the interpreter's lock, the thread that runs the model goes on while the async worker's
# plans.
@compiled("i8[:,::1](f8[:,::1], i8[:,::1], i8)", nogil=True)
def _pack_in_order(load, order, packs):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    rows, items = load.shape
    size = items // packs
    packed = np.empty((rows, items), np.int64)
    for row in range(rows):
        pack_load = np.zeros(packs)
        count = np.zeros(packs, np.int64)
        for item in order[row]:
            pack = np.argmin(pack_load)
            packed[row, pack * size + count[pack]] = item
            count[pack] += 1
            pack_load[pack] += load[row, item]
            if count[pack] == size:
                pack_load[pack] = np.inf
    return packed


@compiled("Tuple((i8[:,::1], f8[:,::1]))(f8[:,::1], i8)", nogil=True)
def _replicate(load, slots):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    rows, experts = load.shape
    expert_of = np.empty((rows, slots), np.int64)
    slot_load = np.empty((rows, slots))
    for row in range(rows):
        replicas = np.ones(experts, np.int64)
        share = load[row].copy()
        for slot in range(slots):
            expert = slot if slot < experts else np.argmax(share)
            expert_of[row, slot] = expert
            if slot >= experts:
                replicas[expert] += 1
                share[expert] = load[row, expert] / replicas[expert]
        for slot in range(slots):
            slot_load[row, slot] = share[expert_of[row, slot]]
    return expert_of, slot_load
