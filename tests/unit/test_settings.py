# SPDX-License-Identifier: Apache-2.0
"""Where settings come from, and what a wrong one says."""

from pathlib import Path
from typing import Any, get_args

import pytest

from vllm_eplb_plugin.settings import (
    Fault,
    Scope,
    Settings,
    SettingsError,
    adopt_settings,
    common_settings,
    load_settings,
    process_settings,
    with_settings_of_environment,
)


@pytest.fixture(autouse=True)
def _no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EPLB_PLUGIN", raising=False)


def test_without_any_setting_the_plugin_is_on_and_loopback_off() -> None:
    settings = load_settings({"another_plugin": 1})
    assert settings == Settings()
    assert settings.enabled
    assert not settings.loopback


def test_additional_config_wins_over_the_variable_as_a_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EPLB_PLUGIN", '{"enabled": false, "check_weights": true}')
    assert load_settings() == Settings(enabled=False, check_weights=True)
    settings = load_settings({"eplb_plugin": {"events_dir": "runs/events"}})
    assert settings == Settings(events_dir=Path("runs/events"))


def test_an_unknown_setting_names_the_nearest_and_its_source() -> None:
    with pytest.raises(
        SettingsError, match="--additional-config.*'check_weigths'.*'check_weights'"
    ):
        load_settings({"eplb_plugin": {"check_weigths": True}})


@pytest.mark.parametrize("value", [1, "yes", None])
def test_a_wrong_type_names_the_setting_and_the_value(value: object) -> None:
    with pytest.raises(SettingsError, match=f"'loopback' has the value {value!r}"):
        load_settings({"eplb_plugin": {"loopback": value}})


@pytest.mark.parametrize("value", [-1, "0.5", True, float("inf"), float("nan")])
def test_a_switch_interval_that_is_no_time_is_refused(value: object) -> None:
    with pytest.raises(SettingsError, match=f"'switch_interval_ms' has the value {value!r}"):
        load_settings({"eplb_plugin": {"switch_interval_ms": value}})


@pytest.mark.parametrize("value", [-1, "100", True, float("inf"), float("nan"), None])
def test_a_delay_that_is_no_time_is_refused(value: object) -> None:
    with pytest.raises(SettingsError, match=f"'transfer_delay_ms' has the value {value!r}"):
        load_settings({"eplb_plugin": {"loopback": True, "transfer_delay_ms": value}})


@pytest.mark.parametrize("value", [0, -1, "100", True, float("inf"), float("nan"), None])
def test_a_time_limit_that_lets_no_rank_come_is_refused(value: object) -> None:
    with pytest.raises(SettingsError, match=f"'rank_timeout_s' has the value {value!r}"):
        load_settings({"eplb_plugin": {"rank_timeout_s": value}})


@pytest.mark.parametrize("name", ["events_dir", "step_times_dir"])
def test_a_folder_without_a_name_is_refused(name: str) -> None:
    with pytest.raises(SettingsError, match=f"'{name}' has the value '': is no folder"):
        load_settings({"eplb_plugin": {name: ""}})
    assert load_settings({"eplb_plugin": {name: None}}) == Settings()


def test_each_setting_says_whether_ranks_have_to_have_the_same() -> None:
    for name, field in Settings.model_fields.items():
        scopes = [one for one in field.metadata if isinstance(one, Scope)]
        assert len(scopes) == 1, f"{name}: annotate it with COMMON or OF_ONE_PROCESS"
    assert common_settings(Settings(check_weights=True, events_dir=Path("events"))) == {
        "enabled": True,
        "loopback": False,
        "fault": None,
        "check_weights": True,
        "exact_combine": False,
        "fault_when": {"rank": 1, "rearrangement": 2, "seconds": 3600.0},
        "control": False,
        "planning": None,
        "transfer": "auto",
    }


@pytest.mark.parametrize(
    ("variable", "given", "handed_on"),
    [
        ("", {"x": 1}, {"x": 1}),
        ('{"check_weights": true}', {"x": 1}, {"x": 1, "eplb_plugin": {"check_weights": True}}),
        ('{"check_weights": true}', {"eplb_plugin": {}}, {"eplb_plugin": {}}),
        # Said by the variable, it cannot be overruled.
        (
            '{"enabled": false, "check_weights": true}',
            {"x": 1, "eplb_plugin": {"check_weights": True}},
            {"x": 1, "eplb_plugin": {"enabled": False}},
        ),
    ],
)
def test_workers_without_the_variable_read_the_same_settings(
    variable: str,
    given: dict[str, Any],
    handed_on: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EPLB_PLUGIN", variable)
    before = dict(given)
    assert with_settings_of_environment(given) == handed_on
    assert given == before


@pytest.mark.parametrize("key", ["eplb-plugin", "EPLB_PLUGIN", "eplbplugin", "eplb_plugins"])
def test_settings_under_a_misspelt_key_are_not_swallowed(key: str) -> None:
    with pytest.raises(SettingsError, match=f"unknown key '{key}', .* from 'eplb_plugin'"):
        load_settings({key: {"check_weights": True}, "another_plugin": {}})


def test_a_setting_given_twice_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPLB_PLUGIN", '{"enabled": false, "enabled": true}')
    with pytest.raises(SettingsError, match="EPLB_PLUGIN: the key 'enabled' stands twice"):
        load_settings()


@pytest.mark.parametrize("value", [0, 0.0, 2, 0.5, None])
def test_a_switch_interval_is_a_time_or_none(value: float | None) -> None:
    assert load_settings({"eplb_plugin": {"switch_interval_ms": value}}).switch_interval_ms == value


@pytest.mark.parametrize("value", ["on", [], 3, None])
def test_settings_that_are_no_object_are_refused(value: object) -> None:
    with pytest.raises(SettingsError, match="must be a JSON object"):
        load_settings({"eplb_plugin": value})


def test_a_variable_that_is_not_json_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPLB_PLUGIN", "enabled=false")
    with pytest.raises(SettingsError, match="EPLB_PLUGIN is not JSON"):
        load_settings()


@pytest.mark.parametrize("fault", get_args(Fault))
def test_a_fault_outside_loopback_is_refused(fault: str) -> None:
    with pytest.raises(SettingsError, match="needs loopback=true"):
        load_settings({"eplb_plugin": {"fault": fault}})
    assert load_settings({"eplb_plugin": {"fault": fault, "loopback": True}}).fault == fault


def test_a_process_remembers_the_settings_of_its_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vllm_eplb_plugin.settings._of_this_process", None)
    monkeypatch.setenv("EPLB_PLUGIN", '{"check_weights": true}')
    assert process_settings() == Settings(check_weights=True)
    adopted = adopt_settings({"eplb_plugin": {"compiled_policy": False}})
    assert process_settings() is adopted
    assert adopted == Settings(compiled_policy=False)


def test_a_recording_needs_a_folder_and_room_in_it() -> None:
    asked = load_settings({"eplb_plugin": {"recording": {"dir": "loads", "max_bytes": 2e9}}})
    assert asked.recording is not None
    assert (asked.recording.dir, asked.recording.max_bytes) == (Path("loads"), 2_000_000_000)
    with pytest.raises(SettingsError, match="'recording.dir' has the value ''.*is no folder"):
        load_settings({"eplb_plugin": {"recording": {"dir": ""}}})
    with pytest.raises(SettingsError, match="recording.max_bytes.*greater than or equal to 10000"):
        load_settings({"eplb_plugin": {"recording": {"dir": "loads", "max_bytes": 1000}}})
    with pytest.raises(SettingsError, match="'recording.size', the nearest"):
        load_settings({"eplb_plugin": {"recording": {"dir": "loads", "size": 1}}})


def test_elastic_ep_and_a_recording_do_not_go_together() -> None:
    from vllm_eplb_plugin.engine.refusals import refuse_with_elastic_ep

    refuse_with_elastic_ep(Settings())
    with pytest.raises(ValueError, match="leave out recording or elastic EP"):
        refuse_with_elastic_ep(Settings.model_validate({"recording": {"dir": "loads"}}))
