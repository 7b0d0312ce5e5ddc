# SPDX-License-Identifier: Apache-2.0
"""Figures of README and docs are those of the files that they come from, and others are found."""

import re
import shutil
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from scripts.figures.__main__ import ROOT, all_claims, main
from scripts.figures.checking import nearest, problems, times_said
from scripts.figures.claim import Claim, Kept, row
from scripts.figures.throughput import T_OF_FIVE

KEPT = Kept(ROOT)
CLAIMS = all_claims(KEPT)
FILES = sorted({file for claim in CLAIMS for file in claim.file.split(", ")})

UNUSED = {
    # Two triggers at once, which says nothing that one of them does not.
    "docs/benchmarks/plans/domains-both.json",
}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what is compared."""
    for name in {*FILES, *(claim.page for claim in CLAIMS)}:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def changed(text: str) -> str:
    """The same with another last digit."""
    *_, last = re.finditer(r"\d", text)
    return f"{text[: last.start()]}{(int(last.group()) + 1) % 10}{text[last.end() :]}"


def doubled(value: Any) -> Any:
    """The same with all numbers twice as large."""
    if isinstance(value, dict):
        return {key: doubled(one) for key, one in value.items()}
    if isinstance(value, list):
        return [doubled(one) for one in value]
    return value if isinstance(value, bool) or not isinstance(value, int | float) else 2 * value


def test_pages_say_what_their_files_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check"]) == 0, capsys.readouterr().out


def test_every_claim_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed == [f"{claim.page} <- {claim.file}: {claim.text}" for claim in CLAIMS]


def test_a_changed_digit_of_any_claim_is_found(checkout: Path) -> None:
    for name, claims in groupby(CLAIMS, key=lambda claim: claim.page):
        page = (ROOT / name).read_text(encoding="utf-8")
        for claim in claims:
            if not re.search(r"\d", claim.text):
                continue
            anywhere = r"\s+".join(map(re.escape, claim.text.split()))
            wrong, count = re.subn(anywhere, lambda found: changed(found.group()), page)
            assert count == 1
            (checkout / name).write_text(wrong, encoding="utf-8")
            (problem,) = problems([claim], checkout)
            assert name in problem and claim.file in problem and claim.text in problem


@pytest.mark.parametrize("file", FILES)
def test_other_values_in_any_file_make_other_claims(file: str) -> None:
    other = Kept(ROOT)
    other.known = KEPT.known | {file: doubled(KEPT.read(file))}
    changed_claims = set(all_claims(other)) - set(CLAIMS)
    assert changed_claims
    assert all(file in claim.file.split(", ") for claim in changed_claims)


def test_a_changed_value_in_a_file_is_found(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = "docs/benchmarks/switching-h200.json"
    text = (checkout / file).read_text()
    assert text.count("12.683") == 1
    (checkout / file).write_text(text.replace("12.683", "12.783"))
    assert main(["--check", "--root", str(checkout)]) == 1
    printed = capsys.readouterr().out
    assert "46 sync rearrangements of 12.8 ms take" in printed
    assert printed.count(file) == printed.count("expected:")


def test_every_kept_file_stands_behind_a_claim() -> None:
    folders = (ROOT / "docs" / name for name in ("benchmarks", "evidence"))
    kept = {
        file.relative_to(ROOT).as_posix() for folder in folders for file in folder.rglob("*.json")
    }
    assert kept - set(FILES) == UNUSED


def test_a_figure_of_readme_without_a_file_is_found(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (checkout / "README.md").open("a", encoding="utf-8") as readme:
        readme.write("\nA restart takes 77.25 ms.\n")
    assert main(["--check", "--root", str(checkout)]) == 1
    assert "77.25 ms" in capsys.readouterr().out


def test_a_text_in_two_places_is_no_proof_of_either(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text("It takes 3 ms.\n\nThe other takes 3 ms, too.\n")
    (problem,) = problems([Claim("page.md", "kept.json", "takes 3 ms")], tmp_path)
    assert "2 times" in problem
    assert not list(problems([Claim("page.md", "kept.json", "It takes 3 ms")], tmp_path))


@pytest.mark.parametrize(
    ("page", "said"),
    [
        ("takes\n12.7 ms  of", 1),
        ("takes 112.7 ms of", 0),
        ("takes 2.7 ms of", 0),
        ("takes 12.7 s of", 0),
    ],
)
def test_lines_may_end_anywhere_but_figures_are_whole(page: str, said: int) -> None:
    assert times_said(page, "12.7 ms") == said


def test_a_figure_does_not_go_on_behind_a_text() -> None:
    assert times_said("at most 24.5 us", "at most 24") == 0
    assert times_said("at most 245 us", "at most 24") == 0
    assert times_said("at most 24.", "at most 24") == 1


def test_the_nearest_row_is_that_of_the_same_label() -> None:
    page = "| a plan | 3 ms |\n| a commit | 3 ms | 4 ms |\n| a commit of all | 5 ms |\n"
    assert nearest(page, row("a commit", "3 ms", "5 ms")) == "| a commit | 3 ms | 4 ms |"


def test_an_empty_cell_is_one_blank() -> None:
    assert row("a", "", "", "b") == "| a | | | b |"


def test_the_interval_of_five_rounds_is_students() -> None:
    assert pytest.approx(stats.t.ppf(0.975, 4), abs=1e-4) == T_OF_FIVE
