# SPDX-License-Identifier: Apache-2.0
"""``python -m eval.latency``: the name that ``python -m eval latency`` had before."""

import sys

from eval.cli import main
from eval.standard_streams import keep_output

if __name__ == "__main__":
    keep_output()
    print(
        "python -m eval.latency is called python -m eval latency now; "
        "this name goes with the next release",
        file=sys.stderr,
    )
    main("latency", *sys.argv[1:])
