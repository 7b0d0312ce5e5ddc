# SPDX-License-Identifier: Apache-2.0
"""How long `EplbState.step` holds the thread that runs the model while nothing is rearranged."""

import contextlib
import logging
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch

from vllm_eplb_plugin.bench.one_rank import Experts, model_config, one_rank
from vllm_eplb_plugin.bench.result import BenchError, Row
from vllm_eplb_plugin.bench.shapes import Shape
from vllm_eplb_plugin.bench.timing import alternate, difference
from vllm_eplb_plugin.compatibility import installed_support
from vllm_eplb_plugin.engine import entry
from vllm_eplb_plugin.observe.delivery import flush_all
from vllm_eplb_plugin.overrides.binding import bind, unbind
from vllm_eplb_plugin.overrides.catalogue import overrides_at
from vllm_eplb_plugin.overrides.override import Override, select

_WINDOW = 1000
"""Steps of load that are kept, as by vLLM's default. The interval is the same, so that the load of
every step is recorded: that is the most that a step without a rearrangement has to do."""


def bench_step(shape: Shape, rounds: int, device: torch.device) -> list[Row]:
    """Sync and async, with events and without.

    The async worker is not started: between rearrangements it only waits.

    Raises:
        BenchError: Steps that do not record the same.
    """
    return [
        _bench_one(shape, rounds, device, use_async, with_events)
        for use_async in (False, True)
        for with_events in (False, True)
    ]


def _bench_one(
    shape: Shape, rounds: int, device: torch.device, use_async: bool, with_events: bool
) -> Row:
    eplb = {"window_size": _WINDOW, "step_interval": _WINDOW, "use_async": use_async}
    with tempfile.TemporaryDirectory() as folder, _process_put_back():
        plugin = {"events_dir": folder if with_events else None}
        pretended = overrides_at(installed_support().release, "loopback")
        with (
            _bound(pretended if device.type == "cpu" else ()),
            one_rank(eplb, plugin) as parallel,
            both_classes() as classes,
        ):
            states = {}
            for name, state_class in classes.items():
                states[name] = state_class(parallel, device)
                states[name].add_model(Experts(shape, device), model_config(shape))
            flush_all(60)  # of the first placement
            times = alternate(
                {name: _step(state) for name, state in states.items()}, rounds, device
            )
            _compare(*states.values())
    what = f"{'async' if use_async else 'sync'}, {'events' if with_events else 'no events'}"
    stock, own = times["stock"], times["plugin"]
    return Row(str(shape), what, stock.summary(), own.summary(), difference(own, stock))


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
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(disabled)
        sys.setswitchinterval(interval)


def _step(state: Any) -> Callable[[int], None]:
    def step(_: int) -> None:
        state.expert_rearrangement_step = 0  # so that no rearrangement begins
        state.step()

    return step


def _compare(stock: Any, plugin: Any) -> None:
    """That a load is recorded alike, and was by as many steps before."""
    for state in (stock, plugin):
        [model_state] = state.model_states.values()
        load = model_state.expert_load_pass
        load.copy_(torch.arange(load.numel()).view(load.shape))
        _step(state)(0)
    [one], [other] = stock.model_states.values(), plugin.model_states.values()
    if stock.expert_load_window_step != plugin.expert_load_window_step or not torch.equal(
        one.expert_load_window, other.expert_load_window
    ):
        raise BenchError("vLLM's step and the plugin's recorded different loads")
