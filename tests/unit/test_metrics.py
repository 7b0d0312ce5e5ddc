# SPDX-License-Identifier: Apache-2.0
"""What stands on /metrics is what ranks said last."""

import importlib
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from tests.builders.rank_statuses import NOW, model_status, rank_status
from vllm_eplb_plugin.front_end.metrics import StatusCollector
from vllm_eplb_plugin.observe.metrics.definitions import METRICS
from vllm_eplb_plugin.observe.metrics.kinds import Told
from vllm_eplb_plugin.observe.status import RankStatus, Stall, UnderWay, write_status

REPOSITORY = Path(__file__).parents[2]
FEW = Told("served", by_rank=False, by_layer=False, has_stages=False, has_drafter=False)
ALL = Told("served", by_rank=True, by_layer=True, has_stages=True, has_drafter=True)


class Page:
    """What is scraped from a host on which ranks have said how they are."""

    def __init__(self, folder: Path, told: Told, *statuses: RankStatus) -> None:
        for one in statuses:
            write_status(folder, one)
        self.registry = CollectorRegistry()
        self.registry.register(StatusCollector(folder, told))
        families = parse(generate_latest(self.registry).decode())
        self.samples = [sample for family in families for sample in family.samples]

    def of(self, name: str) -> dict[tuple[str, ...], float]:
        """By the values of labels but the model's name, in the order of labels' names."""
        return {
            tuple(value for label, value in one.labels.items() if label != "model_name"): one.value
            for one in self.samples
            if one.name == f"vllm:eplb_{name}"
        }


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Page]:
    monkeypatch.setattr(time, "time", lambda: NOW)

    def scrape(*statuses: RankStatus, told: Told = FEW) -> Page:
        return Page(tmp_path, told, *statuses)

    return scrape


def test_each_metric_tells_what_its_field_says(page: Callable[..., Page]) -> None:
    told = page(rank_status(0), rank_status(1, under_way=UnderWay(6, 8.0, 3)))
    assert {sample.labels["model_name"] for sample in told.samples} == {"served"}
    expected = {
        "rebalancing": 1,
        "rebalance_events_total": 5,
        "rearrangement_age_seconds": 8,
        "layers_left": 3,
        "rearrangement_seconds": 1.25,
        "rearranging_seconds_total": 6.5,
        "model_thread_seconds_total": 5,
        "moved_experts_total": 40,
        "moved_bytes_total": 4096,
        "skipped_layers_total": 5,
        "balancedness_min": 0.5,
        "balancedness_p50": 0.75,
        "balancedness_p90": 0.575,
        "balancedness_avg": 0.75,
        "balancedness_observed": 0.7,
        "balancedness_expected": 0.97,
        "steps_total": 300,
        "steps_to_next_rearrangement": 7,
        "events_dropped_total": 1,
        "stalls_total": 0,
    }
    assert {name: told.of(name).get(()) for name in expected} == pytest.approx(expected)
    assert told.of("state") == {("none", "on"): 1}
    assert told.of("policy") == {("vllm",): 1}
    assert told.of("rank_age_seconds") == {("0",): 1, ("1",): 1}
    assert told.of("rank_survivable") == {("0",): 0, ("1",): 1}
    assert told.of("phase_seconds") == {("forward", "model"): 0.5, ("transfer", "worker"): 2}
    assert told.of("stalled_seconds") == {}


def test_outcomes_are_there_before_they_happen_so_that_the_first_is_seen(
    page: Callable[..., Page],
) -> None:
    outcomes = page(rank_status()).of("rearrangements_total")
    assert outcomes["async", "finished"] == 3
    assert outcomes["async", "stalled"] == 0
    assert outcomes["sync", "rejected"] == 1
    assert ("sync", "finished") not in outcomes


def test_by_rank_and_by_layer_only_where_asked_for(page: Callable[..., Page]) -> None:
    few, every = page(rank_status(0), rank_status(1)), page(told=ALL)
    assert few.of("layer_balancedness") == few.of("rank_window_tokens") == {}
    assert every.of("steps_total") == {("0", "0"): 300, ("1", "0"): 301}
    assert every.of("layer_balancedness")["1", "0", "0"] == 0.75
    assert every.of("rank_window_tokens") == {("0", "0", "0"): 60, ("0", "1", "0"): 40}
    labels = {sample.name: sorted(sample.labels) for sample in every.samples}
    assert labels["vllm:eplb_balancedness_min"] == ["model_index", "model_name", "stage"]
    assert labels["vllm:eplb_stalls_total"] == ["model_name", "rank", "stage"]


def test_series_do_not_grow_with_layers_and_hardly_with_ranks(page: Callable[..., Page]) -> None:
    def series(ranks: int, layers: int) -> int:
        model = model_status(balancedness=[0.9] * layers)
        first = rank_status(0, num_ranks=ranks, models=[model])
        others = [rank_status(rank, num_ranks=ranks) for rank in range(1, ranks)]
        return len(page(first, *others).samples)

    few = series(ranks=2, layers=4)
    assert series(ranks=2, layers=61) == few
    # The age of each, and whether it could go.
    assert series(ranks=72, layers=61) == few + 2 * 70


def test_a_rank_that_says_nothing_any_more_is_told_with_its_age(page: Callable[..., Page]) -> None:
    silent = rank_status(1, time=NOW - 500, state="off", step=9, under_way=UnderWay(6, 8.0, 3))
    told = page(rank_status(0), silent)
    assert told.of("rank_age_seconds") == {("0",): 1, ("1",): 500}
    # What it said then is over.
    assert (told.of("rebalancing"), told.of("steps_total")) == ({(): 0}, {(): 300})
    assert told.of("state") == {("none", "on"): 1}
    assert told.of("policy") == {("vllm",): 1}
    alone = page(rank_status(0, time=NOW - 600))
    assert alone.of("rank_age_seconds") == {("0",): 600, ("1",): 500}
    assert alone.of("moved_experts_total") == {(): 40}


def test_ranks_that_elastic_ep_took_away_are_not_missed(page: Callable[..., Page]) -> None:
    told = page(rank_status(0, num_ranks=1), rank_status(1, num_ranks=2, time=NOW - 60))
    assert told.of("rank_age_seconds") == {("0",): 1}


def test_each_stall_is_told_once_and_off_wins(page: Callable[..., Page]) -> None:
    seen = [Stall(1, "worker", "transfer", 5, seconds) for seconds in (31.0, 33.0)]
    process = Stall(1, "process", "forward", None, 32.0)
    told = page(
        rank_status(0, stalled=[seen[0], process], stalls=2, state="paused", reason="operator"),
        rank_status(1, stalled=[seen[1]], stalls=1, state="off", reason="worker ended"),
    )
    assert told.of("stalled_seconds") == {
        ("5", "transfer", "1", "worker"): 33,
        ("", "forward", "1", "process"): 32,
    }
    assert told.of("stalls_total") == {(): 2}
    assert told.of("state") == {("worker ended", "off"): 1}


def test_a_host_without_the_first_rank_tells_of_no_model(page: Callable[..., Page]) -> None:
    told = page(rank_status(1))
    assert told.of("rank_age_seconds") == {("1",): 1}
    assert told.of("rearrangements_total") == told.of("balancedness_min") == {}


def test_before_ranks_are_there_nothing_is_told(page: Callable[..., Page]) -> None:
    assert page().samples == []


def test_both_formats_of_prometheus_can_be_read(page: Callable[..., Page]) -> None:
    registry = page(rank_status(0), rank_status(1), told=ALL).registry
    # As Prometheus 3 asks for it; with another escaping the client makes underscores of colons.
    text = generate_openmetrics(registry, escaping="allow-utf-8").decode()
    families = list(parse_openmetrics(text))
    # A counter's family has no _total, and each only one type.
    assert len({family.name for family in families}) == len(METRICS)
    told = {sample.name for family in families for sample in family.samples}
    silent = {metric.name for metric in METRICS} - told
    assert silent == {"vllm:eplb_stalled_seconds"}


def test_names_are_as_prometheus_has_them() -> None:
    for metric in METRICS:
        assert metric.name.startswith("vllm:eplb_")
        assert metric.name.endswith("_total") == (metric.kind == "counter")
        assert metric.help.endswith(".")


@pytest.fixture(scope="module")
def script() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(REPOSITORY / "scripts"))
        yield importlib.import_module("metrics_document")


def test_the_document_is_made_from_the_definitions(script: ModuleType) -> None:
    page = (REPOSITORY / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert page == script.document(), "run .venv/bin/python scripts/metrics_document.py"
