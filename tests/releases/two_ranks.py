# SPDX-License-Identifier: Apache-2.0
"""One EP rank of a real `EplbState` over gloo: `python -m tests.releases.two_ranks GROUP_JSON`.

Reads scenarios from standard input, one JSON object a line, and answers each with one line,
`REPORT_MARK` and JSON: what was seen after every commit. Importing vLLM takes most of the time,
so that one pair of ranks serves many scenarios.
"""

import json
import os
import sys
import time
from dataclasses import asdict, dataclass
from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist

from tests.reference import derive

REPORT_MARK = "REPORT "
LOGICAL = 8
INTERVAL = 12
"""Steps between rearrangements: enough for two models of three layers to be committed async."""


@dataclass(frozen=True)
class Group:
    """A pair of ranks and what is bound in both of them."""

    rank: int
    port: int
    plugin: bool = True
    fault: str | None = None

    def to_json(self) -> str:
        return json.dumps(asdict(self))


@dataclass(frozen=True)
class Scenario:
    """What both ranks do."""

    use_async: bool = False
    redundant: int = 4
    models: int = 1
    rearrangements: int = 6
    steps: int = 2000
    """At most; a scenario in which no placement is ever committed takes them all."""
    policy: str = "default"
    events_dir: str | None = None
    elastic_mapping: bool = False

    def to_json(self) -> str:
        return json.dumps(asdict(self))


def main(group: Group) -> None:
    """Serve scenarios until standard input ends."""
    from vllm.config import set_current_vllm_config

    from vllm_eplb_plugin.install import bind
    from vllm_eplb_plugin.loopback.faults import FAULTS
    from vllm_eplb_plugin.releases import installed_support

    overrides = installed_support().family.load()
    bind(overrides.loopback)
    if group.plugin:
        bind(overrides.entry)
    if group.fault is not None:
        bind(FAULTS[group.fault])
    with set_current_vllm_config(vllm_config(group, Scenario())):
        make_groups(group)
    for line in sys.stdin:
        scenario = Scenario(**json.loads(line))
        config = vllm_config(group, scenario)
        with set_current_vllm_config(config):
            print(REPORT_MARK + json.dumps(drive(scenario, group.rank, config)), flush=True)


def make_groups(group: Group) -> None:
    """vLLM's process groups for two EP ranks."""
    from vllm.distributed import parallel_state

    # Different on each rank: vLLM then uses gloo instead of its shared-memory collectives.
    os.environ["VLLM_DIST_IDENT"] = f"{group.port}-{group.rank}"
    parallel_state.init_distributed_environment(
        2, group.rank, f"tcp://127.0.0.1:{group.port}", group.rank, "gloo"
    )
    parallel_state.initialize_model_parallel(tensor_model_parallel_size=2, backend="gloo")


def vllm_config(group: Group, scenario: Scenario) -> Any:
    """A `VllmConfig` of two EP ranks with EPLB."""
    from vllm.config import ParallelConfig, VllmConfig

    parallel = ParallelConfig(
        tensor_parallel_size=2,
        enable_expert_parallel=True,
        enable_eplb=True,
        eplb_config={
            "window_size": 4,
            "step_interval": INTERVAL,
            "num_redundant_experts": scenario.redundant,
            "use_async": scenario.use_async,
        },
    )
    settings = {
        "check_weights": True,
        "events_dir": scenario.events_dir,
        "loopback": True,
        "fault": group.fault,
    }
    additional = {"eplb_plugin": settings} if group.plugin else {}
    return VllmConfig(parallel_config=parallel, additional_config=additional)


def drive(scenario: Scenario, rank: int, config: Any) -> dict[str, Any]:
    """Feed loads until enough rearrangements were committed, checking after every step."""
    from vllm.distributed.eplb.eplb_state import EplbState

    from tests.releases.tiny_model import TinyModel
    from vllm_eplb_plugin.loopback.cpu_v032 import HostStream

    state = EplbState(config.parallel_config, torch.device("cpu"))
    models = [
        TinyModel(rank, 2, 3, LOGICAL, scenario.redundant, tag) for tag in range(scenario.models)
    ]
    for model in models:
        name = f"model{model.tag}"
        model_config = SimpleNamespace(model=name, compute_hash=lambda name=name: name)
        state.add_model(model, model_config)
    replace_policy(state, scenario.policy)
    for model_state in state.model_states.values():
        model_state.communicator.set_stream(HostStream())
    state.start_async_loop()
    report = Report(scenario, rank, state)
    if scenario.elastic_mapping:
        report.take_mapping(model_config)
        return report.as_dict()
    for step in range(scenario.steps):
        record_load(state, step)
        state.step()
        report.look()
        if report.rearrangements_done() >= scenario.rearrangements:
            break
        if scenario.use_async:
            time.sleep(0.002)
    return report.as_dict()


def record_load(state: Any, step: int) -> None:
    """The same tokens on every run: one expert is hot, and another one every few steps."""
    for index, model_state in enumerate(state.model_states.values()):
        generator = torch.Generator().manual_seed(1000 * index + step // INTERVAL)
        shape = (model_state.model.num_moe_layers, LOGICAL)
        logical = torch.randint(1, 9, shape, generator=generator)
        logical[:, (step // INTERVAL) % LOGICAL] += 40
        # Load is recorded for slots: give an expert's first replica all of it.
        first = model_state.logical_to_physical_map[..., 0]
        model_state.expert_load_pass.zero_()
        model_state.expert_load_pass.scatter_(1, first, logical.to(torch.int32))


def replace_policy(state: Any, name: str) -> None:
    """Put a misbehaving or old-style policy in front of vLLM's own."""
    original = state.policy
    rank = dist.get_rank()

    def answer(weight: torch.Tensor, *args: Any) -> Any:
        placement = original.rebalance_experts(weight, *args)
        if name == "three_tensors":
            return placement, torch.zeros(1), torch.zeros(1)
        if name == "drops_an_expert":
            return placement.where(placement != 0, 1)
        if name == "differs_between_ranks":
            return placement.roll(rank, dims=1)
        if name == "fails_on_one_rank" and rank == 1:
            raise RuntimeError("no plan today")
        return placement

    if name != "default":
        state.policy = SimpleNamespace(rebalance_experts=answer)


class Report:
    """What one rank saw."""

    def __init__(self, scenario: Scenario, rank: int, state: Any) -> None:
        self.scenario, self.rank, self.state = scenario, rank, state
        self.placements: list[Any] = []
        self.wrong_weights = 0
        self.wrong_maps = 0
        self.moved_addresses = 0
        self.l2p: list[Any] = []
        self._addresses = self._read_addresses()
        self._last = [m.physical_to_logical_map.clone() for m in self._models()]

    def _models(self) -> list[Any]:
        return list(self.state.model_states.values())

    def rearrangements_done(self) -> int:
        """Whole placements seen."""
        return len(self.placements)

    def look(self) -> None:
        """Check weights, maps and addresses; note the placement when it is whole and new."""
        current = [m.physical_to_logical_map.clone() for m in self._models()]
        for model_state in self._models():
            placement = model_state.physical_to_logical_map
            self.wrong_weights += len(model_state.model.wrong_slots(placement, self.rank))
            self.wrong_maps += wrong_maps(model_state)
        self.moved_addresses += self._addresses != self._read_addresses()
        between = any(m.rebalanced for m in self._models())
        if not between and not all(map(torch.equal, current, self._last)):
            self.placements.append([placement.tolist() for placement in current])
            self.l2p.append([self._used_l2p(m) for m in self._models()])
            self._last = current

    def take_mapping(self, model_config: Any) -> None:
        """What a new rank of elastic EP gets: a map whose last slots hold nothing yet."""
        model_state = self._models()[-1]
        placement = model_state.physical_to_logical_map.clone()
        placement[:, LOGICAL:] = -1
        self.state.update_mapping(model_config, placement)
        self.wrong_maps += wrong_maps(model_state)
        self.moved_addresses += self._addresses != self._read_addresses()
        self.placements.append([placement.tolist()])

    def as_dict(self) -> dict[str, Any]:
        observer = getattr(self.state, "eplb_observer", None)
        return {
            "placements": self.placements,
            "l2p": self.l2p,
            "wrong_weights": self.wrong_weights,
            "wrong_maps": self.wrong_maps,
            "moved_addresses": self.moved_addresses,
            "width": self._models()[0].logical_to_physical_map.shape[-1],
            "rejections": observer.rejections if observer else 0,
            "rearrangements": observer.rearrangement if observer else len(self.placements),
        }

    def _read_addresses(self) -> list[int]:
        layers = [layer for m in self._models() for layer in m.model.moe_layers]
        return [
            tensor.data_ptr()
            for layer in layers
            for tensor in (
                layer.eplb_state.logical_to_physical_map,
                layer.eplb_state.logical_replica_count,
                layer.eplb_state.expert_load_view,
            )
        ]

    def _used_l2p(self, model_state: Any) -> list[Any]:
        l2p = model_state.logical_to_physical_map
        return l2p[..., : self.scenario.redundant + 1].tolist()


def wrong_maps(model_state: Any) -> int:
    """Layers whose tensors, as the router sees them, are not what p2l says."""
    wrong = 0
    for placement, layer in zip(
        model_state.physical_to_logical_map.tolist(), model_state.model.moe_layers, strict=True
    ):
        seen = layer.eplb_state.logical_to_physical_map
        l2p, counts = derive(placement, LOGICAL, seen.shape[-1])
        wrong += seen.tolist() != l2p or layer.eplb_state.logical_replica_count.tolist() != counts
    return wrong


if __name__ == "__main__":
    main(Group(**json.loads(sys.argv[1])))
    # Threads of async workers wait for a next rearrangement that never comes.
    os._exit(0)
