# SPDX-License-Identifier: Apache-2.0
"""What configurations are accepted, and what is said of the others."""

import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from eval.config.loading import ALL_ARMS, DEFAULT_ARMS, load_config, load_gate
from eval.config.schema import Config
from eval.errors import ConfigError
from eval.judging.planning import planned_by
from tests.builders.harness import REPOSITORY, gsm8k_task, small_config


def load(
    folder: Path,
    *overrides: str,
    only: tuple[str, ...] = (),
    wanted: str = DEFAULT_ARMS,
    **changes: Any,
) -> Config:
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(small_config(**changes)), encoding="utf-8")
    return load_config(file, overrides, only, arms=wanted)


@pytest.mark.parametrize(
    "file", sorted((REPOSITORY / "eval/config/presets").glob("*.yaml")), ids=lambda file: file.name
)
def test_the_configurations_of_the_repository_are_valid(file: Path) -> None:
    assert load_config(file).arms[0].name == "off"


def test_an_unquoted_off_is_the_name_of_an_arm(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(
        "name: one\nmodel: some/model\ntasks: [{name: gsm8k}]\narms:\n  - {name: off}\n",
        encoding="utf-8",
    )

    assert load_config(file).arms[0].name == "off"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"taks": []}, "taks: unknown key, the nearest is 'tasks'"),
        ({"serve": {"prot": 80}}, "serve.prot: unknown key, the nearest is 'port'"),
        (
            {"arms": [{"name": "off"}, {"name": "sync", "eplb": {"window": 10}}]},
            "arms.1.eplb.window: unknown key, the nearest is 'window_size'",
        ),
        (
            {"tasks": [gsm8k_task(questions="96")]},
            "tasks.0.questions: Input should be a valid integer",
        ),
        ({"tasks": [gsm8k_task(questions="96")]}, "not '96'"),
        ({"tasks": [gsm8k_task(questions=0)]}, "tasks.0.questions: Input should be greater than 0"),
        ({"tasks": [gsm8k_task(scred=False)]}, "tasks.0.scred: unknown key, the nearest is 'scor"),
        ({"tasks": [gsm8k_task(name="gsm9k")]}, "tasks.0.name: Input should be 'gsm8k' or 'gsm_"),
        ({"tasks": [gsm8k_task(), gsm8k_task()]}, "two tasks are named 'gsm8k'"),
        ({"tasks": []}, "tasks: List should have at least 1 item"),
        ({"serve": {"environment": {"A": 1}}}, "serve.environment.A: Input should be a valid str"),
        ({"serve": {"port": 70000}}, "serve.port"),
        ({"name": "../up"}, "name: String should match pattern"),
        ({"serve": {"options": {"enable_eplb": True}}}, "'enable_eplb' is set by the harness"),
        ({"gate": {"rearangements": 5}}, "gate.rearangements: unknown key, the nearest is 'rearr"),
        ({"gate": {"different_answers": 2}}, "different_answers 2 belongs to identical"),
        ({"gate": {"exact": True}}, "exact allows no other token, so no other answer"),
        (
            {"gate": {"exact": True, "identical": True, "different_answers": 1}},
            "set identical to true and leave different_answers out",
        ),
        (
            {"gate": {"exact": True, "identical": True}},
            "compares tokens, which task gsm8k does not ask for: set its logprobs to true",
        ),
        ({"gate": {"alpha": 0.5}}, "gate.alpha: Input should be less than 0.5"),
        ({"gate": {"margin_points": 0}}, "gate.margin_points: Input should be greater than 0"),
        ({"plugin": {"events_dir": "here"}}, "'events_dir' is set by the harness"),
        ({"arms": [{"name": "sync"}]}, "the first arm must be named 'off'"),
        ({"arms": [{"name": "off", "eplb": {}}]}, "the first arm must be named 'off'"),
        ({"arms": [{"name": "off"}, {"name": "off"}]}, "two arms are named 'off'"),
        ({"arms": []}, "arms: List should have at least 1 item"),
        ({"serve": {"options": {}}}, "data-parallel-size 1 x tensor-parallel-size 1"),
        ({"serve": {"options": {"data-parallel-size": "two"}}}, "must be a whole number"),
        ({"name": "n" * 300}, "name: String should have at most 100 characters"),
        ({"model": ""}, "model: must be a folder or a name on the Hub, not ''"),
        ({"model": "--trust-remote-code"}, "model: must be a folder or a name on the Hub"),
        ({"gate": {"margin_points": math.inf}}, "gate.margin_points must be a finite number"),
        ({"plugin": {"transfer_delay_ms": math.nan}}, "plugin.transfer_delay_ms must be a fini"),
        ({"reference": {"transformers_prompts": 16}}, "reference: is called oracle, with prompts"),
        ({"gate": {"reference_accuracy": True}}, "gate.reference_accuracy: is called recorded_acc"),
        ({"serve": {"environment": {"A=B": "1"}}}, "'A=B' is no name of an environment variable"),
        ({"arms": [{"name": "off"}, {"name": "control-x"}]}, "control- begins the names of arms"),
    ],
)
def test_a_wrong_configuration_is_named(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as error:
        load(tmp_path, **changes)

    assert message in str(error.value)


def test_settings_of_the_plugin_in_the_server_s_environment_are_for_a_run_that_passes_none(
    tmp_path: Path,
) -> None:
    serve = {**small_config()["serve"], "environment": {"EPLB_PLUGIN": '{"enabled": false}'}}
    with pytest.raises(ConfigError, match="serve.environment.EPLB_PLUGIN would be overruled"):
        load(tmp_path, serve=serve)

    assert load(tmp_path, serve=serve, plugin=None).plugin is None
    arms = [{"name": "off"}, {"name": "other", "environment": {"EPLB_PLUGIN": "{}"}}]
    with pytest.raises(ConfigError, match="other.environment.EPLB_PLUGIN would be overruled"):
        load(tmp_path, arms=arms)


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("name: one\narms: [{name: 'off'}]\n", encoding="utf-8")

    with pytest.raises(ConfigError, match="model: is required"):
        load_config(file)


@pytest.mark.parametrize("options", [{"data_parallel_size": 2}, {"tensor-parallel-size": 2}])
def test_two_ranks_of_either_kind_are_enough(tmp_path: Path, options: dict[str, int]) -> None:
    load(tmp_path, serve={"options": options})


def test_one_rank_is_enough_without_eplb(tmp_path: Path) -> None:
    load(tmp_path, serve={}, arms=[{"name": "off"}])


def test_overrides_reach_into_mappings_and_lists(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        "tasks.gsm8k.questions=3",
        "arms.sync.eplb.window_size=77",
        "arms.2.eplb.step_interval=88",
        "plugin.fault=weights_not_moved",
        "oracle.prompts=4",
        "serve.port=null",
    )

    assert config.tasks[0].questions == 3
    assert config.arms[1].eplb is not None and config.arms[1].eplb.window_size == 77
    assert config.arms[2].eplb is not None and config.arms[2].eplb.step_interval == 88
    assert config.plugin == {"check_weights": True, "fault": "weights_not_moved"}
    assert config.oracle.prompts == 4


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("tasks.gsm8k.questions", "write key.path=value"),
        ("arms.third.eplb.window_size=1", "no item 'third', there are"),
        ("name.first=1", "nothing can be set below 'small'"),
        ("tasks.gsm8k.questions=[", "is not YAML"),
    ],
)
def test_a_wrong_override_is_named(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, override)


def test_an_unknown_arm_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--only third: no such arm, there are off, sync, async"):
        load(tmp_path, only=("third",))


def named_arms(config: Config) -> list[str]:
    return [arm.name for arm in config.arms]


def test_an_arm_that_is_not_asked_by_default_is_asked_with_all_or_by_its_name(
    tmp_path: Path,
) -> None:
    arms = [*small_config()["arms"], {"name": "more", "default": False}]

    assert named_arms(load(tmp_path, arms=arms)) == ["off", "sync", "async"]
    assert named_arms(load(tmp_path, only=("more",), arms=arms)) == ["off", "more"]
    asked = load(tmp_path, wanted=ALL_ARMS, arms=arms)
    assert named_arms(asked) == ["off", "sync", "async", "more"]
    # What is kept of a run is asked again whole.
    assert load(tmp_path, **asked.model_dump()).sha256() == asked.sha256()


@pytest.mark.parametrize(
    ("only", "wanted", "message"),
    [
        ((), "some", "--arms some: is default or all"),
        (("sync",), ALL_ARMS, "--arms all and --only sync exclude each other"),
    ],
)
def test_a_wrong_choice_of_arms_is_named(
    tmp_path: Path, only: tuple[str, ...], wanted: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, only=only, wanted=wanted)


def test_on_a_cpu_all_arms_have_both_policies_and_vllm_without_the_plugin() -> None:
    file = REPOSITORY / "eval/config/presets/cpu.yaml"
    of_vllm = ["off", "sync", "async"]

    assert named_arms(load_config(file)) == of_vllm
    config = load_config(file, arms=ALL_ARMS)
    others = ["sync-incremental", "async-incremental", "stock-async"]
    assert named_arms(config) == [*of_vllm, *others]
    policies = [planned_by(config.plugin_settings(arm)) for arm in config.arms]
    assert policies == [None, None, None, "incremental", "incremental", None]
    assert [arm.eplb for arm in config.arms[1:3]] == [arm.eplb for arm in config.arms[3:5]]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read .*nowhere.yaml"):
        load_config(tmp_path / "nowhere.yaml")


def test_the_digest_changes_with_every_value(tmp_path: Path) -> None:
    before = load(tmp_path).sha256()

    assert load(tmp_path).sha256() == before
    assert load(tmp_path, "serve.start_timeout=601").sha256() != before
    assert load(tmp_path, only=("sync",)).sha256() != before


def test_a_gate_may_stand_in_a_file_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "gates").mkdir()
    (tmp_path / "gates" / "strict.yaml").write_text("{margin_points: 1, rearrangements: 9}")

    config = load(tmp_path, "gate.rearrangements=10", gate="gates/strict.yaml")
    assert (config.gate.margin_points, config.gate.rearrangements) == (1, 10)


def test_another_gate_takes_the_place_of_the_configuration_s(tmp_path: Path) -> None:
    file = tmp_path / "gate.yaml"
    file.write_text("{alpha: 0.02}")
    load(tmp_path)

    gate = load_config(tmp_path / "config.yaml", gate=file).gate
    assert (gate.alpha, gate.identical) == (0.02, False)


def test_a_missing_or_wrong_gate_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read .*nowhere.yaml"):
        load(tmp_path, gate="nowhere.yaml")
    (tmp_path / "gate.yaml").write_text("{margin_point: 1}")
    with pytest.raises(ConfigError, match="margin_point: unknown key, the nearest is 'margin_poi"):
        load_gate(tmp_path / "gate.yaml")


@pytest.mark.parametrize(
    "file", sorted((REPOSITORY / "ci" / "gates").glob("*.yaml")), ids=lambda file: file.name
)
def test_the_gates_of_the_repository_are_valid(file: Path) -> None:
    load_gate(file)
