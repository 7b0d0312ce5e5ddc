# SPDX-License-Identifier: Apache-2.0
"""The dashboard and the rules ask for what there is, and alert when they should."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from vllm_eplb_plugin.observe.metrics.definitions import METRICS
from vllm_eplb_plugin.observe.metrics.kinds import Told

MONITORING = Path(__file__).parents[2] / "docs" / "monitoring"
DASHBOARD = json.loads((MONITORING / "grafana.json").read_text(encoding="utf-8"))
RULES = MONITORING / "alerts.yaml"

LABELS = {
    metric.name: {*Told("", True, True, True, True).labels(metric), "instance"}
    for metric in METRICS
}
_SELECTED = re.compile(r"(vllm:\w+)(?:\{([^}]*)\})?")


def of_dashboard() -> Iterator[str]:
    for panel in DASHBOARD["panels"]:
        yield from (target["expr"] for target in panel["targets"])
    yield from (one["expr"] for one in DASHBOARD["annotations"]["list"])
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["query"]["query"]


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


EXPRESSIONS = [*of_dashboard(), *(rule["expr"] for rule in rules())]


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_expressions_select_metrics_that_exist_by_labels_that_they_have(expression: str) -> None:
    selected = _SELECTED.findall(expression)
    assert selected
    for name, matchers in selected:
        assert name in LABELS, name
        assert set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers)) <= LABELS[name]


def test_what_is_asked_of_eplb_is_on_the_dashboard() -> None:
    asked = {name for expression in of_dashboard() for name, _ in _SELECTED.findall(expression)}
    always = {metric.name for metric in METRICS if metric.only_with is None}
    # Of these it has others that say the same.
    finer = {"balancedness_avg", "balancedness_p50", "layers_left", "steps_to_next_rearrangement"}
    assert asked == always - {f"vllm:eplb_{name}" for name in finer}


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells


@pytest.fixture
def promtool() -> str:
    if (found := shutil.which("promtool")) is None:
        pytest.skip("no promtool on PATH: Debian's package prometheus has it")
    return found


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, cwd=MONITORING)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_rules_are_rules(promtool: str) -> None:
    run(promtool, "check", "rules", str(RULES))


def test_the_rules_alert_when_they_should_and_else_do_not(promtool: str) -> None:
    run(promtool, "test", "rules", "alerts_test.yaml")
    tried = (MONITORING / "alerts_test.yaml").read_text(encoding="utf-8")
    for rule in rules():
        assert re.search(rf"alertname: {rule['alert']}\n\s+exp_alerts", tried), rule["alert"]


def test_expressions_of_the_dashboard_can_be_read(promtool: str, tmp_path: Path) -> None:
    asked = [one for one in of_dashboard() if not one.startswith("label_values")]
    filled = [one.replace("$__rate_interval", "5m") for one in asked]
    file = tmp_path / "dashboard.yaml"
    rules = [{"record": f"panel:{at}", "expr": one} for at, one in enumerate(filled)]
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    run(promtool, "check", "rules", str(file))
