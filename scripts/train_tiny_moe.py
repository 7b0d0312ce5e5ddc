# SPDX-License-Identifier: Apache-2.0
"""Train gsm-tiny: a small DeepSeek-V2 that solves the problems of scripts/gsm_tiny_problems.py.

Stopped at any time, the same command goes on where it was. The same options give the same model
on the same kind of GPU with the same PyTorch.

    python scripts/train_tiny_moe.py --output eval/models/gsm-tiny
"""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Each worker process tokenizes by itself.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from gsm_tiny_sequences import Sequences, tokenizer_for_problems
from moe_training import VALIDATION_SEED, Computing, Training
from training_command import chosen_options, command_parser
from training_export import export
from training_options import Options


class WordProblems:
    """All that gsm-tiny learns from: see `moe_training.Source`."""

    texts: Mapping[str, Any] = {}

    def __init__(self, options: Options) -> None:
        self.tokenizer = tokenizer_for_problems()
        length = options.sequence_length
        self.training = Sequences("train", options.seed, length, self.tokenizer)
        held_out = Sequences("held_out", VALIDATION_SEED, length, self.tokenizer)
        self.held_out = {"problems": held_out}


def main(arguments: list[str] | None = None) -> int:
    """Train and write the checkpoint: 0; 2 for what cannot be done."""
    chosen = vars(command_parser(__doc__, "gsm-tiny", Options).parse_args(arguments))
    try:
        options = chosen_options(Options, chosen)
        chosen["work"].mkdir(parents=True, exist_ok=True)
        torch.use_deterministic_algorithms(True)
        computing = Computing(chosen["device"], chosen["workers"])
        training = Training(options, WordProblems(options), chosen["work"], computing)
        training.resume()
        training.run(chosen["save_every"], chosen["validate_every"], chosen["validation_batches"])
        export(training, chosen["output"])
    except (ValueError, OSError) as error:
        print(f"train_tiny_moe: {error}", file=sys.stderr)
        return 2
    print(json.dumps(json.loads((chosen["output"] / "training.json").read_text()), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
