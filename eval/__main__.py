# SPDX-License-Identifier: Apache-2.0
"""``python -m eval``."""

import os
import sys
from importlib.util import find_spec

_REQUIRED = (
    "httpx", "jinja2", "lm_eval", "prometheus_client", "psutil", "pydantic", "pynvml", "rich",
    "scipy", "transformers", "typer", "yaml",
)  # fmt: skip

if __name__ == "__main__":
    missing = [name for name in _REQUIRED if find_spec(name) is None]
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

    main()
