# SPDX-License-Identifier: Apache-2.0
"""Experts move, weights are replaced as vLLM's loaders do, experts move on."""

import functools
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import torch
from vllm.distributed.parallel_state import get_ep_group

from tests.releases.tiny_model import TinyModel, expert_weights
from tests.releases.two_ranks import (
    Job,
    Report,
    has_layer,
    interrupt,
    new_state,
    record_load,
    replace_policy,
    wait_for_worker,
)

LAYERS, LOGICAL = 3, 8


class UpdatedModel(TinyModel):
    """A model whose weights are replaced; those of version 0 are `TinyModel`'s."""

    rank, version = 0, 0

    def load_weights(self, weights: Iterator[tuple[int, int]]) -> None:
        """Load experts of layers into the slots that the first placement gives them.

        Args:
            weights: Layer and logical expert; their numbers are those of the next version.
        """
        for layer, expert in weights:
            for slot in range(self.num_physical_experts):
                self._load(layer, slot, expert)

    def _load(self, layer: int, slot: int, expert: int) -> None:
        local = slot - self.rank * self.num_local_physical_experts
        if slot % LOGICAL == expert and 0 <= local < self.num_local_physical_experts:
            for tensor in self.moe_layers[layer].weights:
                tensor[local] = self.numbers(layer, [expert], tensor)[0]

    def numbers(self, layer: int, experts: list[int], like: torch.Tensor) -> torch.Tensor:
        first = expert_weights(self.tag, layer, experts, [*like.shape[1:]], torch.float32)
        return (first * (-2.0) ** self.version).to(like.dtype)

    def wrong_slots(self, physical_to_logical_map: torch.Tensor, rank: int) -> list[int]:
        size = self.num_local_physical_experts
        placement = physical_to_logical_map[:, rank * size : (rank + 1) * size].tolist()
        return [
            index
            for index, (layer, local) in enumerate(zip(self.moe_layers, placement, strict=True))
            for tensor in layer.weights
            if not torch.equal(tensor, self.numbers(index, local, tensor))
        ]


def all_experts() -> Iterator[tuple[int, int]]:
    return ((layer, expert) for layer in range(LAYERS) for expert in range(LOGICAL))


class Ways:
    """The ways in which weights get into a served model, and how it sleeps."""

    def __init__(self, state: Any, models: list[UpdatedModel], runner: Any, worker: Any) -> None:
        self.state, self.models = state, models
        self.runner, self.worker = runner, worker
        self._before = beside_maps(state)
        self.lost: list[str] = []
        """What a model had in memory that no reload brings back, and has no longer."""
        self.owner = SimpleNamespace(eplb_state=state, get_model=lambda: models[-1])
        self.owner.model_runner = self.owner

    def reload_weights(self) -> None:
        """What vLLM does below its own reload_weights, by the overridden one."""
        self._of_vllm("reload_weights", self.runner, self._load_all)

    def update_weights(self) -> None:
        self._of_vllm("update_weights", self.worker, self._load_all, {})

    def load_weights(self) -> None:
        self._load_all()

    def buckets(self) -> None:
        """As a worker extension of reinforcement learning: one call for each layer."""
        self._next_version()
        for layer in range(LAYERS):
            for model in self.models:
                model.load_weights((layer, expert) for expert in range(LOGICAL))

    def in_place(self) -> None:
        """By nothing that anybody could notice, and right."""
        self._next_version()
        for model, model_state in zip(self.models, self.state.model_states.values(), strict=True):
            size = model.num_local_physical_experts
            placement = model_state.physical_to_logical_map
            for index, layer in enumerate(model.moe_layers):
                local = placement[index, model.rank * size : (model.rank + 1) * size].tolist()
                for tensor in layer.weights:
                    tensor.copy_(model.numbers(index, local, tensor))

    def save(self) -> None:
        """Slots are written out as they are named: they have to hold the first placement."""
        self._of_vllm("save_sharded_state", self.worker, lambda: None, "somewhere")

    def sleep_1(self) -> None:
        self._sleep(1)

    def sleep_2(self) -> None:
        self._sleep(2)
        self.reload_weights()

    def discard(self) -> None:
        self._of_vllm("discard", self.worker, self._drop, ("weights",))
        self._of_vllm("wake_up", self.worker, lambda: None, ["weights"])
        self._look_for_what_is_lost()
        self.reload_weights()

    def _sleep(self, level: int) -> None:
        self._of_vllm("sleep", self.worker, self._drop if level == 2 else lambda: None, level)
        self._of_vllm("wake_up", self.worker, lambda: None, ["kv_cache"])
        self._of_vllm("wake_up", self.worker, lambda: None, ["weights"])
        self._look_for_what_is_lost()

    def _drop(self) -> None:
        """All that vLLM allocates while it loads a model, at the same addresses."""
        self._before = beside_maps(self.state)
        for tensor in in_the_pool(self.state):
            tensor.fill_(1)

    def _look_for_what_is_lost(self) -> None:
        now = beside_maps(self.state)
        self.lost += [name for name, was in self._before.items() if now[name] != was]

    def _load_all(self) -> None:
        self._next_version()
        for model in self.models:
            model.load_weights(all_experts())

    def _next_version(self) -> None:
        for model in self.models:
            model.version += 1

    def _of_vllm(self, name: str, owner: Any, do: Callable[[], None], *arguments: Any) -> None:
        """Call a method of vLLM's, with the plugin overridden, whose own body needs a device."""
        self.owner.do = do
        getattr(owner, name)(self.owner, *arguments)


def leave_out_bodies() -> tuple[Any, Any]:
    """vLLM's model runner and worker, whose methods do what they are told by a test."""
    from vllm.v1.worker import gpu_model_runner, gpu_worker

    runner, worker = gpu_model_runner.GPUModelRunner, gpu_worker.Worker
    names = ("update_weights", "save_sharded_state", "sleep", "wake_up", "discard")
    owned = [(worker, name) for name in names if hasattr(worker, name)]
    for owner, name in (*owned, (runner, "reload_weights")):
        original = getattr(owner, name)

        @functools.wraps(original)
        def body(self: Any, *_args: Any, **_kwargs: Any) -> None:
            self.do()

        setattr(owner, name, body)
    return runner, worker


def beside_maps(state: Any) -> dict[str, Any]:
    """Values of each model's tensors that are neither maps nor counts that begin anew."""
    again = ("expert_buffer", "expert_load_window", "expert_load_pass", "physical_", "logical_")
    return {
        name: [tensor.tolist() for tensor in value] if isinstance(value, list) else value.tolist()
        for model_state in state.model_states.values()
        for name, value in vars(model_state).items()
        if isinstance(value, list | torch.Tensor) and not name.startswith(again)
    }


def in_the_pool(state: Any) -> Iterator[torch.Tensor]:
    for owner in (state, *state.model_states.values()):
        for value in vars(owner).values():
            several = value if isinstance(value, list) else [value]
            yield from (tensor for tensor in several if isinstance(tensor, torch.Tensor))
    for model_state in state.model_states.values():
        for layer in model_state.model.moe_layers:
            yield from layer.weights


def drive(job: Job, rank: int, config: Any) -> dict[str, Any]:
    """Step, replace weights three times when experts are elsewhere, and look after every step.

    ``job.arguments``: ``way`` is a method of `Ways`; ``amid`` asks for it while an async
    rearrangement is under way; ``second_rank``, if it is ``late``, is asked a step after the first,
    if it is ``absent``, not at all, before both are asked; ``rocm`` is the platform.
    """
    runner, worker = leave_out_bodies()
    models = [UpdatedModel(rank, 2, LAYERS, LOGICAL, job.redundant, tag) for tag in range(2)]
    for model in models:
        model.rank = rank
    models[0].is_drafter = True
    state = new_state(models, config)
    state.start_async_loop()
    replace_policy(state, job.policy)
    ways = Ways(state, models, runner, worker)
    way = getattr(ways, job.arguments["way"])
    second = job.arguments.get("second_rank")
    asked, refused = None if second else -9, []
    after, windows = [], []
    report = Report(job, rank, state)
    if job.arguments.get("rocm"):
        interrupt("skip")
    for step in range(job.steps):
        record_load(state, step)
        # As a forward pass does: no rank is a step ahead.
        torch.distributed.barrier(get_ep_group().cpu_group)
        state.step()
        report.look()
        wait_for_worker(state)
        if asked is None and moved(state, False):
            asked = step
        if asked is not None and (rank, step - asked, second) in (
            (0, 0, "late"),
            (1, 1, "late"),
            (0, 0, "absent"),
        ):
            refused.append(refusal(way))
        ready = asked is not None and step > asked + 2 and len(after) < 3
        if ready and moved(state, job.arguments.get("amid", False)):
            way()
            after.append(in_force(state))
            windows.append(window(state))
        report.look()
        if len(after) == 3 and len(report.placements) >= job.rearrangements:
            break
    return {
        **report.as_dict(),
        "first": first(models[0]),
        "after": after,
        "refused": refused,
        "lost": ways.lost,
        "windows": windows,
    }


def window(state: Any) -> list[int]:
    """Steps since the last rearrangement, and tokens that were counted."""
    counted = sum(int(m.expert_load_window.sum()) for m in state.model_states.values())
    return [state.expert_rearrangement_step, counted]


def refusal(way: Callable[[], None]) -> str:
    try:
        way()
    except RuntimeError as error:
        return f"{type(error).__name__}: {error}"
    return "it was not refused"


def moved(state: Any, amid: bool) -> bool:
    """Whether experts are elsewhere; ``amid``: and a layer's weights are on their way."""
    under_way = any(model_state.rebalanced for model_state in state.model_states.values())
    if amid:
        return under_way and any(map(has_layer, state.model_states.values())) and elsewhere(state)
    return not under_way and elsewhere(state)


def elsewhere(state: Any) -> bool:
    return in_force(state) != [first(m.model) for m in state.model_states.values()]


def first(model: Any) -> list[list[int]]:
    """Where vLLM's loaders put experts."""
    slots = model.num_physical_experts
    return [[slot % LOGICAL for slot in range(slots)] for _ in range(LAYERS)]


def in_force(state: Any) -> list[Any]:
    return [m.physical_to_logical_map.tolist() for m in state.model_states.values()]
