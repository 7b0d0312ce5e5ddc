# SPDX-License-Identifier: Apache-2.0
"""What vLLM's API server answers under /eplb, and who may ask."""

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from tests.builders.rank_statuses import rank_status
from vllm_eplb_plugin.front_end import control_routes, engine_config
from vllm_eplb_plugin.front_end.control import OVERRIDES
from vllm_eplb_plugin.observe import commands
from vllm_eplb_plugin.observe.commands import ACTIONS, Command, note
from vllm_eplb_plugin.observe.status import FOLDER_VARIABLE, write_status
from vllm_eplb_plugin.settings import Settings

CONTROL: dict[str, Any] = {"control": True}


@pytest.fixture(autouse=True)
def _as_in_a_new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "_newest", 0)
    for name in ("VLLM_API_KEY", "VLLM_SERVER_DEV_MODE", FOLDER_VARIABLE):
        monkeypatch.delenv(name, raising=False)


class Engines:
    """What an API server asks: each has one worker, and may stand still."""

    def __init__(self, number: int = 1) -> None:
        self.heard: list[int] = []
        self.stand_still = False

    async def collective_rpc(self, method: str, args: tuple[int, ...]) -> list[int]:
        assert method == "eplb_command"
        self.heard += args
        if self.stand_still:
            await asyncio.Event().wait()
        return [note(*args)]


def server(settings: dict[str, Any], engines: Engines | None = None, **options: Any) -> TestClient:
    """A server that was started with these settings of the plugin, and these options of vLLM."""
    app = FastAPI()
    usual = {"enable_eplb": True, "additional_config": {"eplb_plugin": settings}, "api_key": None}
    app.state.args = SimpleNamespace(**{**usual, **options})
    app.state.engine_client = Engines() if engines is None else engines
    attached: list[FastAPI] = []
    attach: Callable[[FastAPI], None] = OVERRIDES[0].replace(attached.append)
    attach(app)
    assert attached == [app]
    return TestClient(app)


@pytest.mark.parametrize("action", ACTIONS)
def test_an_action_reaches_the_engines_as_the_newest_command(action: str) -> None:
    engines = Engines()
    answer = server(CONTROL, engines).post(f"/eplb/{action}")
    assert answer.status_code == 202
    told = answer.json()
    assert engines.heard == [told["number"]] == [commands.newest()]
    assert Command.of(told["number"]).action == told["action"] == action
    assert "within 68 engine steps; an idle server makes none" in told["when"]


def test_what_is_no_action_is_not_found_or_refused() -> None:
    client = server(CONTROL)
    assert client.post("/eplb/stop").status_code == 422
    assert client.get("/eplb/pause").status_code == 405


def test_who_comes_later_wins_although_the_other_clock_is_ahead() -> None:
    ahead = Command(99_999_999_999_999, "pause").number
    note(ahead)
    engines = Engines()
    number = server(CONTROL, engines).post("/eplb/resume").json()["number"]
    assert number > ahead and Command.of(number).action == "resume"
    assert engines.heard[-1] == number == commands.newest()


def test_an_engine_that_stands_still_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_routes, "_LIMIT_SECONDS", 0.01)
    engines = Engines()
    engines.stand_still = True
    answer = server(CONTROL, engines).post("/eplb/pause")
    assert answer.status_code == 504
    assert "GET /eplb/status says who stands still" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("settings", "options"),
    [
        ({}, {}),
        ({"control": False}, {}),
        (CONTROL, {"enable_eplb": False}),
        ({**CONTROL, "enabled": False}, {}),
    ],
)
def test_without_the_setting_nothing_is_there(
    settings: dict[str, Any], options: dict[str, Any]
) -> None:
    client = server(settings, **options)
    assert client.get("/eplb/status").status_code == 404
    assert client.post("/eplb/pause").status_code == 404


def test_in_dev_mode_it_tells_how_it_is_and_what_would_let_it_act(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("VLLM_SERVER_DEV_MODE", "1")
    engines = Engines()
    client = server({}, engines)
    assert client.get("/eplb/status").json()["control"] is False
    answer = client.post("/eplb/pause")
    assert answer.status_code == 403 and '"control": true' in answer.json()["detail"]
    assert engines.heard == []


@pytest.mark.parametrize(
    ("option", "variable", "key"),
    [(["one", "two"], None, "two"), (None, "three", "three"), (["one"], "three", "one")],
)
def test_vllms_key_protects_every_route(
    option: list[str] | None, variable: str | None, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if variable is not None:
        monkeypatch.setenv("VLLM_API_KEY", variable)
    engines = Engines()
    client = server(CONTROL, engines, api_key=option)
    wrong = [{}, {"Authorization": "Bearer no"}, {"Authorization": f"Basic {key}"}]
    if option is not None and variable is not None:
        wrong.append({"Authorization": f"Bearer {variable}"})
    for headers in wrong:
        assert client.get("/eplb/status", headers=headers).status_code == 401
        for action in ACTIONS:
            assert client.post(f"/eplb/{action}", headers=headers).status_code == 401
    assert engines.heard == []
    right = {"Authorization": f"Bearer {key}"}
    assert client.get("/eplb/status", headers=right).status_code == 200
    assert client.post("/eplb/plan", headers=right).status_code == 202


def test_the_status_is_what_ranks_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    for rank in range(2):
        write_status(tmp_path, rank_status(rank))
    told = server(CONTROL).get("/eplb/status").json()
    assert told["control"] is True
    written = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2)]
    assert told["ranks"] == written


def test_ranks_say_how_they_are_also_where_no_metrics_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv(FOLDER_VARIABLE, "")
    monkeypatch.delenv(FOLDER_VARIABLE)
    engine_config._tell_metrics(Settings(control=True, metrics=None), None)
    assert Path(os.environ[FOLDER_VARIABLE]).parent == tmp_path


def test_a_server_without_engines_says_so() -> None:
    client = server(CONTROL)
    del client.app.state.engine_client  # type: ignore[attr-defined]
    assert client.post("/eplb/pause").status_code == 503
