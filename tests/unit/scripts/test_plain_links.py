# SPDX-License-Identifier: Apache-2.0
"""Links of README, as plain text where they lead to other files."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.plain_links import LinkError, plain_links
from tests.unit.scripts.checkout import REPOSITORY


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("see [this page](docs/a.md).", "see this page."),
        ("see [this\npage](docs/a.md#part).", "see this\npage."),
        ('see [this](docs/a.md "title").', "see this."),
        ("see [below](#below).", "see below."),
        ("the [setting `a[0]`](docs/a.md)", "the setting `a[0]`"),
        ("the [setting `planning`](docs/a.md)", "the setting `planning`"),
        ("see [it](https://docs.vllm.ai/x).", "see [it](https://docs.vllm.ai/x)."),
        ("see [it](mailto:a@b).", "see [it](mailto:a@b)."),
        ("![a stall](docs/a.png)", "(picture in the repository: a stall)"),
        ("![](docs/a.png)", ""),
        ("[![a stall](docs/a.png)](docs/a.html)", "(picture in the repository: a stall)"),
        ("[![a](https://b/c.svg)](docs/a.html)", "![a](https://b/c.svg)"),
        ("[![a](d.svg)](https://b/c)", "[(picture in the repository: a)](https://b/c)"),
        ('<a href="docs/a.md">this\npage</a>', "this\npage"),
        ('<a href="https://b/c">this</a>', '<a href="https://b/c">this</a>'),
        ('<img width="9" src="docs/a.svg" alt="a stall">', "(picture in the repository: a stall)"),
        (
            '<picture>\n<source srcset="docs/d.svg"><img src="docs/a.svg" alt="a"></picture>',
            "(picture in the repository: a)",
        ),
        ("`[a](b)` and [c](d)", "`[a](b)` and c"),
        ("``[a](b) ` [e](f)`` and [c](d)", "``[a](b) ` [e](f)`` and c"),
        ("```\n[a](b)\n```\n[c](d)\n", "```\n[a](b)\n```\nc\n"),
        ("~~~ text\n[a](b)\n```\n~~~\n[c](d)\n", "~~~ text\n[a](b)\n```\n~~~\nc\n"),
        ("[a](b) [c](d)", "a c"),
        ("f(x)[1](2)", "f(x)1"),
        ("[a]: https://b/c\n[a] and [b][a]", "[a]: https://b/c\n[a] and [b][a]"),
    ],
)
def test_what_leads_to_another_file_becomes_text(written: str, shown: str) -> None:
    assert plain_links(written) == shown


@pytest.mark.parametrize(
    ("written", "named"),
    [
        ("see [this][page]\n\n[page]: docs/a.md\n", "[page]: docs/a.md"),
        ("see [this [and] that](docs/a.md)", "](docs/a.md)"),
        ("see [this](docs/a_(b).md)", "](docs/a_(b)"),
    ],
)
def test_a_link_that_would_stay_is_refused_by_name(written: str, named: str) -> None:
    with pytest.raises(LinkError, match=f"^{re.escape(named)} is a link that an index cannot"):
        plain_links(written)


@given(st.text(alphabet="ab `~\n|*<>!()#", max_size=60))
def test_what_has_no_bracket_stays_as_it_is(text: str) -> None:
    assert plain_links(text) == text


@given(st.lists(st.sampled_from(["[a](b)", "![c](d)", "`[e](f)`", "[g](h:i)", " ", "\n", "x"])))
def test_no_relative_target_is_left_outside_code(parts: list[str]) -> None:
    shown = plain_links("".join(parts))
    assert shown.count("(h:i)") == parts.count("[g](h:i)")
    assert re.findall(r"\]\([bd]\)", shown) == []


@pytest.mark.parametrize("page", ["README.md", "CHANGELOG.md"])
def test_nothing_but_links_is_taken_from_what_is_published(page: str) -> None:
    text = (REPOSITORY / page).read_text()
    shown = plain_links(text)
    assert re.findall(r"\]\((?!https?:)", re.sub(r"```.*?```", "", shown, flags=re.DOTALL)) == []
    assert len(shown.splitlines()) == len(text.splitlines())
    assert shown.count("`") == text.count("`")
