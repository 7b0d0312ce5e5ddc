# SPDX-License-Identifier: Apache-2.0
"""The front end makes the folder in which ranks say how they are, and adds to what it tells."""

import json
import logging
import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Gauge

from tests.builders.rank_statuses import rank_status
from vllm_eplb_plugin.front_end import engine_config, metrics
from vllm_eplb_plugin.front_end.status_folder import make_status_folder
from vllm_eplb_plugin.observe.status import FOLDER_VARIABLE, write_status
from vllm_eplb_plugin.observing_settings import MetricsOptions
from vllm_eplb_plugin.overrides.binding import unbind
from vllm_eplb_plugin.settings import ENVIRONMENT_VARIABLE

CONFIG = SimpleNamespace(
    model_config=SimpleNamespace(served_model_name="served"),
    parallel_config=SimpleNamespace(pipeline_parallel_size=1),
    speculative_config=None,
)
INSTRUMENTATOR = "vllm.entrypoints.serve.instrumentator.metrics"


@pytest.fixture(autouse=True)
def _of_no_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)
    waiting: list[Callable[[], None]] = []
    when_imported = metrics.when_imported
    monkeypatch.setattr(
        metrics, "when_imported", lambda *args: waiting.append(when_imported(*args))
    )
    yield
    os.environ.pop(FOLDER_VARIABLE, None)
    for take_back in waiting:
        take_back()
    unbind(metrics.OVERRIDES)


def create_config(additional_config: dict[str, Any] | None = None, **arguments: Any) -> None:
    """As vLLM does, of a release of the table."""
    arguments = {"enable_eplb": True, "additional_config": additional_config or {}, **arguments}
    arguments["eplb_config"] = SimpleNamespace(use_async=True)
    create = engine_config._override(lambda self: CONFIG)
    assert create(SimpleNamespace(**arguments)) is CONFIG


def families(registry: CollectorRegistry) -> set[str]:
    return {family.name for family in registry.collect()}


def test_only_where_eplb_is_asked_for_there_is_a_folder() -> None:
    create_config(enable_eplb=False)
    assert FOLDER_VARIABLE not in os.environ
    create_config()
    folder = Path(os.environ[FOLDER_VARIABLE])
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    # As in an API server, which creates its configuration again.
    create_config()
    assert os.environ[FOLDER_VARIABLE] == str(folder)


@pytest.mark.parametrize("settings", [{"metrics": None}, {"enabled": False}])
def test_there_is_none_where_metrics_or_the_plugin_are_turned_off(settings: Any) -> None:
    create_config({"eplb_plugin": settings})
    assert FOLDER_VARIABLE not in os.environ
    assert metrics._server is None


FOLDER = f"""
import os, multiprocessing
from vllm_eplb_plugin.front_end.status_folder import make_status_folder

def work():
    assert make_status_folder() == folder
    # As engines and API servers end, by what a fork inherits, too.
    import atexit
    atexit._run_exitfuncs()

folder = make_status_folder()
child = multiprocessing.get_context("fork").Process(target=work)
child.start()
child.join()
print(child.exitcode, folder.is_dir(), os.environ[{FOLDER_VARIABLE!r}] == str(folder), folder)
"""


def test_the_folder_ends_with_the_process_that_made_it() -> None:
    done = subprocess.run([sys.executable, "-c", FOLDER], capture_output=True, text=True)
    *said, folder = done.stdout.split()
    assert said == ["0", "True", "True"], done.stderr
    assert not Path(folder).exists()


def test_a_folder_of_another_process_stays(tmp_path: Path) -> None:
    environment = {**os.environ, FOLDER_VARIABLE: str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", FOLDER], env=environment, capture_output=True, text=True
    )
    assert done.stdout.split() == ["0", "True", "True", str(tmp_path)], done.stderr
    assert tmp_path.is_dir()


def test_vllm_s_registry_tells_of_eplb_once_it_is_asked_for() -> None:
    instrumentator = pytest.importorskip(INSTRUMENTATOR)
    before = instrumentator.get_prometheus_registry
    create_config(enable_eplb=False)
    assert instrumentator.get_prometheus_registry is before
    create_config()
    write_status(Path(os.environ[FOLDER_VARIABLE]), rank_status())
    registry = instrumentator.get_prometheus_registry()
    assert registry is before()
    try:
        # Asked again, it is told once.
        instrumentator.get_prometheus_registry()
        names = [family.name for family in registry.collect()]
        assert names.count("vllm:eplb_state") == 1
    finally:
        taken_back(registry)


def taken_back(registry: CollectorRegistry) -> None:
    [ours] = {
        one for one in registry._collector_to_names if isinstance(one, metrics.StatusCollector)
    }
    registry.unregister(ours)
    metrics._registries.discard(registry)


def test_several_api_servers_tell_the_same_each_in_a_registry_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    instrumentator = pytest.importorskip(INSTRUMENTATOR)
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    create_config()
    write_status(Path(os.environ[FOLDER_VARIABLE]), rank_status(step=77))
    registries = [instrumentator.get_prometheus_registry() for _ in range(2)]
    assert registries[0] is not registries[1]
    for registry in registries:
        assert registry.get_sample_value("vllm:eplb_steps_total", {"model_name": "served"}) == 77


@pytest.mark.parametrize("servers", ["one", "several"])
def test_an_api_server_answers_with_what_is_vllm_s_and_what_is_ours(
    servers: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    instrumentator = pytest.importorskip(INSTRUMENTATOR)
    from fastapi import FastAPI
    from fastapi.testclient import TestClient

    create_config()
    write_status(Path(os.environ[FOLDER_VARIABLE]), rank_status(step=77))
    if servers == "several":
        monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    app = FastAPI()
    instrumentator.attach_router(app)
    client = TestClient(app)
    try:
        client.get("/docs")
        requests = re.findall("^http_requests_total{.*}", client.get("/metrics").text, re.M)
        assert len(requests) == len({*requests})
        for path in ("/metrics", "/metrics/"):
            answer = client.get(path)
            assert answer.headers["Content-Type"].startswith("text/plain"), path
            assert 'vllm:eplb_steps_total{model_name="served"} 77.0' in answer.text, path
            assert answer.text.count("# TYPE vllm:eplb_state gauge") == 1
            # Of this process alone.
            assert ("python_info" in answer.text) == (servers == "one")
    finally:
        if servers == "one":
            taken_back(instrumentator.get_prometheus_registry())


def test_the_variable_of_prometheus_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    create_config()
    assert "PROMETHEUS_MULTIPROC_DIR" not in os.environ


def test_a_name_that_somebody_else_tells_costs_ours_and_nothing_more(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    registry = CollectorRegistry()
    Gauge("vllm:eplb_rebalancing", "vLLM's own", registry=registry)
    server = metrics._Server(tmp_path, MetricsOptions(), CONFIG)
    with caplog.at_level(logging.WARNING):
        metrics._register(registry, server.collector())
    assert "Nothing of vllm-eplb-plugin stands on /metrics" in caplog.text
    assert families(registry) == {"vllm:eplb_rebalancing"}


def test_without_room_for_a_folder_eplb_is_served_without_metrics(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_room(**_: str) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.mkdtemp", no_room)
    create_config()
    assert "No space left on device" in caplog.text
    assert metrics._server is None


def test_what_is_told_is_as_the_settings_say() -> None:
    create_config({"eplb_plugin": {"metrics": {"by_rank": True}}})
    assert metrics._server is not None
    told = metrics._server.collector().told
    assert (told.by_rank, told.by_layer, told.model_name) == (True, False, "served")


def test_the_settings_of_the_environment_are_asked_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, json.dumps({"metrics": None}))
    create_config()
    assert FOLDER_VARIABLE not in os.environ


def test_the_folder_is_that_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    assert make_status_folder() == tmp_path
