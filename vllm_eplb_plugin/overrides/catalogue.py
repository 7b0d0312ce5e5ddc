# SPDX-License-Identifier: Apache-2.0
"""Every override, by the moment at which it is bound, and those that a release gets.

The rooms that hold overrides are named here and imported when their overrides are asked for, so
that they can ask for the others' in turn.
"""

import importlib
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

from vllm_eplb_plugin.overrides.override import Override, select

_PACKAGE = "vllm_eplb_plugin"


@dataclass(frozen=True)
class Overrides:
    """The overrides that a release gets, by the moment at which they are bound."""

    entry: tuple[Override, ...]
    """As soon as vLLM's module is imported, in every process: they look whether EPLB is asked for,
    and take any arguments."""
    state: tuple[Override, ...]
    """When an `EplbState` is made: the single map. Checked already where EPLB is asked for."""
    runner: tuple[Override, ...]
    """Also when an `EplbState` is made, in modules too heavy to import any earlier: in those that
    the process has imported, which are what it serves with."""
    metrics: tuple[Override, ...]
    """Where EPLB is asked for, as soon as vLLM's module is imported: what stands on /metrics."""
    requests: tuple[Override, ...]
    """Where EPLB and LoRA are asked for: what a request may name."""
    loopback: tuple[Override, ...]
    """When a loopback worker on a CPU is made: EPLB on such a device."""
    loopback_serving: tuple[Override, ...]
    """Also when a loopback worker is made: what serves a model with EP on a CPU."""
    loopback_cuda: tuple[Override, ...]
    """When a loopback worker on a GPU is made: what lets ranks share it."""
    exact: tuple[Override, ...]
    """When a worker is made with the setting ``exact_combine``, also without EPLB."""
    exact_on_cpu: tuple[Override, ...]
    """The same on a CPU."""
    exact_on_gpu: tuple[Override, ...]
    """The same on a GPU."""

    def for_release(self, release: str) -> "Overrides":
        """Select the overrides that one release needs."""
        moments = (field.name for field in fields(self))
        return Overrides(**{name: select(getattr(self, name), release) for name in moments})


FRONT_END = "vllm.engine.arg_utils"
_ENTRY = {
    FRONT_END: ("front_end.engine_config:CREATE_ENGINE_CONFIG",),
    "vllm.v1.worker.worker_base": ("engine.worker_settings:OVERRIDES",),
    "vllm.distributed.eplb.eplb_state": ("engine.entry:OVERRIDES",),
    "vllm.entrypoints.serve.instrumentator.metrics": ("front_end.control:OVERRIDES",),
}
"""By the module of vLLM that they are in. What holds them imports nothing of vLLM's."""

ENTRY_MODULES = tuple(_ENTRY)

_WHERE = {
    "entry": tuple(name for names in _ENTRY.values() for name in names),
    "state": (
        "engine.state_hooks:OVERRIDES",
        "engine.planned_steps:OVERRIDES",
        "engine.added_model:OVERRIDES",
        "engine.commit_points:OVERRIDES",
        "engine.async_worker:OVERRIDES",
        "engine.readiness:OVERRIDES",
        "engine.unchanged_layers:OVERRIDES",
        "transfer.from_buffer:OVERRIDES",
        "transfer.own_buffers:OVERRIDES",
        "engine.v018:OVERRIDES",
    ),
    "runner": (
        "engine.model_runner_v1:OVERRIDES",
        "engine.model_runner_v2:OVERRIDES",
        "engine.adapters:OVERRIDES",
        "engine.weight_updates:OVERRIDES",
        "engine.forwards:OVERRIDES",
        "engine.sleep:OVERRIDES",
    ),
    "metrics": ("front_end.metrics:OVERRIDES",),
    "requests": ("front_end.adapters:OVERRIDES",),
    "loopback": ("front_end.loopback_config:ALLOW_EPLB", "loopback.cpu.device:OVERRIDES"),
    "loopback_serving": (
        "loopback.coordinator:FORK_COORDINATOR",
        "loopback.cpu.forked_ranks:FORK_RANKS",
        "loopback.cpu.model_runner:OVERRIDES",
        "loopback.cpu.v018:OVERRIDES",
        "loopback.cpu.v032:OVERRIDES",
    ),
    "loopback_cuda": (
        "loopback.coordinator:FORK_COORDINATOR",
        "loopback.one_gpu.device:OVERRIDES",
    ),
    "exact": ("combine.finalize:FINALIZE",),
    "exact_on_cpu": ("combine.cpu_experts:CPU_FUSED_MOE",),
    "exact_on_gpu": ("combine.triton_experts:MOE_SUM",),
}


_ON_PURPOSE = "faults.selection:BY_SETTING"
_FAULT = "fault"


@dataclass(frozen=True)
class Place:
    """Where an override is declared, and what binds it."""

    override: Override
    room: str
    """Folder of the package, with the file that declares it: ``loopback/cpu/device.py``; of a
    fault, the folder alone."""
    moment: str
    """A field of `Overrides`; of a fault, ``fault``."""
    setting: str | None = None
    """What a fault is asked for by, such as ``"fault": "no_rearrangement"``."""


@dataclass(frozen=True)
class Declaration:
    """Where overrides of one moment are declared; nothing of it is imported yet."""

    name: str
    """``room.module:ATTRIBUTE`` of the package."""
    moment: str
    """See `Place`."""

    @property
    def file(self) -> str:
        """See `Place.room`, of a fault, too."""
        return self.name.partition(":")[0].replace(".", "/") + ".py"

    def places(self) -> Iterator[Place]:
        """What is declared there, for all releases; this imports vLLM."""
        if self.moment != _FAULT:
            yield from (Place(override, self.file, self.moment) for override in _load(self.name))
            return
        for setting, overrides in _find(self.name).items():
            yield from (Place(override, "faults", _FAULT, setting) for override in overrides)


def declarations() -> Iterator[Declaration]:
    """Every declaration of overrides, that of faults last; this imports nothing."""
    for moment, names in _WHERE.items():
        yield from (Declaration(name, moment) for name in names)
    yield Declaration(_ON_PURPOSE, _FAULT)


def places() -> Iterator[Place]:
    """Every override, of all releases, and every fault; this imports vLLM."""
    for declaration in declarations():
        yield from declaration.places()


def overrides_for(release: str) -> Overrides:
    """Find the overrides of a vLLM release; this imports vLLM."""
    every = Overrides(**{moment: _load_all(names) for moment, names in _WHERE.items()})
    return every.for_release(release)


def overrides_at(release: str, *moments: str) -> tuple[Override, ...]:
    """Find the overrides of some moments only, which are fields of `Overrides`."""
    return tuple(
        override for moment in moments for override in select(_load_all(_WHERE[moment]), release)
    )


def entry_overrides(module: str) -> tuple[Override, ...]:
    """Find the overrides to bind when one of `ENTRY_MODULES` is imported, whatever the release."""
    return _load_all(_ENTRY[module])


def _load_all(names: tuple[str, ...]) -> tuple[Override, ...]:
    return tuple(override for name in names for override in _load(name))


def _load(name: str) -> tuple[Override, ...]:
    found = _find(name)
    return (found,) if isinstance(found, Override) else found


def _find(name: str) -> Any:
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(f"{_PACKAGE}.{module}"), attribute)
