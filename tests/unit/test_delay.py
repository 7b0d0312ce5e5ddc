# SPDX-License-Identifier: Apache-2.0
"""Transfers that take longer on purpose."""

import asyncio
import contextlib
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from vllm_eplb_plugin.faults import transfer_delay as delay
from vllm_eplb_plugin.faults.selection import overrides_on_purpose
from vllm_eplb_plugin.faults.transfer_delay import delay_overrides
from vllm_eplb_plugin.settings import Settings, SettingsError, load_settings


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float | str]:
    noted: list[float | str] = []
    monkeypatch.setattr(time, "sleep", noted.append)
    return noted


def test_half_of_a_delay_is_before_a_transfer_and_half_after(slept: list[Any]) -> None:
    def transfer_layer(*_: Any, stream: Any = None) -> str:
        slept.append("moved")
        return "metadata"

    delayed = delay_overrides(30)[-1].replace(transfer_layer)
    assert delayed(1, 2, stream=object()) == "metadata"
    assert slept == [0.015, "moved", 0.015]


def test_a_transfer_that_is_a_coroutine_stays_one(slept: list[Any]) -> None:
    async def transfer_layer(*_: Any, cuda_stream: Any = None) -> str:
        slept.append("moved")
        return "metadata"

    delayed = delay_overrides(30)[0].replace(transfer_layer)
    assert asyncio.run(delayed(1, cuda_stream=None)) == "metadata"
    assert slept == [0.015, "moved", 0.015]


class OnGpu(torch.Stream):
    """A stream of a GPU, as vLLM 0.31 and later make it: a torch.Stream."""

    device = torch.device("cuda", 0)  # type: ignore[assignment]


@pytest.mark.parametrize("properties", [{"clock_rate": 2_000_000}, {}], ids=["told", "measured"])
def test_on_a_gpu_the_stream_of_the_transfer_is_kept_busy(
    properties: dict[str, int], slept: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    busy: list[tuple[Any, int]] = []
    current: list[Any] = [None]

    @contextlib.contextmanager
    def make_current(stream: Any) -> Iterator[None]:
        current.append(stream)
        yield
        current.pop()

    class Event:
        def __init__(self, device: Any, enable_timing: bool) -> None: ...
        def record(self) -> None: ...
        def synchronize(self) -> None: ...
        def elapsed_time(self, _: Any) -> float:
            return 10.0

    for name, value in {
        "get_device_properties": lambda _: SimpleNamespace(**properties),
        "stream": make_current,
        "device": contextlib.nullcontext,
        "_sleep": lambda cycles: busy.append((current[-1], cycles)),
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(torch, "Event", Event)
    delay._cycles_a_millisecond.cache_clear()
    stream = OnGpu(device="cpu")
    delayed = delay_overrides(30)[-1].replace(lambda *_, stream: "metadata")
    assert delayed(1, stream=stream) == "metadata"
    # 20 million cycles in 10 ms, where it is measured: the same clock.
    assert [cycles for on, cycles in busy if on is stream] == [30_000_000] * 2
    assert slept == []


def test_every_release_gets_one_delay_and_only_if_asked() -> None:
    nothing = Settings(loopback=True)
    slow = Settings(loopback=True, transfer_delay_ms=5)
    both = Settings(loopback=True, transfer_delay_ms=5, fault="weights_not_moved")
    for release in ("0.18.0", "0.20.0", "0.26.0", "0.31.0", "0.33.0"):
        chosen = [overrides_on_purpose(one, release) for one in (nothing, slow, both)]
        assert [len(one) for one in chosen] == [0, 1, 3]


def test_a_delay_outside_loopback_is_refused() -> None:
    with pytest.raises(SettingsError, match="transfer_delay_ms=5 slows EPLB on purpose"):
        load_settings({"eplb_plugin": {"transfer_delay_ms": 5}})
    with pytest.raises(SettingsError, match="greater than or equal to 0"):
        load_settings({"eplb_plugin": {"transfer_delay_ms": -1, "loopback": True}})
