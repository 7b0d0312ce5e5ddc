# SPDX-License-Identifier: Apache-2.0
"""The command line of a server."""

import json
from pathlib import Path
from typing import Any

import pytest

from eval.config.schema import Config
from eval.errors import ServerError
from eval.serving.command import find_executable, server_command
from tests.builders.harness import small_config


def command(arm: int, **changes: Any) -> list[str]:
    config = Config.model_validate(small_config(**changes))
    return server_command(config, config.arms[arm], "vllm", 8123, Path("/events"))


def test_the_server_listens_on_the_loopback_interface_only() -> None:
    assert command(0)[:7] == [
        "vllm", "serve", "someone/some-moe", "--host", "127.0.0.1", "--port", "8123",
    ]  # fmt: skip


def test_options_become_flags_and_values() -> None:
    options = {
        "data-parallel-size": 2,
        "enforce-eager": True,
        "enable-prefix-caching": False,
        "dtype": "float32",
        "seed": None,
        "middleware": ["one", "two"],
        "hf-overrides": {"a": [1]},
    }
    assert command(0, serve={"options": options})[7:-2] == [
        "--data-parallel-size", "2", "--enforce-eager", "--no-enable-prefix-caching",
        "--dtype", "float32", "--middleware", "one", "two", "--hf-overrides", '{"a": [1]}',
    ]  # fmt: skip


def test_the_plugin_gets_its_settings_and_the_events_folder() -> None:
    arguments = command(0)

    settings = json.loads(arguments[arguments.index("--additional-config") + 1])
    assert settings == {"eplb_plugin": {"check_weights": True, "events_dir": "/events"}}
    assert "--additional-config" not in command(0, plugin=None)


def test_an_arm_s_settings_of_the_plugin_win_over_the_run_s() -> None:
    arms = [{"name": "off"}, {"name": "stock", "plugin": {"check_weights": False}}]
    plugin = {"check_weights": True, "loopback": True}
    arguments = command(1, plugin=plugin, arms=arms)
    settings = json.loads(arguments[arguments.index("--additional-config") + 1])
    assert settings["eplb_plugin"] == {
        "check_weights": False,
        "loopback": True,
        "events_dir": "/events",
    }
    assert "--additional-config" not in command(1, plugin=None, arms=arms)


def test_eplb_is_enabled_where_the_arm_says_so() -> None:
    assert "--enable-eplb" not in command(0)
    arguments = command(1)
    assert "--enable-eplb" in arguments
    assert json.loads(arguments[arguments.index("--eplb-config") + 1]) == {
        "window_size": 10,
        "step_interval": 10,
        "num_redundant_experts": 4,
        "use_async": False,
    }


def executable(folder: Path) -> Path:
    folder.mkdir()
    file = folder / "vllm"
    file.write_text("#!/bin/sh\n")
    file.chmod(0o755)
    return file


def test_the_vllm_beside_python_wins_over_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside, on_path = executable(tmp_path / "environment"), executable(tmp_path / "path")
    monkeypatch.setenv("PATH", str(on_path.parent))

    assert find_executable(None, str(beside.with_name("python"))) == str(beside)
    assert find_executable(None, str(tmp_path / "python")) == str(on_path)
    assert find_executable(str(on_path), str(beside.with_name("python"))) == str(on_path)


def test_a_missing_vllm_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(ServerError, match="pip install"):
        find_executable(None, str(tmp_path / "python"))
    with pytest.raises(ServerError, match="serve.executable 'other' is not"):
        find_executable("other")
