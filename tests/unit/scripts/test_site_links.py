# SPDX-License-Identifier: Apache-2.0
"""scripts/site_links.py finds what in a site of HTML leads nowhere, or is asked of the network."""

from pathlib import Path

import pytest

from scripts.site_links import main, problems

OTHER = '<h2 id="below">Below</h2><a name="old"></a>'


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A site with one page, a picture and a style sheet, to which a test adds another page."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "other.html").write_text(OTHER)
    (tmp_path / "style.css").write_text("a { background: url(docs/a%20b.png) url(data:,x) }")
    (tmp_path / "docs" / "a b.png").touch()
    return tmp_path


@pytest.mark.parametrize(
    "html",
    [
        '<a href="docs/other.html#below"></a>',
        '<a href="docs/other.html#old"></a>',
        '<a href="#here" id="here"></a>',
        '<a href="#">top</a>',
        '<a href="https://example.org/#there">followed by whoever wants to</a>',
        '<link rel="canonical" href="https://example.org/">',
        '<link rel="stylesheet" href="style.css?v=1">',
        '<img src="data:image/png;base64,AAAA">',
        '<img src="docs/a%20b.png" srcset="docs/a%20b.png 2x">',
        '<svg><symbol id="sun"/><use href="#sun"></use></svg>',
        "<style>a { color: red }</style><p>url(none.png)</p>",
    ],
)
def test_what_is_there_is_no_problem(site: Path, html: str) -> None:
    (site / "index.html").write_text(html)
    assert list(problems(site)) == []


NO_FILE, NO_PLACE, OUT, NETWORK = (
    "there is no such file",
    "there is no such place in that page",
    "leads out of the site",
    "is loaded from the network",
)


@pytest.mark.parametrize(
    ("html", "said"),
    [
        ('<a href="none.html"></a>', f"none.html: {NO_FILE}"),
        ('<a href="docs"></a>', f"docs: {NO_FILE}"),
        ('<a href="docs/other.html#none"></a>', f"docs/other.html#none: {NO_PLACE}"),
        ('<a href="#none"></a>', f"#none: {NO_PLACE}"),
        ('<a href="../none.html"></a>', f"../none.html: {OUT}"),
        ('<a href="/docs/other.html"></a>', f"/docs/other.html: {OUT}"),
        ('<img src="none.png">', f"none.png: {NO_FILE}"),
        ('<img srcset="style.css 1x, none.png 2x">', f"none.png: {NO_FILE}"),
        ('<iframe src="none.html"></iframe>', f"none.html: {NO_FILE}"),
        ('<script src="https://x.org/a.js"></script>', f"https://x.org/a.js: {NETWORK}"),
        ('<script src="//x.org/a.js"></script>', f"//x.org/a.js: {NETWORK}"),
        ('<link rel="stylesheet" href="https://x.org/a">', f"https://x.org/a: {NETWORK}"),
        ('<link rel="icon" href="https://x.org/a">', f"https://x.org/a: {NETWORK}"),
        ('<style>@import "https://x.org/a";</style>', f"https://x.org/a: {NETWORK}"),
        ('<p style="background: url(https://x.org/a)">', f"https://x.org/a: {NETWORK}"),
    ],
)
def test_what_is_wrong_is_named_with_its_page(
    site: Path, html: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(site) == 0
    (site / "index.html").write_text(html)
    assert main(site) == 1
    assert capsys.readouterr().out == f"index.html: {said}\n"


def test_style_sheets_are_looked_at_too(site: Path) -> None:
    (site / "docs" / "b.css").write_text('@import "none.css"; a { src: url("https://x.org/f") }')
    assert list(problems(site)) == [
        f"docs/b.css: none.css: {NO_FILE}",
        f"docs/b.css: https://x.org/f: {NETWORK}",
    ]
