# SPDX-License-Identifier: Apache-2.0
"""Write which settings docs/settings.md has, and their defaults, from the model of settings.

    .venv/bin/python scripts/settings_document.py          # --check: only say whether they are

The table stands between ``<!-- settings -->`` and ``<!-- end -->``. What a setting means is written
by hand, because it takes links and measurements that no docstring has; the rest of a row is not.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from scripts.pages import write_or_compare
from vllm_eplb_plugin.settings import Settings

PAGE = Path(__file__).parents[1] / "docs" / "settings.md"

_TABLE = re.compile(r"(?<=<!-- settings -->\n).*?(?=\n<!-- end -->)", re.DOTALL)
_ROW = re.compile(r"^\| `(\w+)` \|.*?\| (\S.*) \|$", re.MULTILINE)


def document(page: str, model: type[BaseModel] = Settings) -> str:
    """Return the page with its table made anew.

    Args:
        page: The page as it is; its rows keep their order.
        model: Whose fields are the settings.

    Raises:
        ValueError: The page has no table, or does not say what a setting means.
    """
    found = _TABLE.search(page)
    if found is None:
        raise ValueError("docs/settings.md has no table between <!-- settings --> and <!-- end -->")
    meanings = dict(_ROW.findall(found[0]))
    if untold := [name for name in model.model_fields if name not in meanings]:
        raise ValueError(f"docs/settings.md does not say what {', '.join(untold)} is: add a row")
    defaults = model().model_dump(mode="json")
    rows = [
        f"| `{name}` | {_told(defaults[name])} | {meaning} |\n"
        for name, meaning in meanings.items()
        if name in defaults
    ]
    table = "".join(["| key | default | meaning |\n|---|---|---|\n", *rows])
    return page[: found.start()] + table + page[found.end() :]


def _told(default: Any) -> str:
    """A default as it is written in JSON, without the zeros that only a float has."""
    text = re.sub(r"\.0\b", "", json.dumps(default))
    return "none" if default is None else f"`{text}`"


def main(arguments: list[str]) -> int:
    """Write the page, or with ``--check`` only compare."""
    unlike = "is not as the settings are: run scripts/settings_document.py"
    return write_or_compare(PAGE, document, arguments, unlike)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
