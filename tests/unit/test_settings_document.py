# SPDX-License-Identifier: Apache-2.0
"""docs/settings.md has the settings that there are, with their defaults."""

import re
from typing import get_args

import pytest

from scripts import settings_document
from vllm_eplb_plugin.fault_settings import Broken, Wrong
from vllm_eplb_plugin.settings import COMMON, Settings, names_of

WRITTEN = settings_document.PAGE.read_text(encoding="utf-8")


class Longer(Settings):
    """Settings with one more, of which the page says nothing."""

    added: float = 3.0


def section(title: str) -> str:
    """The text below a heading of the page."""
    [text] = re.findall(rf"^## {title}\n(.*?)(?=^## |\Z)", WRITTEN, re.MULTILINE | re.DOTALL)
    return str(text)


def test_names_and_defaults_are_those_of_the_settings(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert settings_document.document(WRITTEN) == WRITTEN, "run scripts/settings_document.py"
    assert settings_document.main(["--check"]) == 0
    monkeypatch.setattr(settings_document, "document", lambda page: f"{page}.")
    assert settings_document.main(["--check"]) == 1
    assert "run scripts/settings_document.py" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("there", "instead"),
    [
        ("| `watch` | `{", "| `watch` | `[{"),
        ("| `rank_timeout_s` | `120` |", "| `rank_timeout_s` | `12` |"),
        ("| `planning` | none |", "| `planning` | `{}` |"),
        ("| `control` |", "| `gone` | none | a setting that is no more |\n| `control` |"),
    ],
)
def test_what_differs_is_made_right(there: str, instead: str) -> None:
    page = WRITTEN.replace(there, instead)
    assert page != WRITTEN
    assert settings_document.document(page) == WRITTEN


def test_a_setting_of_which_the_page_says_nothing_is_named() -> None:
    with pytest.raises(ValueError, match=r"does not say what added is: add a row"):
        settings_document.document(WRITTEN, Longer)
    told = WRITTEN.replace("| `watch` |", "| `added` | | made up |\n| `watch` |")
    assert "| `added` | `3` | made up |\n" in settings_document.document(told, Longer)


def test_a_page_without_the_table_is_refused() -> None:
    with pytest.raises(ValueError, match="has no table between <!-- settings -->"):
        settings_document.document(WRITTEN.replace("<!-- end -->", ""))


def test_every_fault_has_a_row() -> None:
    wrong, broken = section("Faults").split("With the others it breaks once")
    for text, faults in ((wrong, Wrong), (broken, Broken)):
        heading, *rows = re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)
        assert (heading, rows) == ("fault", list(get_args(faults)))


def test_the_page_names_what_ranks_compare() -> None:
    compared = section("Ranks that disagree").partition(", the releases of")[0]
    assert set(re.findall(r"`(\w+)`", compared)) == names_of(COMMON)
