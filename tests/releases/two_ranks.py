# SPDX-License-Identifier: Apache-2.0
"""Two EP ranks of a real `EplbState` over gloo.

Importing vLLM takes most of the time, so it is imported once. Then jobs are read from standard
input, one JSON object a line; each runs in two forked processes, one a rank, and is answered by
one line of JSON: what each of them saw after every step, or why there is no answer.
"""

import gc
import importlib
import json
import logging
import multiprocessing
import os
import socket
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields, replace
from inspect import signature
from multiprocessing.connection import Connection
from types import SimpleNamespace
from typing import Any, NoReturn

import torch
import torch.distributed as dist

from tests.reference import derive

LOGICAL = 8
WINDOW = 4
INTERVAL = 12
"""Steps between rearrangements: enough for two models of three layers to be committed async."""
TIME_LIMIT = 60.0


@dataclass(frozen=True)
class Job:
    """What both ranks do."""

    plugin: bool = True
    fault: str | None = None
    transfer_delay_ms: float = 0.0
    use_async: bool = False
    redundant: int = 4
    ranks: int = 2
    device: str = "cpu"
    """cuda: each rank has a GPU of its own, and nothing of the loopback is bound."""
    models: int = 1
    rearrangements: int = 6
    steps: int = 200
    """At most; a job in which no placement is ever committed takes them all."""
    policy: str = "default"
    events_dir: str | None = None
    step_times_dir: str | None = None
    switch_interval_ms: float | None = 0.5
    enabled: bool = True
    """False: the plugin is loaded and its settings turn it off."""
    runner: str = "v1"
    """v2: the state is made and stepped by model runner V2's own controller, 0.19 and later."""
    dense: bool = False
    """The model has no experts that EPLB could move."""
    elastic: bool = False
    """Begin as elastic EP does when it has added the second rank, whose slots hold no expert yet,
    and end as it does when it takes that rank away again."""
    interrupt: str | None = None
    """drain: vLLM throws away what async mode has not committed yet, 0.24 and later; skip: it finds
    too little to gain, as on ROCm, 0.27 and later; error: the async worker dies."""
    version: str | None = None
    """What vLLM calls itself; None: what it is."""
    changed_body: str | None = None
    """A function of `changed_bodies` that makes this vLLM another one behind its signatures."""
    commands: list[list[str]] | None = None
    """Only read these options of `vllm serve`."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Of the plugin, beside those above."""
    on_rank_1: dict[str, Any] = field(default_factory=dict)
    """Of these fields, what is another on the second rank."""
    scenario: str | None = None
    """A module of `tests.releases.scenarios` whose ``drive`` stands for the one below."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """What the scenario is told."""

    def to_json(self) -> str:
        return json.dumps(asdict(self))


def answer_jobs(source: str) -> NoReturn:
    """Tell what was imported, then answer jobs until standard input ends.

    Args:
        source: Folder with the package ``vllm``; empty: the one that is installed.
    """
    # vLLM prints as well: that goes where its log goes.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    os.environ |= {"GLOO_SOCKET_IFNAME": "lo", "VLLM_HOST_IP": "127.0.0.1"}
    if source:
        os.environ["PYTHONPATH"] = source
        sys.path.insert(0, source)
        # Compiled once, beside the sources: the second import takes a third of the time.
        sys.dont_write_bytecode = False
    # Not every release configures logging before a server's arguments are read.
    logging.getLogger("vllm.eplb_plugin").addHandler(logging.StreamHandler())
    logging.getLogger("vllm.eplb_plugin").setLevel(logging.INFO)
    print(json.dumps(examine()), file=answers, flush=True)
    # Else each rank goes through all that was imported, whose memory Linux then copies for it.
    gc.freeze()
    for line in sys.stdin:
        print(json.dumps(run(Job(**json.loads(line)))), file=answers, flush=True)
    os._exit(0)


def examine() -> dict[str, Any]:
    """The release, and what of it does not look as its overrides expect."""
    import pytest  # noqa: F401
    import vllm
    from vllm.config import VllmConfig

    import tests.releases.tiny_model  # noqa: F401
    import vllm_eplb_plugin.placement.compiled
    import vllm_eplb_plugin.planning.policies.default  # noqa: F401
    from vllm_eplb_plugin.compatibility import installed_support
    from vllm_eplb_plugin.faults.by_name import FAULTS
    from vllm_eplb_plugin.faults.transfer_delay import delay_overrides
    from vllm_eplb_plugin.overrides.binding import find_mismatches
    from vllm_eplb_plugin.overrides.catalogue import overrides_for
    from vllm_eplb_plugin.overrides.override import select

    VllmConfig()  # imports what every rank would import again
    support = installed_support()
    overrides = overrides_for(support.release)
    groups = {field.name: getattr(overrides, field.name) for field in fields(overrides)}
    groups |= {name: select(fault, support.release) for name, fault in FAULTS.items()}
    groups["transfer_delay_ms"] = select(delay_overrides(1.0), support.release)
    return {
        "release": support.release,
        "source": vllm.__path__[0],
        "overrides": {name: len(group) for name, group in groups.items()},
        "mismatches": [problem for group in groups.values() for problem in find_mismatches(group)],
    }


def run(job: Job) -> dict[str, Any]:
    """Both ranks' reports, or an error; once more where another process took their port."""
    answer = run_once(job)
    return run_once(job) if "EADDRINUSE" in answer.get("error", "") else answer


def run_once(job: Job) -> dict[str, Any]:
    """The same, without that."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    processes, connections = [], []
    for rank in range(job.ranks):
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=run_rank, args=(job, rank, port, theirs), daemon=True)
        process.start()
        theirs.close()
        processes.append(process)
        connections.append(ours)
    try:
        return {"ranks": [receive(connection) for connection in connections]}
    except (RankError, EOFError, TimeoutError) as error:
        # The others may fail as well, and log it.
        end = time.monotonic() + 2.0
        for process in processes:
            process.join(max(end - time.monotonic(), 0.0))
        return {"error": f"{type(error).__name__}: {error}"}
    finally:
        for process in processes:
            process.kill()
            process.join()


class RankError(RuntimeError):
    """A rank could not do its job."""


def receive(connection: Connection) -> Any:
    """A rank's report."""
    if not connection.poll(TIME_LIMIT):
        raise TimeoutError(f"a rank has not answered within {TIME_LIMIT:.0f} s")
    report = connection.recv()
    if isinstance(report, str):
        raise RankError(report)
    return report


def run_rank(job: Job, rank: int, port: int, connection: Connection) -> None:
    """One rank's process."""
    from vllm.config import set_current_vllm_config

    if rank == 1:
        job = replace(job, **job.on_rank_1)
    if job.commands is not None:
        commands = job.commands
        answer_with(connection, lambda: {"read": [parse(options) for options in commands]})

    import vllm_eplb_plugin
    from tests.releases import changed_bodies
    from vllm_eplb_plugin.compatibility import installed_support
    from vllm_eplb_plugin.faults.selection import overrides_on_purpose
    from vllm_eplb_plugin.overrides.binding import bind
    from vllm_eplb_plugin.overrides.catalogue import overrides_for
    from vllm_eplb_plugin.settings import Settings

    torch.set_num_threads(1)
    if job.version is not None:
        sys.modules["vllm.version"].__version__ = job.version  # type: ignore[attr-defined]
    if job.changed_body is not None:
        getattr(changed_bodies, job.changed_body)(rank)
    support = installed_support()
    overrides = overrides_for(support.release)
    if job.device == "cpu":
        bind(overrides.loopback)
    if job.plugin:
        for _ in range(2):  # vLLM does it again in a forked process
            vllm_eplb_plugin.register()
    harm = {"fault": job.fault, "transfer_delay_ms": job.transfer_delay_ms}
    settings = Settings.model_validate({"loopback": True, **harm})
    bind(overrides_on_purpose(settings, support.release))

    def do() -> dict[str, Any]:
        config = vllm_config(job)
        with set_current_vllm_config(config):
            make_groups(rank, port, job)
            config.parallel_config.enable_elastic_ep = job.elastic
            if job.scenario is None:
                return drive(job, rank, config)
            scenario = importlib.import_module(f"tests.releases.scenarios.{job.scenario}")
            seen: dict[str, Any] = scenario.drive(job, rank, config)
            return seen

    answer_with(connection, do)


def answer_with(connection: Connection, do: Callable[[], dict[str, Any]]) -> NoReturn:
    """Send what it returns, or why it does not, and end the process."""
    try:
        connection.send(do())
    except (Exception, SystemExit) as error:
        traceback.print_exc()
        connection.send(f"{type(error).__name__}: {error}")
    finally:
        # Threads of async workers wait for a next rearrangement that never comes.
        sys.stderr.flush()
        os._exit(0)


def parse(options: list[str]) -> dict[str, Any]:
    """What the release makes of options of `vllm serve`."""
    from vllm.engine.arg_utils import AsyncEngineArgs

    try:
        from vllm.utils.argparse_utils import FlexibleArgumentParser
    except ImportError:
        from vllm.utils import FlexibleArgumentParser
    read = AsyncEngineArgs.add_cli_args(FlexibleArgumentParser()).parse_args(options)
    names = ("all2all_backend", "data_parallel_size", "enable_expert_parallel", "enable_eplb")
    eplb = ("window_size", "step_interval", "num_redundant_experts", "use_async")
    return {
        **{name: getattr(read, name) for name in names},
        **{name: getattr(read.eplb_config, name) for name in eplb},
        "additional_config": read.additional_config,
    }


def make_groups(rank: int, port: int, job: Job | None = None) -> None:
    """vLLM's process groups for EP ranks."""
    from vllm.distributed import parallel_state

    job = Job() if job is None else job
    backend = "gloo"
    if job.device == "cuda":
        torch.cuda.set_device(rank)
        backend = "nccl"
    # Different on each rank: vLLM then uses gloo instead of its shared-memory collectives.
    os.environ["VLLM_DIST_IDENT"] = f"{port}-{rank}"
    parallel_state.init_distributed_environment(
        job.ranks, rank, f"tcp://127.0.0.1:{port}", rank, backend
    )
    parallel_state.initialize_model_parallel(tensor_model_parallel_size=job.ranks, backend=backend)


def vllm_config(job: Job) -> Any:
    """A `VllmConfig` of EP ranks with EPLB."""
    from vllm.config import ParallelConfig, VllmConfig

    parallel = ParallelConfig(
        tensor_parallel_size=job.ranks,
        enable_expert_parallel=True,
        enable_eplb=True,
        eplb_config={
            "window_size": WINDOW,
            "step_interval": INTERVAL,
            "num_redundant_experts": job.redundant,
            "use_async": job.use_async,
        },
    )
    # 0.18 and 0.19 turn it off for fear of NCCL.
    parallel.eplb_config.use_async = job.use_async
    settings = {
        "enabled": job.enabled,
        "step_times_dir": job.step_times_dir,
        "check_weights": not job.elastic,
        "events_dir": job.events_dir,
        "switch_interval_ms": job.switch_interval_ms,
        "loopback": True,
        "fault": job.fault,
        "transfer_delay_ms": job.transfer_delay_ms,
        **job.settings,
    }
    additional = {"eplb_plugin": settings} if job.plugin else {}
    return VllmConfig(parallel_config=parallel, additional_config=additional)


def drive(job: Job, rank: int, config: Any) -> dict[str, Any]:
    """Feed loads until enough rearrangements were committed, checking after every step."""
    from tests.releases.tiny_model import TinyModel

    models = [
        TinyModel(rank, job.ranks, 3, LOGICAL, job.redundant, tag) for tag in range(job.models)
    ]
    # vLLM adds a drafter before its target.
    models[0].is_drafter = job.models > 1
    if job.dense:
        models[0].num_moe_layers = 0
    if job.runner == "v2":
        state, step_state = controlled_state(models[0], config)
    else:
        state = grown_state(models[0], rank, config) if job.elastic else new_state(models, config)
        step_state = state.step
        state.start_async_loop()
    replace_policy(state, job.policy)
    if job.interrupt is not None:
        interrupt(job.interrupt)
    report = Report(job, rank, state)
    report.look()
    for step in range(job.steps):
        record_load(state, step)
        step_state()
        report.look()
        if len(report.placements) >= job.rearrangements:
            break
        if job.elastic and report.placements:
            # What elastic EP says, up to 0.28, when the new rank has got its experts.
            state.num_valid_physical_experts = models[0].num_physical_experts
        wait_for_worker(state)
        if job.interrupt == "drain" and any(m.rebalanced for m in state.model_states.values()):
            state.drain_async()
    if job.elastic:
        for later in range(step + 1, step + 1 + WINDOW):
            record_load(state, later)  # for the slots as they are now
            state.step()
        shrink(state)
        report.look()
    return report.as_dict()


def new_state(models: list[Any], config: Any, device: str = "cpu") -> Any:
    """As a model runner makes it: drafter and target in one state."""
    from vllm.distributed.eplb.eplb_state import EplbState

    state = EplbState(config.parallel_config, torch.device(device))
    for model in models:
        state.add_model(model, model_config(model))
    return state


def controlled_state(model: Any, config: Any) -> tuple[Any, Callable[[], None]]:
    """As model runner V2 makes it, and what it calls after every forward pass."""
    from vllm.v1.worker.gpu.eplb_utils import EPLBController

    controller = EPLBController(config.parallel_config, torch.device("cpu"))
    controller.prepare_load()
    register = controller.maybe_register_model
    # Up to 0.31, whether the weights are dummies is asked here.
    dummies = [False] if "load_dummy_weights" in signature(register).parameters else []
    controller.maybe_start_async_loop(register(model, model_config(model), *dummies))
    return controller.state, controller.step


def grown_placement(model: Any, parallel: Any) -> torch.Tensor:
    """Where experts are when elastic EP has added the second rank, whose slots are empty."""
    if hasattr(parallel, "elastic_ep_max_dp_size"):
        parallel.elastic_ep_max_dp_size = parallel.data_parallel_size
    placement = torch.full((model.num_moe_layers, model.num_physical_experts), -1)
    placement[:, :LOGICAL] = torch.arange(LOGICAL)
    return placement


def grown_state(model: Any, rank: int, config: Any) -> Any:
    """As elastic EP makes it after it has added the second rank."""
    from vllm.distributed.eplb.eplb_state import EplbState

    parallel = config.parallel_config
    placement = grown_placement(model, parallel)
    arguments = (model, model_config(model), torch.device("cpu"), parallel, placement)
    # Up to 0.28, only this many slots' load counts.
    counts_valid = "num_valid_physical_experts" in signature(EplbState.from_mapping).parameters
    state = EplbState.from_mapping(*arguments, *([LOGICAL] if counts_valid else []))
    model.forget_redundant(rank)
    return state


def shrink(state: Any) -> None:
    """As elastic EP does before it takes the second rank away."""
    from vllm.distributed.eplb import eplb_state

    # It has its own kind of groups, which need more than two processes to make.
    coordinator = eplb_state.get_ep_group()
    eplb_state.StatelessGroupCoordinator = type(coordinator)
    coordinator.tcp_store_group = coordinator.cpu_group
    state.rearrange(rank_mapping={0: 0, 1: -1})


def model_config(model: Any) -> Any:
    """What `EplbState` asks of a `ModelConfig`."""
    name = f"model{model.tag}"
    runner = "draft" if model.is_drafter else "generate"
    return SimpleNamespace(model=name, runner_type=runner, compute_hash=lambda: name)


def wait_for_worker(state: Any) -> None:
    """Until the async worker has brought the next layer, so that every run is the same."""
    moving = [m for m in state.model_states.values() if m.rebalanced]
    while (
        moving
        and state.async_worker.is_alive()
        and not any(has_layer(model_state) for model_state in moving)
    ):
        time.sleep(0.0005)


def has_layer(model_state: Any) -> bool:
    """Whether weights of a layer wait to be committed."""
    if hasattr(model_state, "ep_buffer_ready"):  # 0.18 and 0.19
        return bool(model_state.ep_buffer_ready)
    return model_state.pending_result is not None


def record_load(state: Any, step: int) -> None:
    """The same tokens on every run: one expert is hot, and another one every few steps."""
    for index, model_state in enumerate(state.model_states.values()):
        generator = torch.Generator().manual_seed(1000 * index + step // INTERVAL)
        shape = (model_state.model.num_moe_layers, LOGICAL)
        logical = torch.randint(1, 9, shape, generator=generator)
        logical[:, (step // INTERVAL) % LOGICAL] += 40
        # Load is recorded for slots: give an expert's first replica all of it.
        first = model_state.logical_to_physical_map[..., 0]
        load = model_state.expert_load_pass
        load.zero_()
        load.scatter_(1, first, logical.to(load.device, torch.int32))


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


def interrupt(how: str) -> None:
    """Let something end rearrangements before their last layer."""
    from vllm.distributed.eplb import async_worker, eplb_state

    if how == "skip":
        eplb_state.current_platform = SimpleNamespace(is_rocm=lambda: True)
    if how == "error":

        def fail(*_args: Any, **_kwargs: Any) -> NoReturn:
            raise RuntimeError("no transfer today")

        async_worker.transfer_layer = fail


class Report:
    """What one rank saw."""

    def __init__(self, job: Job, rank: int, state: Any) -> None:
        self.job, self.rank, self.state = job, rank, state
        self.placements: list[Any] = []
        self.wrong_weights = 0
        self.wrong_maps = 0
        self.moved_addresses = 0
        self.logical_maps_handed_over = 0
        self.l2p: list[Any] = []
        self._addresses = self._read_addresses()
        self._last = [m.physical_to_logical_map.clone() for m in self._models()]
        self.initial = [placement.tolist() for placement in self._last]
        self.at_first = describe_state(state)

    def _models(self) -> list[Any]:
        return list(self.state.model_states.values())

    def look(self) -> None:
        """Check weights, maps and addresses; note the placement when it is whole and new."""
        current = [m.physical_to_logical_map.clone() for m in self._models()]
        for model_state in self._models():
            placement = model_state.physical_to_logical_map
            self.wrong_weights += len(model_state.model.wrong_slots(placement, self.rank))
            self.wrong_maps += wrong_maps(model_state)
            # 0.18's own; from 0.19 on there is no such thing.
            for name in ("new_logical_to_physical_map", "new_logical_replica_count"):
                self.logical_maps_handed_over += getattr(model_state, name, None) is not None
        self.moved_addresses += self._addresses != self._read_addresses()
        between = any(m.rebalanced for m in self._models())
        if not between and not all(map(torch.equal, current, self._last)):
            self.placements.append([placement.tolist() for placement in current])
            self.l2p.append([self._used_l2p(m) for m in self._models()])
            self._last = current

    def as_dict(self) -> dict[str, Any]:
        from vllm_eplb_plugin.observe.delivery import flush_all

        session = getattr(self.state, "eplb_session", None)
        followed = session.rearrangements if session else None
        assert flush_all(10)
        if followed and followed.recorder:
            followed.recorder.close()
        return {
            "initial": self.initial,
            "at_first": self.at_first,
            "placements": self.placements,
            "l2p": self.l2p,
            "wrong_weights": self.wrong_weights,
            "wrong_maps": self.wrong_maps,
            "moved_addresses": self.moved_addresses,
            "logical_maps_handed_over": self.logical_maps_handed_over,
            "width": self._models()[0].logical_to_physical_map.shape[-1],
            "rejections": followed.outcomes["rejected"] if followed else 0,
            "outcomes": dict(followed.outcomes) if followed else {},
            "rearrangements": followed.number if followed else len(self.placements),
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
        return l2p[..., : self.job.redundant + 1].tolist()


def describe_state(state: Any) -> dict[str, Any]:
    """Every number, word and tensor of a state and its models, and the experts' weights."""
    objects = {"state": state, **state.model_states}
    values = {
        f"{owner}.{name}": value.tolist() if isinstance(value, torch.Tensor) else value
        for owner, thing in objects.items()
        for name, value in vars(thing).items()
        if isinstance(value, torch.Tensor | int | float | str | None)
    }
    for name, model_state in state.model_states.items():
        layers = model_state.model.expert_weights
        values[f"{name} weights"] = [[tensor.tolist() for tensor in layer] for layer in layers]
    return values


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
