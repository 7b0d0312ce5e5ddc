# SPDX-License-Identifier: Apache-2.0
"""Text of logs, names and answers in Markdown shows as the text that it is."""

import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from eval.report.markdown_text import Markdown, block, fenced, folded, inline
from eval.visible import visible

RENDERER = MarkdownIt("commonmark").enable(["table", "strikethrough"])
MEANT = {"p", "br", "ul", "li", "table", "thead", "tbody", "tr", "th", "td", "pre", "code"}

HOSTILE = [
    "<img src=x onerror=alert(1)>", "</details>", "<!-- x", "<https://example.com>", "&lt;&#65;",
    "`code`", "``", "\\`x`", "a | b", "\\|", "\\\\|", "**bold** __init__ _x_ ~~gone~~ $x$",
    "[a](https://example.com)", "![a](b)", "[a]: https://example.com", "# heading", "- item",
    "+ item", "1. item", "12) item", "> quotation", "---", "***", "===", "    code", "```", "~~~",
    "| a |\n|---|", "a\n\n# b", "\x1b[31mred\x07", "a\r\nb", "\u202etxt", "\ud800\uffff", "\t- x",
]  # fmt: skip


class _Text(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.add(tag)
        self.text += "\n" * (tag == "br")

    def handle_data(self, data: str) -> None:
        self.text += data


def shown(markdown: str) -> str:
    """What a reader sees, and that it is in no element that was not meant."""
    found = _Text(RENDERER.render(markdown))
    assert found.tags <= MEANT, found.tags
    return found.text.replace("\u200b", "")


def words(text: str) -> list[str]:
    # A renderer may show U+FFFD for NUL, which is visible already.
    return visible(text).replace("\u200b", "").split()


SOME_TEXT = st.one_of(
    st.text(alphabet="\\`*_[]()<>|~$&#@:!/.-+=1a \n\tw", max_size=30),
    st.text(st.characters(), max_size=30),
    st.sampled_from(HOSTILE),
)


@given(SOME_TEXT)
def test_in_a_cell(text: str) -> None:
    assert shown(f"| x |\n| --- |\n| {inline(text)} |").split()[1:] == words(text)


@given(SOME_TEXT)
def test_in_an_item(text: str) -> None:
    assert shown(f"- {block(text)}").split() == words(text)


@given(SOME_TEXT)
def test_in_a_block_of_code(text: str) -> None:
    assert shown(fenced(text, "text")).split() == words(text)


@given(st.text(max_size=30) | st.sampled_from(HOSTILE))
def test_in_a_summary(text: str) -> None:
    summary = folded(text, Markdown("x")).partition("\n")[0]
    assert re.fullmatch(r"<details><summary>[^<>]*</summary>", summary)
    assert _Text(summary).text.replace("\u200b", "").split() == words(text)


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("see https://example.com", "see https\\://example.com"),
        ("see www.example.com", "see www\\.example.com"),
        ("by @someone, a@b.c", "by @&#8203;someone, a@&#8203;b.c"),
        ("as in #12", "as in #&#8203;12"),
        ("x.py:100: :tada:", "x.py:&#8203;100: :&#8203;tada:"),
        ("my_rule, p < 0.01, 3 + 4 - 2: 100 %", "my_rule, p < 0.01, 3 + 4 - 2: 100 %"),
    ],
)  # fmt: skip
def test_what_github_makes_of_text_is_kept_from_it(text: str, written: str) -> None:
    assert inline(text) == written
