# SPDX-License-Identifier: Apache-2.0
"""On a vLLM that is not tested: one rearrangement there and back before it serves.

Signatures say that overrides fit, and nothing of what vLLM does behind them. So real weights go to
other ranks by vLLM's own `EplbState.rearrange`, are compared, and come back.
"""

import copy
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from vllm_eplb_plugin.compatibility import Support, installed_support
from vllm_eplb_plugin.engine.commit_checks import gather_ledger
from vllm_eplb_plugin.engine.gathered import gather_objects
from vllm_eplb_plugin.engine.session import Session, session_of
from vllm_eplb_plugin.engine.wanted_placement import rearrange_to
from vllm_eplb_plugin.observe.checks.router_maps import mismatched_experts
from vllm_eplb_plugin.observe.checks.weights import WeightLedger, WeightsError
from vllm_eplb_plugin.placement.scattered import scatter_experts
from vllm_eplb_plugin.settings import Settings

logger = logging.getLogger("vllm.eplb_plugin")


class SelfTestError(RuntimeError):
    """The installed vLLM does not rearrange experts as the release whose overrides it got."""

    def __init__(self, support: Support, what: str) -> None:
        super().__init__(
            f"vLLM {support.installed} is none of the tested releases, and what it does is not "
            f"what {support.release} does, whose overrides it got: {what}. {support.alternatives}"
        )


def run_self_test(state: Any, model_state: Any, group: dist.ProcessGroup) -> str | None:
    """Rearrange the first and the last MoE layer, and rearrange them back.

    Nothing of the state is left changed. All ranks of the group call together, while no async
    worker runs.

    Args:
        state: An `EplbState`.
        model_state: One of its models, committed once.
        group: The gloo group of the EP ranks.

    Returns:
        How it went, for the log; None where vLLM is a tested release and nothing was done.

    Raises:
        SelfTestError: On every rank, if on any of them an expert's weights or the router's maps
            were not where the placement says.
    """
    support = installed_support()
    if support.tested:
        return None
    if (reason := _what_forbids(state, model_state, group)) is not None:
        return _not_tried(reason, group)
    layers = sorted({0, len(model_state.physical_to_logical_map) - 1})
    started = time.perf_counter()
    try:
        ledger = gather_ledger(model_state, group, layers)
    except WeightsError as error:
        return _not_tried(f"weights cannot be compared, {error}", group)
    check = _Check(model_state, group, layers, ledger)
    for placement, way in _there_and_back(model_state, layers, group.size()):
        try:
            _rearrange(state, model_state, placement, group)
            problem = check.problem(placement)
        except Exception as error:  # of a vLLM that nobody has seen
            # At once: others may wait for this rank in a transfer, not where ranks agree.
            raise SelfTestError(support, f"{type(error).__name__}: {error}") from error
        if (problems := _of_all_ranks(problem, group)) is not None:
            moved = f"when experts of the MoE layers {layers} were moved {way}"
            raise SelfTestError(support, f"{moved}, {problems}")
    return f"tried on the MoE layers {layers} in {time.perf_counter() - started:.2f} s"


def _there_and_back(
    model_state: Any, layers: Sequence[int], num_ranks: int
) -> tuple[tuple[torch.Tensor, str], ...]:
    in_force = model_state.physical_to_logical_map.cpu().clone()
    elsewhere = in_force.clone()
    num_slots, num_experts = in_force.shape[1], model_state.model.num_logical_experts
    elsewhere[layers] = scatter_experts(num_slots, num_experts, num_ranks).to(in_force.dtype)
    return (elsewhere, "to other ranks"), (in_force, "back")


def _not_tried(reason: str, group: dist.ProcessGroup) -> str:
    if group.rank() == 0:
        logger.warning("EPLB of this untested vLLM was not tried before serving: %s", reason)
    return "not tried before serving"


def _what_forbids(state: Any, model_state: Any, group: dist.ProcessGroup) -> str | None:
    if state.parallel_config.enable_elastic_ep:
        return "with elastic EP, ranks that join get their experts only later"
    if model_state.model.num_moe_layers == 0:
        return "there is no MoE layer on this rank"
    if model_state.model.num_logical_experts < group.size():
        return "there are fewer logical experts than EP ranks"
    if torch.version.hip is not None:
        return "on ROCm, vLLM leaves out a rearrangement that does not improve the balance"
    if not hasattr(model_state, "communicator") and dist.get_world_size() != group.size():
        return "vLLM before 0.20 moves weights over a group of more ranks than those of EP"
    return None


def _rearrange(
    state: Any, model_state: Any, placement: torch.Tensor, group: dist.ProcessGroup
) -> None:
    """Carry out one placement at once, by copies that share all tensors with the originals: what
    is counted, told or kept beside them goes with the copies."""
    trial, trial_model = copy.copy(state), copy.copy(model_state)
    trial.model_states = {model_state.model_name: trial_model}
    session = Session(Settings(), session_of(state).source)
    session.attach(trial)
    session.add(trial_model, group)
    rearrange_to(trial, [placement])


@dataclass(frozen=True)
class _Check:
    """What has to hold on this rank after a commit."""

    model_state: Any
    group: dist.ProcessGroup
    layers: Sequence[int]
    ledger: WeightLedger

    def problem(self, placement: torch.Tensor) -> str | None:
        """The first thing that is not as the placement says; None: all is."""
        committed = self.model_state.physical_to_logical_map.cpu()
        for layer, slot in (committed != placement).nonzero().tolist():
            wanted, found = int(placement[layer, slot]), int(committed[layer, slot])
            return f"layer {layer}, slot {slot} was to get logical expert {wanted}, not {found}"
        l2p = self.model_state.logical_to_physical_map.cpu()
        counts = self.model_state.logical_replica_count.cpu()
        for layer, row in enumerate(placement):
            if wrong := mismatched_experts(row, l2p[layer], counts[layer]):
                return f"layer {layer}: the router does not find logical experts {wrong}"
        for layer in self.layers:
            digests = self.ledger.digest(layer, self.model_state.model.expert_weights[layer])
            first = self.group.rank() * len(digests)
            if bad := self.ledger.mismatched_slots(layer, placement[layer], digests, first):
                return f"layer {layer}: slots {bad} do not hold the weights of their experts"
        return None


def _of_all_ranks(problem: str | None, group: dist.ProcessGroup) -> str | None:
    """What any rank has found, the same text on all; None: nothing."""
    problems = gather_objects(problem, group)
    found = [f"rank {rank}: {text}" for rank, text in enumerate(problems) if text is not None]
    if not found:
        return None
    return found[0] + (f" (and {len(found) - 1} more ranks)" if len(found) > 1 else "")
