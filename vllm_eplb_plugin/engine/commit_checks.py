# SPDX-License-Identifier: Apache-2.0
"""After every commit, whether weights and maps are what the placement says (`check_weights`)."""

import logging
from collections.abc import Callable, Collection, Iterable
from typing import Any

import torch
from torch.distributed import ProcessGroup, all_gather, all_reduce

from vllm_eplb_plugin.observe.checks.digests import digest_parts
from vllm_eplb_plugin.observe.checks.router_maps import mismatched_experts
from vllm_eplb_plugin.observe.checks.weights import WeightLedger, WeightsError
from vllm_eplb_plugin.observe.event_log import EventLog
from vllm_eplb_plugin.observe.events import Event, MapsChecked, WeightsChecked
from vllm_eplb_plugin.observe.identity import ModelId

logger = logging.getLogger("vllm.eplb_plugin")


def _no_meeting() -> None:
    return None


def gather_ledger(
    model_state: Any,
    group: ProcessGroup,
    layers: Iterable[int] | None = None,
    meet_all: Callable[[], object] = _no_meeting,
) -> WeightLedger:
    """Gather every logical expert's digest, as they are; all ranks of the group call together.

    Args:
        model_state: A vLLM ``EplbModelState``.
        group: The gloo group of the EP ranks.
        layers: Those to compare later, other layers' digests are zero; None: all.
        meet_all: Called when this rank has its digests, which one without memory may not get:
            raises if another rank does not come.
    """
    placement = model_state.physical_to_logical_map.cpu()
    wanted = torch.zeros(len(placement), placement.shape[1] // group.size(), dtype=torch.bool)
    wanted[slice(None) if layers is None else list(layers)] = True
    local = digest_local(model_state, wanted)
    meet_all()
    slots = gather_slots(local, group)
    experts, name = model_state.model.num_logical_experts, model_state.model_name
    ledger = WeightLedger.from_parts(slots, placement, experts, name)
    if group.rank() == 0:
        warn_of_small(model_state, ledger.without_small)
    return ledger


def warn_of_small(model_state: Any, layers: Collection[int]) -> None:
    """Say in which layers replicas differ in something small, if in any; see `digest_parts`."""
    if layers:
        logger.warning(
            "EPLB: in %d MoE layers of %s, the first of which is %d, replicas have the same "
            "weights and differ in something small beside them, such as a scale. Unless nobody "
            "reads it, answers change when experts move. It is not compared after commits.",
            len(layers),
            model_state.model_name,
            min(layers),
        )


def digest_local(model_state: Any, wanted: torch.Tensor) -> torch.Tensor:
    """Compute ``[layers, local physical, 2]`` of this rank's slots, zero where not wanted.

    Args:
        model_state: A vLLM ``EplbModelState``.
        wanted: ``[layers, local physical]`` bool.
    """
    digests = torch.zeros(*wanted.shape, 2, dtype=torch.long)
    for layer, (row, slots) in enumerate(zip(digests, wanted, strict=True)):
        if slots.any():
            weights = model_state.model.expert_weights[layer]
            row[slots] = digest_parts(weights, slots.nonzero().flatten())
    return digests


def gather_slots(local: torch.Tensor, group: ProcessGroup) -> torch.Tensor:
    """Gather ``[layers, physical, ...]`` of all ranks of a gloo group, which call together."""
    ranks = [torch.empty_like(local) for _ in range(group.size())]
    all_gather(ranks, local, group=group)
    return torch.cat(ranks, dim=1)


class CommitChecks:
    """The checks of one model's layers on one rank. The host waits for the device."""

    def __init__(
        self,
        model: ModelId,
        model_state: Any,
        group: ProcessGroup,
        log: EventLog,
        meet_all: Callable[[], object],
    ) -> None:
        """Gather digests; all ranks of the group call together. For ``meet_all`` see
        `gather_ledger`.

        Raises:
            WeightsError: Replicas of an expert differ.
        """
        self._model = model
        self._log = log
        self._expected, self._warned = False, False
        self._gather(model_state, group, meet_all)

    def expect_other_weights(self) -> None:
        """Take notice that weights are replaced: digests are gathered anew before the next move."""
        self._expected = True

    def renew(self, model_state: Any, group: ProcessGroup) -> bool:
        """Gather digests anew if weights have changed on any rank since they were last seen.

        Weights that nobody has said to replace are noticed in the first and the last layer. All
        ranks of the group call together, at the start of a rearrangement.

        Returns:
            Whether later checks can compare with them.
        """
        weights = model_state.model.expert_weights
        updated = not self._expected and any(
            not torch.equal(self._ledger.digest(layer, weights[layer]), seen)
            for layer, seen in self._seen.items()
        )
        flags = torch.tensor([int(self._expected), int(updated)])
        all_reduce(flags, group=group)
        expected, updated_somewhere = flags.tolist()
        if updated_somewhere and not self._warned:
            self._warned = True
            self._warn_of_update()
        if not expected and not updated_somewhere:
            return True
        try:
            self._gather(model_state, group)
        except WeightsError as error:
            logger.error(
                "EPLB weight check of %s is over, weights were replaced by others that cannot be "
                "compared: %s",
                self._model.model,
                error,
            )
            return False
        self._expected = False
        return True

    def _warn_of_update(self) -> None:
        if self._log.source.speaks_for_all:
            logger.warning(
                "Expert weights of %s have changed in place, by none of vLLM's ways that "
                "vllm-eplb-plugin knows (reload_weights, update_weights, load_weights). They are "
                "what is compared with from now on. If they were written as loaded at first, and "
                "experts had moved by then, they are in slots of other experts: call load_weights "
                "of the model instead, or update while no expert has moved.",
                self._model.model,
            )

    def _gather(
        self,
        model_state: Any,
        group: ProcessGroup,
        meet_all: Callable[[], object] = _no_meeting,
    ) -> None:
        self._ledger = gather_ledger(model_state, group, meet_all=meet_all)
        weights = model_state.model.expert_weights
        ends = sorted({0, len(weights) - 1})
        self._seen = {layer: self._ledger.digest(layer, weights[layer]) for layer in ends}

    def check(self, model_state: Any, layers: Iterable[int]) -> None:
        """Compare layers that were just committed; what is wrong is logged and told."""
        for layer in layers:
            placement = model_state.physical_to_logical_map[layer].cpu()
            self._check_weights(model_state.model.expert_weights[layer], layer, placement)
            self._check_maps(model_state, layer, placement)

    def _check_weights(self, weights: Any, layer: int, placement: torch.Tensor) -> None:
        digests = self._ledger.digest(layer, weights)
        if layer in self._seen:
            self._seen[layer] = digests
        first_slot = self._log.source.rank * digests.shape[0]
        mismatched = self._ledger.mismatched_slots(layer, placement, digests, first_slot)
        if mismatched:
            logger.error(
                "EPLB weight check failed: layer %d of %s, slots %s do not hold the weights of "
                "the logical experts that the committed map names. Answers are wrong from here on.",
                layer,
                self._model.model,
                mismatched,
            )
        self._tell(WeightsChecked(*self._head, layer, digests.shape[0], mismatched))

    def _check_maps(self, model_state: Any, layer: int, placement: torch.Tensor) -> None:
        l2p = model_state.logical_to_physical_map[layer].cpu()
        counts = model_state.logical_replica_count[layer].cpu()
        mismatched = mismatched_experts(placement, l2p, counts)
        if mismatched:
            logger.error(
                "EPLB map check failed: layer %d of %s, the router does not find the replicas of "
                "logical experts %s where the committed map has them.",
                layer,
                self._model.model,
                mismatched,
            )
        self._tell(MapsChecked(*self._head, layer, l2p.shape[0], mismatched))

    @property
    def _head(self) -> tuple[str, int]:
        return self._model.model, self._model.model_index

    def _tell(self, event: Event) -> None:
        self._log.tell(lambda: (event,))
