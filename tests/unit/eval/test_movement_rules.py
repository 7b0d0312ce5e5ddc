# SPDX-License-Identifier: Apache-2.0
"""What an arm with a policy of its own has to show: whose plans, how many moves, and how few."""

from typing import Any

import pytest

from eval.activity.moves import Moves
from eval.judging.planning import planned_by
from eval.judging.verdict import verdict
from tests.builders.arms import moves
from tests.builders.harness import small_config
from tests.builders.run_to_judge import Run, gate

ARM = "sync-incremental"
INCREMENTAL = {"planning": {"policy": {"incremental": {}}}}


def incremental(
    moved: dict[str, Any] | None = None,
    plugin: dict[str, Any] = INCREMENTAL,
    arms: tuple[str, ...] = ("off", "sync", "async"),
    **changes: Any,
) -> Run:
    """A run with one more arm, whose policy moves a tenth of what vLLM's does."""
    configured = [one for one in small_config()["arms"] if one["name"] in arms]
    eplb = {**small_config()["arms"][1]["eplb"], "step_interval": 5}
    added = {"name": ARM, "plugin": plugin, "eplb": eplb}
    run = Run(
        arms=[*configured, added],
        gate=gate(**{"share_of_bytes": 0.5, "experts_received": 8, **changes}),
    )
    little = {"policies": ["incremental"], "experts_received": [4, 0, 4, 0]}
    return move(run, ARM, **{**little, "bytes_received": [60, 40], **(moved or {})})


def move(run: Run, name: str, **moved: Any) -> Run:
    [model] = run.runs[name].models
    changed = model.model_copy(update={"moves": Moves(**moves(**moved))})
    return run.change(name, models=[changed])


def without_moves(run: Run, name: str) -> Run:
    [model] = run.runs[name].models
    return run.change(name, models=[model.model_copy(update={"moves": None})])


def test_a_policy_that_moves_little_passes_although_layers_stay() -> None:
    run = incremental().change(ARM, slots_changed=[4, 0, 4, 0])

    assert run.bad() == []
    rules = {rule.rule for rule in run.rules() if rule.arm == ARM}
    assert {"policy", "experts_received", "fewer_bytes"} < rules
    assert "slots_changed" not in rules
    assert run.only("fewer_bytes", ARM).saw == (
        "ranks received 100 bytes, those of arm sync 1000; in one rearrangement 17 and 167, a "
        "share of 0.100"
    )
    assert not {"policy", "experts_received"} & {
        rule.rule for rule in run.rules() if rule.arm == "sync"
    }


@pytest.mark.parametrize("layers", [[0, 0, 0, 0], [3, 0, 4, 0]])
def test_a_policy_that_moves_nothing_or_too_little_proves_nothing(layers: list[int]) -> None:
    run = incremental({"experts_received": layers})

    assert run.bad() == [("experts_received", ARM, "not tested")]
    saw = run.only("experts_received", ARM).saw
    assert saw.startswith(f"{sum(layers)} experts received by a rank that had none of it")


def test_a_policy_that_never_rearranged_proves_nothing() -> None:
    run = without_moves(incremental(), ARM).change(ARM, rearrangements=0, skipped=30)

    assert run.bad() == [
        ("rearrangements", ARM, "not tested"),
        ("policy", ARM, "not tested"),
        ("experts_received", ARM, "not tested"),
        ("fewer_bytes", ARM, "not tested"),
    ]


def test_where_fewer_layers_are_told_of_than_there_are_nothing_is_proved() -> None:
    run = incremental({"experts_received": [9, 9, 9]})

    assert run.bad() == [("experts_received", ARM, "not tested")]


def test_settings_that_a_server_ignores_fail_twice() -> None:
    run = incremental({"policies": ["vllm"], "bytes_received": [880, 90]})

    assert run.bad() == [("policy", ARM, "failed"), ("fewer_bytes", ARM, "failed")]
    assert verdict(run.rules()) == "failed"


@pytest.mark.parametrize(("received", "found"), [(500, "passed"), (501, "failed")])
def test_the_share_of_bytes_is_that_of_the_gate(received: int, found: str) -> None:
    assert incremental({"bytes_received": [received, 0]}).only("fewer_bytes", ARM).verdict == found


def test_as_many_bytes_in_all_are_not_fewer_however_many_rearrangements_they_took() -> None:
    often = {"bytes_received": [1000, 0], "rearrangements": 60}

    assert incremental(often).only("fewer_bytes", ARM).verdict == "failed"
    assert incremental(often | {"bytes_received": [999, 0]}).bad() == []


def test_bytes_are_compared_only_where_the_gate_asks_for_it() -> None:
    run = incremental({"bytes_received": [9999, 0]}, share_of_bytes=None)

    assert "fewer_bytes" not in {rule.rule for rule in run.rules()}


@pytest.mark.parametrize(
    "arms", [("off",), ("off", "async")], ids=["no arm with EPLB", "no arm of this mode"]
)
def test_without_an_arm_to_compare_with_nothing_is_proved(arms: tuple[str, ...]) -> None:
    run = incremental(arms=arms)

    assert run.bad() == [("fewer_bytes", ARM, "not tested")]


def test_an_arm_whose_other_settings_differ_is_not_compared_with() -> None:
    run = incremental(plugin={**INCREMENTAL, "compiled_policy": False})

    assert run.bad() == [("fewer_bytes", ARM, "not tested")]


def test_an_arm_of_another_run_is_not_compared_with() -> None:
    assert incremental().change("sync", run="another").only("fewer_bytes", ARM).verdict == (
        "not tested"
    )


def test_an_arm_that_does_not_tell_its_bytes_is_not_compared_with() -> None:
    rule = without_moves(incremental(), "sync").only("fewer_bytes", ARM)

    assert (rule.verdict, rule.saw) == ("not tested", "the events of arm sync tell of no bytes")


@pytest.mark.parametrize(
    ("planning", "policy"),
    [
        (None, None),
        ({}, None),
        ({"policy": "default"}, None),
        ({"policy": {"default": {}}}, None),
        ({"policy": "default", "steps": ["keep_in_place"]}, "default"),
        ({"limits": {"max_layers": 1}}, "default"),
        ({"policy": "incremental"}, "incremental"),
        ({"policy": {"my.module:policy": {"slack": 1}}}, "my.module:policy"),
    ],
)
def test_what_an_arm_plans_by_is_read_from_its_settings(planning: Any, policy: str | None) -> None:
    assert planned_by({"planning": planning}) == policy
