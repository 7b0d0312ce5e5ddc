# SPDX-License-Identifier: Apache-2.0
"""The pages of the repository: where their links lead, and that each has its place in the site."""

import re
from itertools import pairwise
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from scripts.markdown_links import ROOT, pages, problems, read_page, slug

HEADINGS = """\
# `rearrangement_skipped`: why, and *when*

## What it *costs*

## What it costs

## [Linked](other.md) heading

<a id="by-hand"></a>
"""


def toctrees() -> list[Path]:
    """Pages in the order of the site."""
    text = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    lines = [
        line.partition("<")[2].rstrip(">") or line
        for block in re.findall(r"^```\{toctree\}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        for line in block.splitlines()
        if line and not line.startswith(":")
    ]
    return [(ROOT / "docs" / line).resolve() for line in lines]


def write(folder: Path, **files: str) -> None:
    """Pages: ``docs__page`` is ``docs/page.md``."""
    for name, text in files.items():
        file = folder / f"{name.replace('__', '/')}.md"
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)


def test_every_link_leads_somewhere() -> None:
    assert list(problems()) == []


def test_every_page_is_in_one_toctree() -> None:
    shown = [page for page in pages(ROOT) if ".github" not in page.parts]
    assert sorted(toctrees()) == [page for page in shown if page != ROOT / "docs" / "index.md"]


def test_a_page_has_one_heading_of_the_first_level() -> None:
    parse = MarkdownIt("commonmark").parse
    titles = {
        str(page.relative_to(ROOT)): [
            title.content
            for heading, title in pairwise(parse(page.read_text(encoding="utf-8")))
            if heading.type == "heading_open" and heading.tag == "h1"
        ]
        for page in pages(ROOT)
    }
    assert {page: found for page, found in titles.items() if len(found) != 1} == {}


def test_anchors_are_those_of_github() -> None:
    assert read_page(HEADINGS).anchors == {
        "rearrangement_skipped-why-and-when",
        "what-it-costs",
        "what-it-costs-1",
        "linked-heading",
        "by-hand",
    }
    assert slug("How weights get from rank to rank, 2 x (64+16)") == (
        "how-weights-get-from-rank-to-rank-2-x-6416"
    )


@pytest.mark.parametrize(
    ("link", "said"),
    [
        ("[a](other.md)", None),
        ("[a](other.md#below)", None),
        ("[a](#page)", None),
        ("[a](../README.md)", None),
        ("[a](../docs)", None),
        ("[a](a%20b.md)", None),
        ("[a](https://example.org/none.md#none)", None),
        ("`[a](none.md)`", None),
        ("[a](none.md)", "none.md: there is no such file"),
        ("![a](none.png)", "none.png: there is no such file"),
        ("| a |\n|---|\n| [a](none.md) |", "none.md: there is no such file"),
        ("[a]\n\n[a]: none.md", "none.md: there is no such file"),
        ('<img src="none.png">', "none.png: there is no such file"),
        ("[a](other.md#none)", "other.md#none: there is no such heading"),
        ("[a](#none)", "#none: there is no such heading"),
        ("[a](../../none.md)", "../../none.md: leads out of the repository"),
        ("[a](/docs/other.md)", "/docs/other.md: leads out of the repository"),
    ],
)
def test_a_link_that_leads_nowhere_is_named(tmp_path: Path, link: str, said: str | None) -> None:
    write(tmp_path, README="", docs__other="# Other\n\n## Below\n")
    (tmp_path / "docs" / "a b.md").touch()
    write(tmp_path, docs__page=f"# Page\n\n{link}\n")
    found = list(problems(tmp_path))
    assert [re.sub(r"^docs/page.md:\d+: ", "", one) for one in found] == ([said] if said else [])


def test_the_line_of_a_link_is_told(tmp_path: Path) -> None:
    write(tmp_path, README="# Page\n\ntext\n\n| a |\n|---|\n| b |\n| [c](none) |\n")
    assert list(problems(tmp_path)) == ["README.md:8: none: there is no such file"]
