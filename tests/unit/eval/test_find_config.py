# SPDX-License-Identifier: Apache-2.0
"""CONFIG is a path or the name of a preset."""

from pathlib import Path

import pytest

from eval.config.find import PRESETS, find_config, preset_names
from eval.errors import ConfigError


def test_a_bare_word_is_a_preset_whatever_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gpus").mkdir()

    assert {"cpu", "deepseek-v2-lite", "gpus", "one-gpu"} < set(preset_names())
    assert find_config("gpus") == PRESETS / "gpus.yaml"
    assert find_config("./gpus") == Path("gpus")
    assert find_config("own.yaml") == Path("own.yaml")


def test_an_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="no preset 'gpu', the nearest is 'gpus'"):
        find_config("gpu")


def test_the_path_that_a_preset_had_leads_there_and_names_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert find_config("eval/configs/one-gpu.yaml") == PRESETS / "one-gpu.yaml"
    assert "eval/configs/one-gpu.yaml is called one-gpu now" in capsys.readouterr().err
    assert find_config("eval/configs/mine.yaml") == Path("eval/configs/mine.yaml")
    assert find_config("eval/config/presets/cpu.yaml") == Path("eval/config/presets/cpu.yaml")
    assert capsys.readouterr().err == ""
