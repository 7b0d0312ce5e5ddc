# SPDX-License-Identifier: Apache-2.0
"""``python -m eval``."""

import os
import sys
from importlib.util import find_spec

from eval.interrupts import interrupts_change_nothing, interrupts_end_at_once
from eval.standard_streams import keep_output

_REQUIRED = (
    "filelock", "httpx", "httpx_sse", "jinja2", "lm_eval", "prometheus_client", "psutil",
    "pydantic", "pynvml", "rich", "ruamel.yaml", "safetensors", "scipy", "transformers", "typer",
)  # fmt: skip


def _is_installed(name: str) -> bool:
    package, _, inside = name.partition(".")
    return find_spec(package) is not None and (not inside or find_spec(name) is not None)


if __name__ == "__main__":
    interrupts_end_at_once()
    keep_output()
    missing = [name for name in _REQUIRED if not _is_installed(name)]
    if missing:
        print(
            f"error: not installed: {', '.join(missing)}. Install what the harness needs: "
            "pip install '.[eval]' in a checkout of this repository",
            file=sys.stderr,
        )
        sys.exit(2)
    if not sys.stderr.isatty():
        # Read when tqdm is imported: in a log file, lm-eval's progress bars are one endless line.
        os.environ.setdefault("TQDM_DISABLE", "1")
    from eval.cli import main

    try:
        main()
    finally:
        interrupts_change_nothing()
