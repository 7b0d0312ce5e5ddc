# SPDX-License-Identifier: Apache-2.0
"""Write prompts of one kind, as ``python -m eval throughput --prompts`` reads them.

    python scripts/write_prompts.py problems --number 400 > problems.jsonl

The kinds are those of scripts/ask_in_turns.py: for gsm-mid problems, code and prose.
"""

import argparse
import json
import sys
from itertools import islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.ask_in_turns import KINDS, prompts_of


def main(arguments: list[str] | None = None) -> int:
    """Write one JSON string a line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--number", type=int, default=400, help="default: %(default)s")
    chosen = parser.parse_args(arguments)
    for prompt in islice(prompts_of(chosen.kind), chosen.number):
        print(json.dumps(prompt))
    return 0


if __name__ == "__main__":
    sys.exit(main())
