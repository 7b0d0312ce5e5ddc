# SPDX-License-Identifier: Apache-2.0
"""Every override is of the kind that it says."""

import json
import sys
from collections.abc import Iterator
from typing import Any
from unittest.mock import MagicMock

import pytest

from vllm_eplb_plugin.overrides.catalogue import Place, places
from vllm_eplb_plugin.overrides.override import is_among
from vllm_eplb_plugin.releases import supported_releases
from vllm_eplb_plugin.settings import ENVIRONMENT_VARIABLE

PLACES = list(places())


@pytest.fixture(params=[True, False], ids=["on", "off"])
def _in_a_rank(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As in an EP rank, with the plugin turned on and off; nothing is bound."""
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, json.dumps({"enabled": request.param}))
    monkeypatch.setattr("vllm_eplb_plugin.settings._of_this_process", None)
    for group in ("_EP", "_PP", "_WORLD"):
        monkeypatch.setattr(
            f"vllm.distributed.parallel_state.{group}", MagicMock(rank_in_group=0, world_size=1)
        )
    monkeypatch.setattr("vllm_eplb_plugin.engine.entry._take_charge", MagicMock())
    monkeypatch.setattr("vllm_eplb_plugin.front_end.metrics.tell_metrics", MagicMock())
    interval = sys.getswitchinterval()
    yield
    sys.setswitchinterval(interval)


def of_kind(kind: str) -> list[Any]:
    found = [place for place in PLACES if place.override.kind == kind]
    name = "{0.target} {0.releases}"
    return [pytest.param(place, id=name.format(place.override)) for place in found]


@pytest.mark.usefixtures("_in_a_rank")
@pytest.mark.parametrize("place", of_kind("hook"))
def test_a_hook_calls_the_original_with_the_same_arguments(place: Place) -> None:
    calls: list[dict[str, Any]] = []
    answer = object()
    made: dict[str, Any] = {"calls": calls, "answer": answer}
    signature = place.override.signature
    exec(f"def original{signature}:\n    calls.append(locals())\n    return answer", made)
    original = made["original"]
    names = original.__code__.co_varnames[: original.__code__.co_argcount]
    arguments = {name: MagicMock(name=name) for name in names}
    arguments.get("self", MagicMock()).additional_config = {}
    arguments.get("parallel_config", MagicMock()).pipeline_parallel_size = 1
    returned = place.override.replace(original)(**arguments)
    variadic = {"args": (), "kwargs": {}} if "*args" in str(signature) else {}
    assert calls == [arguments | variadic]
    # None of those that return nothing is asked for what it returns.
    assert returned in (answer, None)


def test_what_breaks_is_in_the_room_of_faults_and_nothing_else_is() -> None:
    assert PLACES
    for place in PLACES:
        breaks = place.override.kind == "break"
        assert breaks == (place.room == "faults") == (place.setting is not None), place


def test_only_loopback_pretends() -> None:
    assert of_kind("pretend")
    for place in PLACES:
        if place.override.kind == "pretend":
            assert place.moment.startswith("loopback"), place
        if place.moment in ("entry", "state", "runner"):
            assert place.override.kind in ("replace", "hook"), place


def test_each_text_is_a_sentence_about_a_failure() -> None:
    for place in PLACES:
        for text in (place.override.fixes, place.override.delete_when):
            assert text.endswith(".") and not text.startswith("Nothing"), place


def test_no_two_overrides_want_the_same_target() -> None:
    """Of two, the one that is bound second would silently have no effect."""
    for release in supported_releases():
        wanted: dict[str, Place] = {}
        for place in PLACES:
            if place.moment == "fault" or not is_among(release, place.override.releases):
                continue
            first = wanted.setdefault(place.override.target, place)
            assert first.override is place.override, (release, first, place)
