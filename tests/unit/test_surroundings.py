# SPDX-License-Identifier: Apache-2.0
"""What a doctor's report, as an issue has it, says of the machine."""

import importlib.metadata
import json
import platform

import pytest
from typer.testing import CliRunner

from vllm_eplb_plugin.cli.main import main
from vllm_eplb_plugin.cli.surroundings import look_around


def test_versions_and_variables_are_those_that_are_there() -> None:
    found = look_around({"VLLM_PLUGINS": "eplb", "EPLB_PLUGIN": "", "PATH": "/bin"})
    assert found.python == platform.python_version()
    assert platform.system() in found.system
    assert found.variables == {"VLLM_PLUGINS": "eplb", "EPLB_PLUGIN": ""}
    for name, version in found.packages.items():
        assert importlib.metadata.version(name) == version


@pytest.mark.parametrize("name", ["VLLM_API_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY"])
def test_no_key_is_in_it(name: str) -> None:
    assert "abc" not in str(look_around({name: "abc"}))


def test_the_doctor_has_them_in_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPLB_PLUGIN", "{}")
    monkeypatch.setattr("vllm_eplb_plugin.cli.doctor.installed_distribution", lambda: None)
    done = CliRunner().invoke(main, ["doctor", "--json"])
    surroundings = json.loads(done.stdout)["surroundings"]
    assert surroundings["python"] == platform.python_version()
    assert surroundings["variables"]["EPLB_PLUGIN"] == "{}"
    assert set(surroundings) == {"python", "system", "packages", "variables"}
