# SPDX-License-Identifier: Apache-2.0
"""What happens to placements: the schema of the lines, from which docs/events.md is made."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from vllm_eplb_plugin.observe.event_heads import SCHEMA_VERSION as SCHEMA_VERSION
from vllm_eplb_plugin.observe.event_heads import Event as Event
from vllm_eplb_plugin.observe.event_heads import EventsDropped as EventsDropped
from vllm_eplb_plugin.observe.event_heads import Head as Head
from vllm_eplb_plugin.observe.event_heads import Mode as Mode
from vllm_eplb_plugin.observe.event_heads import ModelEvent as ModelEvent
from vllm_eplb_plugin.observe.event_heads import RearrangementEvent as RearrangementEvent
from vllm_eplb_plugin.observe.health_events import StallBegan as StallBegan
from vllm_eplb_plugin.observe.health_events import StallEnded as StallEnded
from vllm_eplb_plugin.observe.health_events import TurnedOff as TurnedOff
from vllm_eplb_plugin.observe.identity import Source as Source

Trigger = Literal["interval", "balancedness", "changed_load", "operator", "other"]


@dataclass(frozen=True)
class RearrangementStarted(RearrangementEvent):
    """vLLM's interval is over, the load or an operator asks for it, elastic EP scales, or experts
    go (`sync`) where `planning.initial` has them, or back for new weights."""

    kind: ClassVar[str] = "rearrangement_started"


@dataclass(frozen=True)
class LoadMeasured(RearrangementEvent):
    """What a placement was planned from, whatever became of the plan; told by EP rank 0 of each
    stage only."""

    kind: ClassVar[str] = "load_measured"

    balancedness: list[float]
    """For each layer, of the load window under the placement in force: mean over maximum rank load,
    replicas sharing equally; 1 is perfect, and what a layer without load has."""
    balancedness_overall: float
    """As `balancedness_before` in `rearrangement_finished`."""
    tokens: list[int]
    """For each rank, its tokens of the window then, summed over layers and rounded."""


@dataclass(frozen=True)
class RearrangementPlanned(RearrangementEvent):
    """All ranks agreed on a valid placement that changes something; it is carried out now."""

    kind: ClassVar[str] = "rearrangement_planned"

    layers_changed: int
    """Layers in which some slot gets another logical expert."""
    seconds: float
    """Since it started."""
    policy: str
    """What planned it: the setting's name; `vllm` without the setting `planning`, and where experts
    go into a placement that is known, or elastic EP scales."""
    steps: list[str]
    """What its placement went through then."""
    trigger: Trigger
    """Why now: vLLM's interval is over, what was served was not balanced, the load is another one,
    an operator asked for it, or else, as when elastic EP scales."""
    planning_seconds: float
    """Of these, for policy, steps and limits."""
    experts_received: list[int]
    """For each layer, experts that some rank gets from another one."""
    bytes_received: list[int]
    """For each rank, expert weights that it gets."""
    bytes_from_other_nodes: list[int]
    """Of these, those that no rank of its node has."""
    balancedness_before: float
    """As in `rearrangement_finished`."""
    balancedness_expected: float
    """The same."""
    layers_held_back: int
    """Layers that would have changed if there were no limits on what is moved, and do not."""
    bytes_held_back: int
    """Expert weights that would have been sent without these limits, and are not."""


@dataclass(frozen=True)
class LayerCommitted(RearrangementEvent):
    """The new placement of a layer that changes became visible to the model.

    In sync mode all such layers do at once, in async mode one an engine step.
    """

    kind: ClassVar[str] = "layer_committed"

    layer: int
    """Which one."""
    slots_changed: int
    """Its slots that hold another logical expert than before."""


@dataclass(frozen=True)
class RearrangementEnded(RearrangementEvent):
    """Every rearrangement of every model has exactly one outcome."""

    seconds: float
    """Since it started."""


@dataclass(frozen=True)
class RearrangementFinished(RearrangementEnded):
    """The last layer that changes is visible to the model."""

    kind: ClassVar[str] = "rearrangement_finished"

    balancedness_before: float
    """Of the load window under the old placement: mean over maximum rank load, each summed over
    layers; 1 is perfect."""
    balancedness_expected: float
    """The same load under the new placement, replicas sharing equally."""
    slots_changed: list[int]
    """For each layer, its slots that hold another logical expert than before; 0: it stayed."""
    bytes_sent: int
    """Expert weights that went from one rank to another, over all ranks and layers."""


@dataclass(frozen=True)
class RearrangementSkipped(RearrangementEnded):
    """Nothing moves: nothing would be gained, limits forbid it, or the plan alone was asked for."""

    kind: ClassVar[str] = "rearrangement_skipped"

    reason: str
    """What says so: the plan is the placement in force, limits hold all of it back, vLLM's own test
    of the gain (ROCm), or an operator's `plan`, with what would move."""


@dataclass(frozen=True)
class RearrangementRejected(RearrangementEnded):
    """A policy's result was not used. The old placement stays and serving goes on."""

    kind: ClassVar[str] = "rearrangement_rejected"

    reason: str
    """The rule and what broke it; that another rank rejected it; or that ranks' results differ."""


@dataclass(frozen=True)
class RearrangementDrained(RearrangementEnded):
    """vLLM threw away what was not committed yet, as elastic EP does (0.24 and later)."""

    kind: ClassVar[str] = "rearrangement_drained"

    layers_left: int | None
    """Layers that should have changed and did not; `null`: there was no plan yet."""


@dataclass(frozen=True)
class RearrangementFailed(RearrangementEnded):
    """It ended without its last layer; the reason says whether what was committed is whole."""

    kind: ClassVar[str] = "rearrangement_failed"

    reason: str
    """What was raised, or what came instead of its end."""
    layers_left: int | None
    """Layers that should have changed and did not; `null`: there was no plan yet."""


@dataclass(frozen=True)
class RearrangementStalled(RearrangementFailed):
    """It was given up on all ranks, because on one of them it stood still for too long."""

    kind: ClassVar[str] = "rearrangement_stalled"


@dataclass(frozen=True)
class Placement(ModelEvent):
    """Which logical expert every slot holds, told by EP rank 0 of each stage only.

    It is told when a model is added or has lost its weights by sleep, and after every outcome by
    which a layer changed. For 58 layers of 256 + 32 experts a line has about 160 kB.
    """

    kind: ClassVar[str] = "placement"

    rearrangement: int
    """After which it is in force; 0: none has started."""
    step: int
    """Engine steps since the model was loaded, dummy steps included."""
    mode: Mode | None
    """That of the rearrangement; `null`: it is vLLM's first, after loading or sleep."""
    num_ranks: int
    """EP ranks; the first slots are those of rank 0, and each rank has as many."""
    physical_to_logical_map: list[list[int]]
    """For each layer, the logical expert in each slot."""
    logical_load: list[list[int]] | None
    """For each layer, the tokens of each logical expert in the load window that the placement was
    planned from, all ranks; `null` with `mode`."""


@dataclass(frozen=True)
class WeightsChecked(ModelEvent):
    """After a commit, with the setting `check_weights`: a layer's weights in the rank's slots were
    compared with digests of all experts' weights, gathered at load and after they were replaced."""

    kind: ClassVar[str] = "weights_checked"

    layer: int
    """Which one: in sync mode each, in async mode those that change, and the last one."""
    slots: int
    """Slots compared."""
    mismatched_slots: list[int]
    """Those that hold other weights than those of the logical expert that the map names."""


@dataclass(frozen=True)
class MapsChecked(ModelEvent):
    """After a commit, with the setting `check_weights`: a layer's maps, which the router reads,
    were compared with those that its placement gives, derived again on the host.

    A replica that the router never chooses changes no answer and no weight; this is what tells.
    """

    kind: ClassVar[str] = "maps_checked"

    layer: int
    """The same layers as in `weights_checked`."""
    experts: int
    """Logical experts compared."""
    mismatched_experts: list[int]
    """Logical experts with other slots or another replica count in the router's maps."""


EVENTS: tuple[type[Event], ...] = (
    RearrangementStarted,
    LoadMeasured,
    RearrangementPlanned,
    LayerCommitted,
    RearrangementFinished,
    RearrangementSkipped,
    RearrangementRejected,
    RearrangementDrained,
    RearrangementFailed,
    RearrangementStalled,
    StallBegan,
    StallEnded,
    TurnedOff,
    Placement,
    WeightsChecked,
    MapsChecked,
    EventsDropped,
)
"""Every kind, in the order of the document."""
