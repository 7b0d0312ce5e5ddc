# SPDX-License-Identifier: Apache-2.0
"""The page in a real browser: phone and desktop, light and dark."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from eval.report.files import write_reports
from tests.builders.runs import Shape, write_run

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

SETUP = Path(__file__).parents[2] / "scripts" / "setup-chromium"

WIDTHS = {"phone": 390, "desktop": 1280}


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    found = subprocess.run([SETUP], capture_output=True, text=True)
    if found.returncode != 0:
        pytest.skip(found.stderr.splitlines()[-1])
    with playwright.sync_playwright() as started:
        # As root, Chromium has no sandbox; the page is ours.
        opened = started.chromium.launch(
            executable_path=found.stdout.strip(),
            args=["--no-sandbox"],
            # It makes a socket there, whose path is limited to 107 bytes.
            env={**os.environ, "TMPDIR": "/tmp"},
        )
        yield opened
        opened.close()


@pytest.fixture(scope="module", params=["small", "large", "two"])
def file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    large = Shape(questions=300, layers=12, experts=256, redundant=32, ranks=32, lost=20)
    shape = large if request.param == "large" else Shape()
    runs = [write_run(folder / "a-run-with-a-rather-long-name-as-people-give-them", shape)]
    if request.param == "two":
        runs.append(write_run(folder / "another", Shape(lost=9, verdict="failed")))
    write_reports(runs, None, folder / "report.html")
    return folder / "report.html"


@pytest.fixture(params=["light", "dark"])
def theme(request: pytest.FixtureRequest) -> str:
    value: str = request.param
    return value


@pytest.fixture(params=WIDTHS)
def page(
    request: pytest.FixtureRequest, browser: "Browser", file: Path, theme: str
) -> "Iterator[Page]":
    """The opened page; what it complains of and asks for is in ``page.complaints``."""
    size = {"width": WIDTHS[request.param], "height": 800}
    context = browser.new_context(viewport=size, color_scheme=theme)
    opened = context.new_page()
    complaints: list[str] = []
    opened.on("console", lambda message: complaints.append(message.text))
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("request", lambda request: complaints.append(request.url))
    opened.goto(file.as_uri())
    assert complaints.pop(0) == file.as_uri()
    yield opened
    assert complaints == []
    context.close()


def test_the_page_is_never_wider_than_the_screen(page: "Page") -> None:
    assert overflow(page) == 0

    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")

    assert overflow(page) == 0


def overflow(page: "Page") -> int:
    width: int = page.evaluate(
        "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )
    return width


def test_the_verdict_is_what_one_sees_first(page: "Page") -> None:
    word = page.locator(".verdict .word")
    box = word.bounding_box()

    assert word.inner_text().strip() in ("Passed", "Failed")
    assert box is not None and box["y"] + box["height"] < 400
    size = page.evaluate("parseFloat(getComputedStyle(document.querySelector('.word')).fontSize)")
    assert size >= 32


def test_the_theme_is_that_of_the_reader(page: "Page", theme: str) -> None:
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")

    assert ground == ("rgb(16, 21, 28)" if theme == "dark" else "rgb(255, 255, 255)")


def test_heat_maps_are_drawn_and_layers_open_by_keyboard(page: "Page") -> None:
    stroke = page.evaluate("getComputedStyle(document.querySelector('.map path')).stroke")
    assert stroke not in ("none", "")
    before = page.locator(".map use").first.bounding_box()
    assert before is not None and before["width"] > 100 and before["height"] > 30

    second = page.locator(".layers details").nth(1)
    second.locator("summary").first.focus()
    page.keyboard.press("Enter")

    assert second.get_attribute("open") is not None
    assert second.locator(".map").first.is_visible()


def test_every_picture_and_region_has_a_name(page: "Page") -> None:
    nameless = page.evaluate(
        """[...document.querySelectorAll('[role=img], [role=region]')]
           .filter(one => !one.getAttribute('aria-label') && !one.getAttribute('aria-labelledby'))
           .length"""
    )
    missing = page.evaluate(
        """[...document.querySelectorAll('[aria-labelledby]')]
           .filter(one => !document.getElementById(one.getAttribute('aria-labelledby'))).length"""
    )

    assert (nameless, missing) == (0, 0)
