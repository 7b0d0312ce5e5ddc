# SPDX-License-Identifier: Apache-2.0
"""Numbers of a page that no claim covers are found, where figures stand."""

import pytest

from scripts.figures.unclaimed import Exempt, blocks, unclaimed


def found(page: str, *claimed: str, exempt: tuple[Exempt, ...] = ()) -> list[str]:
    """What is told of a page, without what stands around the numbers."""
    return [one.split(":")[0] for one in unclaimed(page, claimed, exempt)]


@pytest.mark.parametrize(
    "number",
    [
        *("3 ms", "1,704 ms", "0.45 us", "42 %", "121.6 MB", "48.2 GiB", "257 GB/s", "5.5 times"),
        *("32 and 20 ms", "5.8, 3.5 or 2 %", "0 of 3,760", "8.6", "14,545 rearrangements"),
        *("3-5 ms", "7ms", "20x", "95 of 100"),
    ],
)
def test_a_figure_in_a_paragraph(number: str) -> None:
    assert found(f"It takes\n{number} here.") == [f"'{number}' comes from no file"]
    assert found(f"It takes\n{number} here.", f"takes {number} here") == []


@pytest.mark.parametrize(
    "text",
    [
        *("vLLM 0.33.0", "DeepSeek-V3", "two H200", "`--rounds 20 ms`", "tree a8f9b9a"),
        *("[here](page-3.2.md)", "25 steps", "# 3 ms"),
    ],
)
def test_what_is_no_figure(text: str) -> None:
    assert found(text) == []


def test_code_has_no_figures() -> None:
    assert found("Text.\n\n```bash\nsleep 3 ms\n```\n\nMore.") == []
    assert found("Text.\n\n```\ncode\n```\nMore takes 3 ms.") == ["'3 ms' comes from no file"]


def test_every_number_in_a_row_is_one_but_those_of_its_label() -> None:
    page = "| ms, V3, 2 ranks | plugin |\n|---|---|\n| 3 layers | 7 | **1.5** |\n"
    assert found(page) == ["'7' comes from no file", "'1.5' comes from no file"]
    assert found(page, "| 3 layers | 7 | **1.5** |") == []
    assert found(page, "| 3 layers | 7 |") == ["'1.5' comes from no file"]


def test_a_claim_covers_no_number_elsewhere() -> None:
    page = "Sync takes 3 ms.\n\nAsync takes 3 ms."
    assert found(page, "Sync takes 3 ms") == ["'3 ms' comes from no file"]


def test_an_exemption_is_needed() -> None:
    exempt = (Exempt("every 30 s", "a setting"), Exempt("within 2 s", "a setting"))
    (problem,) = unclaimed("It looks every 30 s.", (), exempt)
    assert "within 2 s" in problem and "take it out" in problem


def test_items_and_rows_are_blocks_of_their_own() -> None:
    page = "One\nparagraph.\n- an\n  item\n- another\n\n| a |\n|---|\n| b |\n## no\nLast."
    parts = ["One paragraph.", "- an item", "- another", "| a |", "|---|", "| b |", "Last."]
    assert list(blocks(page)) == parts
