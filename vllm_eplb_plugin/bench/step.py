# SPDX-License-Identifier: Apache-2.0
"""How long EPLB holds the thread that runs the model in a step in which nothing is rearranged."""

import contextlib
import logging
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import torch

from vllm_eplb_plugin.bench.one_rank import Experts, model_config, one_rank
from vllm_eplb_plugin.bench.result import BenchError, Row
from vllm_eplb_plugin.bench.shapes import Shape
from vllm_eplb_plugin.bench.timing import alternate, difference
from vllm_eplb_plugin.compatibility import installed_support
from vllm_eplb_plugin.engine import entry
from vllm_eplb_plugin.engine.session import session_of
from vllm_eplb_plugin.observe.delivery import flush_all
from vllm_eplb_plugin.observe.status import FOLDER_VARIABLE
from vllm_eplb_plugin.overrides.binding import bind, unbind
from vllm_eplb_plugin.overrides.catalogue import overrides_at
from vllm_eplb_plugin.overrides.override import Override, select

_WINDOW = 1000
"""Steps of load that are kept, as by vLLM's default. The interval is the same, so that the load of
every step is recorded: that is the most that a step without a rearrangement has to do."""

_SECONDS = 2.0
"""For which the plugin's threads are watched."""


_HOOKS: Mapping[str, Mapping[str, Any]] = {
    "no settings": {},
    "events": {"events_dir": True},
    "all hooks": {
        "events_dir": True,
        "planning": {"policy": "incremental"},
        "metrics": {"by_rank": True, "by_layer": True},
        "control": True,
    },
}
"""The plugin's settings by name; ``events_dir`` is a folder that is made."""


def bench_step(shape: Shape, rounds: int, device: torch.device) -> list[Row]:
    """Sync and async, each with more and more that hangs on a step.

    The async worker is not started: between rearrangements it only waits.

    Raises:
        BenchError: Steps that do not record the same.
    """
    return [
        _bench_one(shape, rounds, device, use_async, hooks)
        for use_async in (False, True)
        for hooks in _HOOKS
    ]


def _bench_one(shape: Shape, rounds: int, device: torch.device, use_async: bool, hooks: str) -> Row:
    eplb = {"window_size": _WINDOW, "step_interval": _WINDOW, "use_async": use_async}
    with tempfile.TemporaryDirectory() as folder, _process_put_back():
        os.environ[FOLDER_VARIABLE] = folder
        events = {"events_dir": folder} if "events_dir" in _HOOKS[hooks] else {}
        plugin, others = {**_HOOKS[hooks], **events}, set(threading.enumerate())
        pretended = overrides_at(installed_support().release, "loopback")
        with (
            _bound(pretended if device.type == "cpu" else ()),
            one_rank(eplb, plugin) as parallel,
            both_classes() as classes,
        ):
            workers = {}
            for name, state_class in classes.items():
                state = state_class(parallel, device)
                state.add_model(Experts(shape, device), model_config(shape))
                workers[name] = workers_of_release()[name](state)
            flush_all(60)  # of the first placement
            ways = {name: _step(worker) for name, worker in workers.items()}
            times = alternate(ways, rounds, device)
            _compare(*workers.values())
            threads = _processor_time_of_threads(others) if use_async else None
            if (watch := session_of(workers["plugin"].state).watch) is not None:
                watch.end()
    what = f"{'async' if use_async else 'sync'}, {hooks}"
    stock, own = times["stock"], times["plugin"]
    more = difference(own, stock)
    return Row(str(shape), what, stock.summary(), own.summary(), more, threads)


@contextlib.contextmanager
def both_classes() -> Iterator[dict[str, Any]]:
    """vLLM's `EplbState` as it is, and as the plugin makes it."""
    from vllm.distributed.eplb.eplb_state import EplbState

    release = installed_support().release
    overrides = (*select(entry.OVERRIDES, release), *overrides_at(release, "state", "runner"))
    unbind(overrides)
    made_by_python = ("__dict__", "__weakref__")
    own = {name: value for name, value in vars(EplbState).items() if name not in made_by_python}
    stock = type(EplbState.__name__, EplbState.__bases__, own)
    with _bound(overrides):
        yield {"stock": stock, "plugin": EplbState}


@contextlib.contextmanager
def _bound(overrides: Iterable[Override]) -> Iterator[None]:
    bind(overrides)
    try:
        yield
    finally:
        unbind(overrides)


@contextlib.contextmanager
def _process_put_back() -> Iterator[None]:
    """Keep vLLM's log away from the table, and leave the process as it was."""
    interval = sys.getswitchinterval()
    disabled = logging.root.manager.disable
    status_folder = os.environ.pop(FOLDER_VARIABLE, None)
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(disabled)
        sys.setswitchinterval(interval)
        os.environ.pop(FOLDER_VARIABLE, None)
        if status_folder is not None:
            os.environ[FOLDER_VARIABLE] = status_folder


class Worker:
    """What of vLLM's worker is called in a step: nothing but EPLB is behind it."""

    def __init__(self, state: Any) -> None:
        self.state = state
        self.model_runner = SimpleNamespace(eplb_state=state)

    def execute_model(self, scheduler_output: Any) -> None:
        """Compute nothing."""

    def sample_tokens(self, grammar_output: Any) -> None:
        """Step EPLB, as model runners do."""
        self.state.expert_rearrangement_step = 0  # so that no rearrangement begins
        self.state.step()


def workers_of_release() -> dict[str, type[Worker]]:
    """A worker as it is, and one with the plugin's hooks."""
    from vllm_eplb_plugin.engine import forwards

    hooked: dict[str, Any] = {}
    for override in select(forwards.OVERRIDES, installed_support().release):
        name = override.target.rpartition(".")[2]
        if hasattr(Worker, name):
            hooked[name] = override.replace(getattr(Worker, name))
    return {"stock": Worker, "plugin": type("HookedWorker", (Worker,), hooked)}


def _step(worker: Worker) -> Callable[[int], None]:
    def step(_: int) -> None:
        worker.execute_model(None)
        worker.sample_tokens(None)

    return step


def _processor_time_of_threads(others: set[threading.Thread]) -> float:
    """Microseconds that the plugin's threads, but for some others, take in a second."""
    clocks = [
        time.pthread_getcpuclockid(thread.ident)
        for thread in set(threading.enumerate()) - others
        if thread.name.startswith("eplb-") and thread.ident is not None
    ]
    before = sum(map(time.clock_gettime, clocks))
    time.sleep(_SECONDS)
    taken = sum(map(time.clock_gettime, clocks)) - before
    return round(taken / _SECONDS * 1e6, 1)


def _compare(stock: Worker, plugin: Worker) -> None:
    """That a load is recorded alike, and was by as many steps before."""
    for worker in (stock, plugin):
        [model_state] = worker.state.model_states.values()
        load = model_state.expert_load_pass
        load.copy_(torch.arange(load.numel()).view(load.shape))
        _step(worker)(0)
    windows = []
    for worker in (stock, plugin):
        [model_state] = worker.state.model_states.values()
        windows.append((worker.state.expert_load_window_step, model_state.expert_load_window))
    if windows[0][0] != windows[1][0] or not torch.equal(windows[0][1], windows[1][1]):
        raise BenchError("vLLM's step and the plugin's recorded different loads")
