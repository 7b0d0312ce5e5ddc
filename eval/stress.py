# SPDX-License-Identifier: Apache-2.0
"""``python -m eval.stress``: the name that ``python -m eval stress`` had before."""

import sys

from eval.cli import main
from eval.standard_streams import keep_output

if __name__ == "__main__":
    keep_output()
    print(
        "python -m eval.stress is called python -m eval stress now; "
        "this name goes with the next release",
        file=sys.stderr,
    )
    main("stress", *sys.argv[1:])
