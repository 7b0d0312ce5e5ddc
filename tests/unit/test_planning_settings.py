# SPDX-License-Identifier: Apache-2.0
"""What can be said of planning, and what a wrong value says."""

import json
from pathlib import Path
from typing import Any, get_args

import pytest

from vllm_eplb_plugin.planning.problem import Limits
from vllm_eplb_plugin.planning_settings import (
    InitialOptions,
    LimitOptions,
    NamedOptions,
    PlanningOptions,
    SmoothingOptions,
    TriggerOptions,
)
from vllm_eplb_plugin.settings import Settings, SettingsError, common_settings, load_settings


def planning(value: object) -> PlanningOptions | None:
    return load_settings({"eplb_plugin": {"planning": value}}).planning


def objects_of(options: type[Any], place: str) -> dict[str, type[Any]]:
    """Every object of settings below a place, by its name in messages."""
    found = {place: options}
    for name, field in options.model_fields.items():
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and hasattr(kind, "model_fields") and name != "policy":
                found |= objects_of(kind, f"{place}.{name}")
    return found


OBJECTS = objects_of(PlanningOptions, "planning")


def inside(place: str, value: dict[str, Any]) -> dict[str, Any]:
    for key in reversed(place.split(".")):
        value = {key: value}
    return value


@pytest.mark.parametrize("policy", ["default", {"incremental": {"target": 0.98}}])
def test_what_is_written_out_is_read_again(policy: object) -> None:
    options = planning({"policy": policy, "steps": ["two_ranks"], "limits": {"max_bytes": 1e9}})
    assert options is not None
    assert PlanningOptions.model_validate_json(options.model_dump_json()) == options


def test_without_it_all_is_as_before() -> None:
    assert load_settings({}).planning is None
    assert planning({}) == PlanningOptions()
    assert PlanningOptions().policy == NamedOptions(name="default")


def test_a_policy_and_steps_are_a_name_or_a_name_with_parameters() -> None:
    told = planning(
        {"policy": {"incremental": {"target": 0.98}}, "steps": ["one", {"keep_in_place": {}}]}
    )
    assert told is not None
    assert told.policy == NamedOptions(name="incremental", parameters={"target": 0.98})
    assert [step.name for step in told.steps] == ["one", "keep_in_place"]


@pytest.mark.parametrize("place", OBJECTS)
def test_an_unknown_key_is_told_with_the_nearest_of_its_own_object(place: str) -> None:
    assert set(OBJECTS) >= {"planning.limits", "planning.smoothing", "planning.trigger"}
    for name in OBJECTS[place].model_fields:
        said = f"unknown setting '{place}.{name}s', the nearest is '{place}.{name}'"
        with pytest.raises(SettingsError, match=said):
            load_settings({"eplb_plugin": inside(place, {f"{name}s": 1})})


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("incremental", "'planning' has the value 'incremental'"),
        ({"policy": 3}, r"'planning.policy' has the value 3: is neither a name nor \{\"NAME\""),
        ({"policy": ""}, "'planning.policy.name' has the value ''"),
        ({"policy": {"a": {}, "b": {}}}, "'planning.policy' .* is neither a name"),
        ({"policy": {"incremental": 0.9}}, "'planning.policy' .* is neither a name"),
        ({"steps": "keep_in_place"}, "'planning.steps' has the value 'keep_in_place'"),
        ({"steps": ["keep_in_place", 1]}, "'planning.steps.1' has the value 1: is neither"),
        ({"limits": {"max_bytes": -1}}, "'planning.limits.max_bytes' has the value -1"),
        ({"limits": {"max_bytes": 1.5}}, "'planning.limits.max_bytes' has the value 1.5"),
        ({"limits": {"max_layers": True}}, "'planning.limits.max_layers' has the value True"),
        ({"limits": {"min_gain": 1}}, "'planning.limits.min_gain' has the value 1"),
        ({"limits": {"other_node_cost": 0.5}}, "'planning.limits.other_node_cost' has"),
        ({"expert_groups": "no"}, "'planning.expert_groups' has the value 'no'"),
        ({"smoothing": {"weight": 1}}, "'planning.smoothing.weight' has the value 1"),
        ({"smoothing": {"max_tokens": 0}}, "'planning.smoothing.max_tokens' has the value 0"),
        ({"trigger": {}}, r"'planning.trigger' has the value \{\}: needs below or changed"),
        ({"trigger": {"below": 1.2}}, "'planning.trigger.below' has the value 1.2"),
        ({"trigger": {"below": 0.9, "min_steps": 0}}, "'planning.trigger.min_steps' has"),
    ],
)
def test_a_wrong_value_is_told_by_its_place(value: object, said: str) -> None:
    with pytest.raises(SettingsError, match=f"--additional-config eplb_plugin: setting {said}"):
        planning(value)


def test_every_wrong_key_and_value_is_told_at_once() -> None:
    with pytest.raises(SettingsError, match="'planning.limits.max_byte'.*'planning.polcy'"):
        planning({"polcy": "default", "limits": {"max_byte": 1}})


def test_limits_that_are_told_are_limits_of_a_problem() -> None:
    assert list(LimitOptions.model_fields) == list(Limits.__dataclass_fields__)
    assert Limits(**LimitOptions().model_dump()) == Limits()


def test_ranks_compare_it_as_json() -> None:
    told = Settings(planning=PlanningOptions(smoothing=SmoothingOptions()))
    assert json.loads(json.dumps(common_settings(told)))["planning"]["smoothing"]["weight"] == 0.5
    assert TriggerOptions(below=0.9) != TriggerOptions(below=0.8)


def test_the_page_on_planning_has_every_key_with_its_default() -> None:
    page = (Path(__file__).parents[2] / "docs" / "planning.md").read_text()
    for options in OBJECTS.values():
        for name, field in options.model_fields.items():
            default = field.get_default(call_default_factory=True)
            plain = isinstance(default, (bool, int, float))
            told = f"`{json.dumps(default).removesuffix('.0')}`" if plain else ""
            assert f"| `{name}` | {told}" in page, f"{name}: {told}"


def test_a_key_of_planning_outside_of_it_is_told_where_it_belongs() -> None:
    for key in ("policy", "trigger"):
        with pytest.raises(SettingsError, match=f"'{key}': it belongs into 'planning'"):
            load_settings({"eplb_plugin": {key: "incremental"}})


def test_where_experts_begin_is_a_path_or_a_path_with_more_to_say() -> None:
    told = planning({"initial": "recordings", "rearrange": "never"})
    assert told is not None and told.initial == InitialOptions(path="recordings")
    assert planning({"initial": {"path": "recordings"}}) == planning({"initial": "recordings"})


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"initial": ""}, "'planning.initial.path' has the value ''"),
        ({"initial": {"windows": 3}}, "'planning.initial.path' .*required"),
        ({"initial": {"path": "a", "windows": 0}}, "'planning.initial.windows' has the value 0"),
        ({"initial": "a", "rearrange": "once"}, "'planning.rearrange' has the value 'once'"),
        ({"rearrange": "never"}, "rearrange='never' needs initial"),
        (
            {"initial": "a", "rearrange": "never", "trigger": {"below": 0.9}},
            "rearrange='never' leaves nothing to trigger",
        ),
        (
            {"initial": "a", "rearrange": "never", "smoothing": {}},
            "rearrange='never' leaves nothing to smoothing",
        ),
    ],
)
def test_what_cannot_begin_or_would_never_move_is_refused(value: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        planning(value)


def test_bytes_may_be_written_as_a_whole_number_of_any_form() -> None:
    told = planning({"limits": {"max_bytes": 1e9}})
    assert told is not None and told.limits.max_bytes == 10**9
    assert planning({"limits": None}) == PlanningOptions()
    for wrong in (1.5, "1", True, 2**63):
        with pytest.raises(SettingsError, match="'planning.limits.max_bytes'"):
            planning({"limits": {"max_bytes": wrong}})


@pytest.mark.parametrize(
    ("fault", "options"),
    [
        ("invalid_placement", {"policy": "incremental"}),
        ("no_rearrangement", {"trigger": {"below": 0.9}}),
    ],
)
def test_a_fault_that_planning_would_not_notice_is_refused(
    fault: str, options: dict[str, Any]
) -> None:
    settings = {"loopback": True, "fault": fault}
    with pytest.raises(SettingsError, match=f"fault='{fault}'"):
        load_settings({"eplb_plugin": settings | {"planning": options}})
    assert load_settings({"eplb_plugin": settings | {"planning": {}}}).fault == fault
