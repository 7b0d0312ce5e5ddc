# SPDX-License-Identifier: Apache-2.0
"""A server's own /metrics tells how EPLB is, whoever of its API servers answers."""

import json
import shutil
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from eval.serving.process import ChildProcess
from eval.serving.server import choose_port
from tests.builders.waiting import wait_until
from tests.e2e.conftest import MODEL, ROOT, events_of, serving
from tests.e2e.requests import answers
from vllm_eplb_plugin.observe.metrics.definitions import METRICS

EPLB = {"window_size": 10, "step_interval": 10, "num_redundant_experts": 4, "use_async": True}
PLUGIN = {"loopback": True, "metrics": {"by_rank": True, "by_layer": True}}
ARM: dict[str, Any] = {"name": "async", "eplb": EPLB, "plugin": PLUGIN}
TOLD_HERE = {metric.name for metric in METRICS} - {"vllm:eplb_stalled_seconds"}
"""Nothing stands still."""
GO_UP = (
    "steps_total",
    "rebalance_events_total",
    "rearrangements_total",
    "rearranging_seconds_total",
    "moved_experts_total",
    "moved_bytes_total",
    "model_thread_seconds_total",
)


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=30) as response:
        text: str = response.read().decode()
    return text


Series = dict[str, dict[str, float]]
"""By the name of a metric and its labels, as one string."""


def scrape(url: str) -> Series:
    found: Series = {}
    for family in text_string_to_metric_families(get(f"{url}/metrics")):
        for one in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(one.labels.items()))
            assert labels not in found.setdefault(one.name, {}), f"{one.name} {labels} twice"
            found[one.name][labels] = one.value
    return found


def total(series: Series, name: str) -> float:
    return sum(series[f"vllm:eplb_{name}"].values())


def told(series: Series) -> set[str]:
    """Names of EPLB's metrics."""
    return {name for name in series if name.startswith("vllm:eplb_")}


def page_without(url: str, wrong: Callable[[Series], Collection[str]]) -> Series:
    """The first page of which no metric is wrong any more."""
    deadline = time.monotonic() + 30
    while still := wrong(page := scrape(url)):
        assert time.monotonic() < deadline, sorted(still)
        time.sleep(0.1)
    return page


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The server's folder for what is temporary; vLLM's sockets in it need a short name."""
    with tempfile.TemporaryDirectory(prefix="m", dir="/tmp") as folder:
        monkeypatch.setenv("TMPDIR", folder)
        yield Path(folder)


@pytest.mark.parametrize("servers", [1, 2])
def test_figures_are_on_the_page_and_go_up_as_experts_move(
    servers: int, tmp_path: Path, temporary: Path
) -> None:
    with serving(tmp_path, ARM, tmp_path / "events", f"--api-server-count={servers}") as server:
        answers(server.url)
        # Ranks write once a second, each for itself, and while one plans no layers are left.
        before = page_without(
            server.url,
            lambda page: (
                told(page) ^ TOLD_HERE or {name for name in GO_UP if not total(page, name)}
            ),
        )
        assert before["vllm:num_requests_running"]
        answers(server.url)
        after = page_without(
            server.url,
            lambda page: {name for name in GO_UP if total(page, name) <= total(before, name)},
        )
        assert after["vllm:eplb_state"] == {f"model_name={MODEL},reason=none,state=on": 1}
        assert total(after, "events_dropped_total") == total(after, "stalls_total") == 0
        for name in ("min", "p50", "p90", "avg", "observed", "expected"):
            [value] = after[f"vllm:eplb_balancedness_{name}"].values()
            assert 0 < value <= 1
        assert max(after["vllm:eplb_rank_age_seconds"].values()) < 10
        # Several answer on one port, and tell the same: what is written, once the server is idle.
        file = tmp_path / "events" / "rank0.jsonl"
        for _ in range(10):
            wait_until(lambda: counted(scrape(server.url)) == written(file))
        assert list(temporary.glob("eplb-*/vllm-eplb-*/rank*.json"))


def counted(series: Series) -> tuple[float, float]:
    """Rearrangements that finished, and experts that moved."""
    [finished] = (
        value
        for labels, value in series["vllm:eplb_rearrangements_total"].items()
        if "mode=async" in labels and "outcome=finished" in labels
    )
    return finished, total(series, "moved_experts_total")


def written(file: Path) -> tuple[float, float]:
    """The same from events."""
    finished, moved, plan = 0, 0, {}
    for event in events_of(file):
        if event["event"] == "rearrangement_planned":
            plan = event
        elif event["event"] == "layer_committed":
            moved += plan["experts_received"][event["layer"]]
        finished += event["event"] == "rearrangement_finished"
    return finished, moved


def test_without_eplb_nothing_of_it_is_told(tmp_path: Path) -> None:
    with serving(tmp_path, {"name": "none"}, tmp_path / "events") as server:
        series = scrape(server.url)
    assert series["vllm:num_requests_running"]
    assert not [name for name in series if name.startswith("vllm:eplb")]


def test_prometheus_reads_them_and_its_rules_are_content(tmp_path: Path) -> None:
    if (prometheus := shutil.which("prometheus")) is None:
        pytest.skip("no prometheus on PATH: Debian's package of that name has it")
    rules = ROOT / "docs" / "monitoring" / "alerts.yaml"
    with serving(tmp_path, ARM, tmp_path / "events") as server:
        port = choose_port(None)
        configuration = tmp_path / "prometheus.yml"
        target = urllib.parse.urlsplit(server.url).netloc
        static = [{"targets": [target]}]
        configuration.write_text(
            json.dumps(
                {
                    "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
                    "rule_files": [str(rules)],
                    "scrape_configs": [{"job_name": "vllm", "static_configs": static}],
                }
            )
        )
        command = [
            prometheus,
            f"--config.file={configuration}",
            f"--storage.tsdb.path={tmp_path / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ]

        def ask(path: str, **query: str) -> Any:
            url = f"http://127.0.0.1:{port}/api/v1/{path}?{urllib.parse.urlencode(query)}"
            return json.loads(get(url))["data"]

        def value(expression: str) -> float:
            result = ask("query", query=expression)["result"]
            return float(result[0]["value"][1]) if result else 0.0

        with ChildProcess(command, {}, tmp_path / "prometheus.log"):
            answers(server.url)
            wait_until(lambda: _is_up(lambda: value("vllm:eplb_moved_experts_total") > 0), 60)
            answers(server.url)
            wait_until(lambda: value("rate(vllm:eplb_model_thread_seconds_total[10s])") > 0)
            alerts = [rule for group in ask("rules")["groups"] for rule in group["rules"]]
            assert len(alerts) == 8
            assert {rule["health"] for rule in alerts} == {"ok"}
            assert {rule["state"] for rule in alerts} == {"inactive"}


def _is_up(condition: Callable[[], bool]) -> bool:
    try:
        return condition()
    except OSError:
        return False
