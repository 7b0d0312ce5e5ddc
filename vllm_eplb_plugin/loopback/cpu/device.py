# SPDX-License-Identifier: Apache-2.0
"""Lets vLLM's EPLB run on a CPU device, on every release: streams and events of the host."""

import contextlib
import time
from types import SimpleNamespace
from typing import Any

from vllm_eplb_plugin.overrides.override import Override

_EPLB = "vllm.distributed.eplb"


class HostEvent:
    """A host event stands for an accelerator's: what came before it is done when it is recorded."""

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        self._seconds = 0.0

    def record(self, stream: Any = None) -> None:
        """Note the time."""
        self._seconds = time.perf_counter()

    def wait(self, stream: Any = None) -> None:
        """Return at once: nothing is ever pending."""

    def synchronize(self) -> None:
        """Return at once: nothing is ever pending."""

    def elapsed_time(self, end: "HostEvent") -> float:
        """Return the milliseconds until ``end`` was recorded."""
        return (end._seconds - self._seconds) * 1000.0


class HostStream:
    """A host stream stands for an accelerator's: work is done when it is issued."""

    def __init__(self, *_args: Any, **_kwargs: Any) -> None: ...

    def synchronize(self) -> None:
        """Return at once: nothing is ever pending."""

    def wait_event(self, event: HostEvent) -> None:
        """Return at once: nothing is ever pending."""

    def record_event(self, event: HostEvent) -> None:
        """Record an event now."""
        event.record()


def _nothing(*_args: Any, **_kwargs: Any) -> None:
    return None


class HostTorch:
    """This is torch, except that streams and events, of which a CPU has none, are the host's."""

    Event = HostEvent
    Stream = HostStream
    cuda = SimpleNamespace(
        Event=HostEvent,
        Stream=HostStream,
        current_stream=HostStream,
        stream=lambda _stream: contextlib.nullcontext(),
    )
    accelerator = SimpleNamespace(
        current_accelerator=_nothing,
        current_stream=HostStream,
        set_device_index=_nothing,
        set_stream=_nothing,
        synchronize=_nothing,
    )

    def __init__(self, torch: Any) -> None:
        self._torch = torch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._torch, name)


def _override_device_index(_: None) -> property:
    def get(self: Any) -> int:
        return 0

    def put(self: Any, index: int | None) -> None:
        return

    return property(get, put, doc="An index, because the async worker asks for one.")


OVERRIDES = (
    *(
        Override(
            # Only this module's name for torch: what it asks of torch.cuda is about EPLB.
            target=f"{_EPLB}.{module}:torch",
            signature=None,
            kind="pretend",
            replace=HostTorch,
            fixes="EPLB orders its work with streams and events, which a CPU does not have.",
            delete_when="vLLM's EPLB runs on a CPU device.",
            releases=releases,
        )
        for module, releases in (
            ("async_worker", ""),
            ("eplb_state", ""),
            ("rebalance_execute", ""),
            ("eplb_utils", ">=0.20"),
            ("eplb_communicator", ">=0.20"),
        )
    ),
    *(
        Override(
            target=f"{_EPLB}.eplb_state:EplbState.{attribute}",
            signature=None,
            kind="pretend",
            replace=_override_device_index,
            fixes="The thread of the async worker dies at once without a device's index.",
            delete_when="vLLM's EPLB runs on a CPU device.",
            releases=releases,
        )
        for attribute, releases in (
            ("cuda_device_index", "<0.31"),
            ("device_index", ">=0.31"),
        )
    ),
)
