# SPDX-License-Identifier: Apache-2.0
"""`vllm-eplb bench plan` and `bench schedule`: loads, rivals, and what is told of policies."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import Result
from typer.testing import CliRunner

from tests.builders.drawn_problems import drawn_problem
from vllm_eplb_plugin.bench.comparison.contestants import parse_contestant
from vllm_eplb_plugin.bench.comparison.served import Schedule, serve
from vllm_eplb_plugin.bench.comparison.windows import Cluster, windows_until_balanced
from vllm_eplb_plugin.bench.loads.recorded import another_domain, read_recordings
from vllm_eplb_plugin.bench.loads.synthetic import Drift, drifting_parts, synthetic_run
from vllm_eplb_plugin.bench.result import BenchError
from vllm_eplb_plugin.bench.rivals.biased import biased
from vllm_eplb_plugin.bench.rivals.swift import swift
from vllm_eplb_plugin.bench.shapes import Shape, parse_shape
from vllm_eplb_plugin.cli.main import main
from vllm_eplb_plugin.placement.maps import validate_placement
from vllm_eplb_plugin.planning.costs import balancedness_of_layers
from vllm_eplb_plugin.planning.problem import Integers, Limits, Problem
from vllm_eplb_plugin.planning.triggers import Rule

_NO_SHARES = ("nan", "95", "-1", "0", "1")
_OUT_OF_BOUNDS = (
    *(("--expert-mb", wrong) for wrong in ("inf", "1e300", "nan")),
    *(("--sigma", wrong) for wrong in ("inf", "1000", "nan")),
    *(("--tokens", wrong) for wrong in ("9" * 23, "7")),
    *(("--other-node-cost", wrong) for wrong in ("inf", "nan")),
    ("--min-gain", "nan"),
)
SHAPE = Shape("tiny", 2, 16, 8, ranks=4)
CLUSTER = Cluster(SHAPE, 10, Limits())


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["bench", *arguments])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three domains of two layers and 16 experts, whose hot experts are others."""
    counts = {name: np.full((2, 16), 100) for name in "abc"}
    for place, rows in enumerate(counts.values()):
        rows[:, place * 5 : place * 5 + 4] = 2000
    written = {"model": "hot", "counts": {name: rows.tolist() for name, rows in counts.items()}}
    (tmp_path / "hot.json").write_text(json.dumps(written))
    (tmp_path / "other.json").write_text("[]")
    return tmp_path


def test_a_seed_gives_one_load_and_a_stationary_one_differs_by_chance_only() -> None:
    one, again = (synthetic_run(Drift(1.0), 3, 32, 2, 7) for _ in range(2))
    assert (one.planned == again.planned).all()
    assert one.planned.sum(axis=2).tolist() == [[1_000_000] * 3] * 2
    difference = np.abs(one.planned[0] - one.served[0]) / np.sqrt(one.planned[0] + 1)
    assert 0 < difference.max() < 8
    assert np.abs(one.changed[0] - one.served[0]).max() > 10_000


def test_short_windows_drift_over_a_whole_one_as_much_as_the_whole_ones_do() -> None:
    parts = np.log(drifting_parts(Drift(0.5), 40, 64, 2, 8, 0) + 1)
    run = synthetic_run(Drift(0.5), 40, 64, 1, 0)
    whole = np.log(np.stack([run.first, run.planned[0]]) + 1)
    correlations = [
        np.mean([np.corrcoef(*pair)[0, 1] for pair in zip(one, two, strict=True)])
        for one, two in ((parts[0], parts[8]), (whole[0], whole[1]))
    ]
    assert abs(correlations[0] - correlations[1]) < 0.05


def test_all_pairs_of_domains_are_planned_from_and_served(folder: Path) -> None:
    [recording] = read_recordings(folder)
    [run] = another_domain(recording, 2, 10_000, 0)
    hottest = [np.argmax(one.sum(axis=1)[:, None] * one, axis=2) // 5 for one in (run.planned,)]
    served = run.served.argmax(axis=2) // 5
    pairs = set(zip(hottest[0][:, 0].tolist(), served[:, 0].tolist(), strict=True))
    assert pairs == {(a, b) for a in range(3) for b in range(3) if a != b}


@pytest.mark.parametrize(
    "counts", [{}, [1], {"a": [[1, 2]], "b": [[1, 2, 3]]}, {"a": [[0, 0]]}, {"a": ["x"]}]
)
def test_a_recording_of_another_form_is_refused(counts: object, tmp_path: Path) -> None:
    (tmp_path / "one.json").write_text(json.dumps({"counts": counts}))
    with pytest.raises(BenchError, match="all of one shape"):
        read_recordings(tmp_path)


@pytest.mark.parametrize("rival", [swift, biased])
def test_a_rival_plans_what_can_be_served(rival: Callable[[Problem], Integers]) -> None:
    planned = 0
    for seed in range(200):
        problem = drawn_problem(seed)
        if problem.num_experts < 4 or problem.num_experts % problem.num_ranks:
            continue
        plan = rival(problem)
        shape = (problem.num_layers, problem.num_slots)
        validate_placement(torch.from_numpy(plan), shape, problem.num_experts)
        planned += 1
    assert planned > 20


def test_swift_leaves_balanced_layers_alone_and_is_never_worse() -> None:
    load = np.array([[100.0, 100, 100, 101], [300.0, 100, 100, 100]])
    old = np.array([[0, 1, 2, 3, 0, 1], [0, 1, 2, 3, 3, 2]])
    problem = Problem(load[:1], np.array([[0, 1, 2, 3]]), 2)
    assert (swift(problem) == problem.old).all()
    problem = Problem(load, old, 2)
    before, after = (balancedness_of_layers(problem, one) for one in (old, swift(problem)))
    assert (after >= before).all()
    assert after[1] > before[1]


def test_biased_replication_has_the_hottest_experts_on_every_rank() -> None:
    load = np.arange(8.0)[None]
    plan = biased(Problem(load, np.arange(12)[None] % 8, 2))
    assert all({7, 6} <= set(rank) for rank in plan.reshape(2, 6).tolist())


def test_a_domain_that_changed_is_served_well_after_one_window() -> None:
    run = synthetic_run(Drift(1.0, 1.2), 2, 16, 3, 0)
    start = CLUSTER.start(run.first)
    both = [parse_contestant(name) for name in ("incremental", "none")]
    waits = [windows_until_balanced(CLUSTER, one, start, run.changed) for one in both]
    assert waits == [1, None]


def test_a_trigger_plans_at_once_and_from_what_came_since(folder: Path) -> None:
    [recording] = read_recordings(folder)
    one, two = (recording.domains[name] * 100 for name in "ab")
    windows = np.stack([one] * 3 + [two] * 6)
    default = parse_contestant("default")
    waits = []
    for rule in (Rule(), Rule(changed=0.2)):
        served = serve(CLUSTER, default, Schedule(8, 8, rule), windows, one)
        waits.append(served.until_balanced([3]))
        assert served.planned.tolist() == [0, 0, 0, 2 if rule.changed else 0, *[0] * 3,
                                           0 if rule.changed else 1, 0]  # fmt: skip
    assert waits == [[5], [1]]


def test_policies_are_told_of_by_table_json_and_plot(tmp_path: Path) -> None:
    files = {"--json": tmp_path / "plan.json", "--plot": tmp_path / "plan.svg"}
    options = [str(part) for pair in files.items() for part in pair]
    policies = ("none", "default", "swift", "biased", "incremental,target=0.9")
    chosen = [part for policy in policies for part in ("--policy", policy)]
    shape = ("--shape", "3x16+8/1x1x4", "--rounds", "0", "--seeds", "2", "--expert-mb", "2")
    done = run("plan", *shape, *chosen, "--load", "slow", "--load", "switch", *options)
    assert done.exit_code == 0, done.output
    assert "incremental,target=0.9" in done.output
    rows = json.loads(files["--json"].read_text())["policies"]
    assert [(row["load"], row["policy"]) for row in rows] == [
        (load, policy) for load in ("slow", "switch") for policy in policies
    ]
    for row in rows:
        assert 0 < row["next"] <= 1 and row["next"] == pytest.approx(np.mean(row["next_by_seed"]))
        assert row["bytes_received"] == row["received"] * 2e6
        assert row["busiest"] <= row["received"]
    still, default, *_ = rows
    assert still["received"] == 0 < default["received"]
    assert still["now"] < default["now"]
    assert "</svg>" in files["--plot"].read_text()


def test_what_was_asked_is_kept_in_json_with_what_holds_without(tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    small = ("--rounds", "0", "--seeds", "1", "--windows", "1", "--json", str(file))
    done = run("plan", *small, "--shape", "2x16+4/1x1x4")
    assert done.exit_code == 0, done.output
    asked = json.loads(file.read_text())["asked"]
    assert (asked["shape"], asked["load"]) == (["2x16+4/1x1x4"], ["slow", "medium"])
    assert asked["policy"] == [
        "none", "default", "default+keep_in_place", "replicas_only", "incremental", "swift",
        "biased",
    ]  # fmt: skip
    assert (asked["sigma"], asked["windows"], asked["expert_mb"]) == (0.6, 1, 44.0)
    assert not {"json", "plot", "loads_from"} & set(asked)


def test_a_shape_given_as_text_is_told_once_and_a_model_by_name_and_sizes() -> None:
    told = [str(parse_shape(text)) for text in ("12x64+16/1x1x8", "12x64+16", "kimi-k2")]
    assert told == ["12x64+16/1x1x8", "12x64+16", "Kimi-K2 60 x 384+64"]
    small = ("--rounds", "0", "--seeds", "1", "--windows", "1", "--policy", "none")
    done = run("plan", *small, "--shape", "2x16+4/1x1x4", "--load", "slow")
    tables = [one for one in done.output.splitlines() if not one.startswith(("before", "warning"))]
    assert tables[0].strip() == "2x16+4/1x1x4, 4 ranks, slow"


_FOREIGN = """import numpy as np

def _look_up(problem):
    return {}["oops"]

class Fails:
    def __call__(self, problem, placement=None):
        return _look_up(problem)

class FailsInNumpy:
    def __call__(self, problem):
        return np.stack([problem.old, problem.old[:, 1:]])[0]

class AnswersTooFew:
    def __call__(self, problem):
        return problem.old[:, 1:]

class AnswersNothing:
    def __call__(self, problem):
        return None
"""


@pytest.mark.parametrize("command", ["plan", "schedule"])
@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ("foreign_policies:Fails", "KeyError: 'oops' (foreign_policies.py:4)"),
        ("default+foreign_policies:Fails", "KeyError: 'oops' (foreign_policies.py:4)"),
        ("foreign_policies:FailsInNumpy", "ValueError: all input arrays"),
        ("foreign_policies:FailsInNumpy", "(foreign_policies.py:12)"),
        ("foreign_policies:AnswersTooFew", "Error: "),
        ("foreign_policies:AnswersNothing", "Error: "),
    ],
)
def test_a_policy_that_fails_is_told_of_in_a_line(
    command: str, policy: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "foreign_policies.py").write_text(_FOREIGN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "foreign_policies", raising=False)
    small = ("--shape", "2x16+4/1x1x4", "--seeds", "1", "--windows", "1", "--load", "slow")
    timed = ("--rounds", "0") if command == "plan" else ("--every", "2")
    done = run(command, *small, *timed, "--policy", policy)
    assert done.exit_code == 2, done.exception
    [line] = [line for line in done.stderr.splitlines() if line]
    assert line.startswith(f"error: the policy {policy!r} failed on 2x16+4/1x1x4, slow: ")
    assert message in line


def test_recorded_domains_are_compared(folder: Path) -> None:
    options = ("--loads-from", str(folder), "--shape", "9x16+8/1x1x4", "--seeds", "1")
    loads = [part for load in ("own", "another", "mix") for part in ("--load", load)]
    done = run("plan", *options, *loads, "--rounds", "0", "--policy", "incremental")
    assert done.exit_code == 0, done.output
    assert "hot 2 x 16+8, 4 ranks, another" in done.output
    file = folder / "schedule.out"
    options += ("--load", "domains", "--every", "8/4", "--changed", "0.2", "--json", str(file))
    done = run("schedule", *options)
    assert done.exit_code == 0, done.output
    rows = json.loads(file.read_text())["schedules"]
    assert [row["policy"] for row in rows] == ["default", "incremental"]
    assert all((row["changes"], row["never"], row["slowest"]) == (2, 0, 1) for row in rows)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("plan", "--load", "fast"), "there is no load 'fast': there are stationary, slow"),
        (("plan", "--load", "own"), "name their folder, by --loads-from or VLLM_EPLB_LOADS"),
        (("plan", "--load", "own", "--loads-from", "/nowhere"), "there is no folder /nowhere"),
        (("plan", "--policy", "incrementel"), "the nearest is 'incremental'"),
        (("plan", "--policy", "incremental,target=high"), "no PARAMETER=VALUE"),
        (("plan", "--policy", "swift,target=1"), "swift has no parameters"),
        (("schedule", "--every", "0"), "'0' is neither WINDOWS nor WINDOWS/RECORDED"),
        (("schedule", "--load", "own"), "there is no load 'own': there are stationary"),
        *((("schedule", "--below", wrong), "above 0 and below 1") for wrong in _NO_SHARES),
        *((("schedule", "--changed", wrong), "above 0 and below 1") for wrong in _NO_SHARES),
        *((("plan", *option), f"Invalid value for '{option[0]}'") for option in _OUT_OF_BOUNDS),
        *(
            (("schedule", *option), f"Invalid value for '{option[0]}'")
            for option in _OUT_OF_BOUNDS[3:]
        ),
        (("plan", "--shape", "4x16+4"), "such as 48x128+16/1x1x8"),
        (("schedule", "--shape", "4x16+4/1x1x1"), "'4x16+4/1x1x1' is of 1 rank"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_a_line(
    arguments: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VLLM_EPLB_LOADS", raising=False)
    done = run(*arguments)
    assert done.exit_code == 2
    # An option's bounds are told in a box, as wide as the terminal.
    assert message in " ".join(done.output.replace("│", " ").split())
