# SPDX-License-Identifier: Apache-2.0
"""Commands about recordings, without the packages that vLLM brings."""

import importlib.util
from pathlib import Path

import pytest
import tomllib
from packaging.requirements import Requirement
from typer.testing import CliRunner

from vllm_eplb_plugin.cli import offline_packages
from vllm_eplb_plugin.cli.main import main


@pytest.mark.parametrize("command", ["recording", "convert", "simulate", "advise"])
def test_what_is_missing_is_named_with_the_extra_that_has_it(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found(name: str) -> object:
        return None if name in ("numpy", "torch") else importlib.util.find_spec(name)

    monkeypatch.setattr(offline_packages, "find_spec", found)
    more = {"convert": ["out", "--to", "sglang"], "advise": ["--link", "50e9"]}
    ended = CliRunner().invoke(main, [command, "loads", *more.get(command, [])])
    assert ended.exit_code == 2
    assert "numpy, torch cannot be imported" in ended.stderr
    assert "vllm-eplb-plugin[offline]" in ended.stderr


def test_the_extra_has_what_is_looked_for() -> None:
    file = Path(__file__).parents[2] / "pyproject.toml"
    extras = tomllib.loads(file.read_text())["project"]["optional-dependencies"]
    named = [Requirement(one).name for one in extras["offline"]]
    assert named == list(offline_packages.PACKAGES)
