# SPDX-License-Identifier: Apache-2.0
"""What it costs the thread that runs the model to tell of a rearrangement."""

import copy
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from vllm_eplb_plugin.bench.shapes import Shape
from vllm_eplb_plugin.bench.stand_in import group_of, model_state
from vllm_eplb_plugin.compatibility import installed_support
from vllm_eplb_plugin.engine.followed import Followed
from vllm_eplb_plugin.engine.load_recorder import LoadRecorder, Serving
from vllm_eplb_plugin.engine.plan_events import Finished, Moment, layers_committed
from vllm_eplb_plugin.engine.session import Session
from vllm_eplb_plugin.engine.switch_interval import limit_switch_interval
from vllm_eplb_plugin.observe.delivery import flush_all
from vllm_eplb_plugin.observe.identity import Source
from vllm_eplb_plugin.observe.sinks.json_lines import JsonLines
from vllm_eplb_plugin.planning.guard import Plan
from vllm_eplb_plugin.recording.recording_sink import RecordingSink
from vllm_eplb_plugin.settings import Settings

_MAX_BYTES = 10**9
"""Of the recording: more than all rounds have, so that no file is taken away."""


@dataclass(frozen=True)
class Telling:
    """What one rearrangement takes, in milliseconds, each the median of several."""

    shape: str
    at_once: float
    """If that thread made and wrote the events."""
    handed_over: float
    """As it is done: all calls of a rearrangement, events on."""
    without_events: float
    """The same calls with nobody to tell."""
    longest_wait: float
    """For which a thread that always wants to run could not, while they are written."""
    longest_wait_without: float
    """The same while nothing is written: the machine's own."""
    recording: float
    """In calls of the recording, that of the plan, too, which sync mode makes on that thread."""


def bench_telling(shape: Shape, rounds: int) -> Telling:
    """Tell of a model's rearrangements, each layer by layer, into a file that is thrown away."""
    state = model_state(shape, shape.redundant + 1, torch.device("cpu"))
    state.physical_to_logical_map.copy_(_placement(shape, 0))
    times = []
    with tempfile.TemporaryDirectory() as folder, _switch_interval_of_a_server():
        sink = JsonLines(Path(folder) / "at once.jsonl")
        told, untold = (
            _Followed(state, shape, Settings(events_dir=path)) for path in (Path(folder), None)
        )
        recorder = _recorder(Path(folder), shape)
        recorded = _Followed(state, shape, Settings(), recorder)
        for number in range(rounds):
            plan = _plan(shape, number)
            at_once = _seconds(partial(_tell_at_once, shape.name, plan, sink))
            handed_over, without_events = told.rearrange(plan), untold.rearrange(plan)
            wait, seconds = _longest_wait(lambda: flush_all(60))
            without, _ = _longest_wait(partial(time.sleep, seconds))
            times.append((at_once, handed_over, without_events, wait, without))
        flush_all(60)
        recording = [
            _recording(recorded, recorder, _plan(shape, number)) for number in range(rounds)
        ]
        recorder.close()
    columns = (*zip(*times, strict=True), recording)
    medians = (statistics.median(one) * 1000 for one in columns)
    return Telling(str(shape), *medians)


def _recording(followed: "_Followed", recorder: "_TimedRecorder", plan: Plan) -> float:
    """Seconds in calls of the recording during one rearrangement."""
    before = recorder.seconds
    followed.rearrange(plan)
    flush_all(60)
    return recorder.seconds - before


class _TimedRecorder(LoadRecorder):
    """Adds up what its callers wait for: a difference of whole rearrangements would be noise."""

    seconds = 0.0

    def planned(self, followed: Followed, plan: Plan) -> None:
        self.seconds += _seconds(partial(super().planned, followed, plan))

    def ended(self, followed: Followed) -> None:
        self.seconds += _seconds(partial(super().ended, followed))


class _Followed:
    """A model whose rearrangements are followed as in async mode."""

    def __init__(
        self, state: Any, shape: Shape, settings: Settings, recorder: LoadRecorder | None = None
    ) -> None:
        self._state = copy.copy(state)
        self._session = Session(settings, Source(0, 0, 0))
        self._session.rearrangements.recorder = recorder
        self._session.rearrangements.trigger = "interval"
        self._moved = self._session.add(self._state, group_of(shape)).moved
        self._layers = shape.layers

    def rearrange(self, plan: Plan) -> float:
        """Seconds that it takes of the thread that runs the model."""
        session = self._session
        session.rearrangements.step += 1
        seconds = _seconds(partial(session.rearrangements.start, "async", [self._moved]))
        # vLLM's async worker does this, on its own thread.
        session.rearrangements.planned(plan, "async")
        return seconds + sum(
            _seconds(partial(session.committed, self._state, range(layer, layer + 1)))
            for layer in range(self._layers)
        )


def _recorder(folder: Path, shape: Shape) -> _TimedRecorder:
    sink = RecordingSink(folder / "recording", _MAX_BYTES, 0)
    release = installed_support().release
    return _TimedRecorder(sink, Serving(shape.ranks, shape.nodes, release, 1, 1), None)


@contextmanager
def _switch_interval_of_a_server() -> Iterator[None]:
    before = sys.getswitchinterval()
    limit_switch_interval(Settings().switch_interval_ms)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def _tell_at_once(model: str, plan: Plan, sink: JsonLines) -> None:
    layers = range(plan.new.shape[0])
    finished = Finished(Moment(model, 0, 1, 1, "async"), plan, [1] * len(layers), 0.0)
    for events in (
        layers_committed(finished.moment, plan, layers),
        finished.events(with_placement=True),
    ):
        for event in events:
            if event is not None:
                list(sink.write(event.line(Source(0, 0, 0), 0.0)))


def _longest_wait(during: Callable[[], object]) -> tuple[float, float]:
    """The longest time between two turns of a busy loop, and how long it ran."""
    ended = threading.Event()

    def run() -> None:
        during()
        ended.set()

    threading.Thread(target=run).start()
    start = last = time.perf_counter()
    longest = 0.0
    while not ended.is_set():
        now = time.perf_counter()
        longest, last = max(longest, now - last), now
    return longest, last - start


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _placement(shape: Shape, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    slots = torch.rand(shape.layers, shape.slots, generator=generator).argsort(dim=1)
    return slots % shape.logical


def _plan(shape: Shape, seed: int) -> Plan:
    load = torch.randint(0, 1000, (shape.layers, shape.logical))
    return Plan(load, _placement(shape, seed), _placement(shape, seed + 1), shape.ranks)
