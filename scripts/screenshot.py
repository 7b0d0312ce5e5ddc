# SPDX-License-Identifier: Apache-2.0
"""A picture of a report for README: its verdict, and what happened in its first arm with EPLB.

python scripts/screenshot.py docs/sample-report/report.html docs/sample-report/screenshot.png
"""

import subprocess
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

_ONLY = """
section:not([aria-labelledby=experts]), .arm ~ .arm, .arm > .pair, .layers > details:not([open]) {
  display: none;
}
main { padding-bottom: 1rem; }
section { margin-top: 2rem; }
"""


def main(report: Path, picture: Path) -> None:
    """Take it with the Chromium that scripts/setup-chromium finds."""
    found = subprocess.run(
        ["scripts/setup-chromium"], check=True, stdout=subprocess.PIPE, text=True
    )
    with sync_playwright() as started:
        browser = started.chromium.launch(
            executable_path=found.stdout.strip(), args=["--no-sandbox"]
        )
        page = browser.new_page(viewport={"width": 1000, "height": 400}, color_scheme="light")
        page.goto(report.resolve().as_uri())
        page.add_style_tag(content=_ONLY)
        page.screenshot(path=picture, full_page=True)
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
