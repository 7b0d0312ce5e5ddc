# SPDX-License-Identifier: Apache-2.0
"""``python -m eval.stress``: the name that ``python -m eval stress`` had before."""

import sys

from eval.cli import app
from eval.errors import run_to_its_end

if __name__ == "__main__":
    print(
        "python -m eval.stress is called python -m eval stress now; "
        "this name goes with the next release",
        file=sys.stderr,
    )
    run_to_its_end(lambda: app(["stress", *sys.argv[1:]], prog_name="python -m eval"))
