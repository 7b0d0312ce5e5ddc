# SPDX-License-Identifier: Apache-2.0
"""How Sphinx makes a site of the Markdown of this repository (scripts/docs).

Sources are those of the whole repository, so that a link leads to the same place on GitHub, in an
editor and in the site.
"""

import sys
from pathlib import Path

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS / "site"), str(DOCS.parent)]

from vllm_eplb_plugin import __version__  # noqa: E402

project = "vllm-eplb-plugin"
release = __version__
extensions = ["myst_parser", "linked_files"]

root_doc = "docs/index"
include_patterns = ["*.md", "docs/**.md", "eval/models/*/README.md"]
# Not walked through: they may be large.
exclude_patterns = [".*", "build", "dist", "runs"]

# As on GitHub: every heading can be linked to, and quotes and dashes stay as they are written.
myst_heading_anchors = 6
smartquotes = False
highlight_language = "text"

html_theme = "furo"
html_title = f"{project} {release}"
html_theme_options = {"top_of_page_buttons": []}
html_static_path = ["site/static"]
html_css_files = ["site.css"]
# Leads from the folder of the site to its first page.
html_extra_path = ["site/root"]
html_copy_source = False
html_show_copyright = False
html_use_index = False
