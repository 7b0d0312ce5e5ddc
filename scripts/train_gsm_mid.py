# SPDX-License-Identifier: Apache-2.0
"""Train gsm-mid: a DeepSeek-V2 with 64 experts that knows word problems, code and prose.

It is for evaluations whose load changes with what is asked. It is trained again where it is
served, and its accuracy is compared with what a copy has to reach:

    python scripts/train_gsm_mid.py --output build/gsm-mid/model --seconds 480

Exit code 0: the checkpoint is there. 1: it misses an accuracy, and nothing was written. 2: it
cannot be done. 3: --seconds are over, and the same command goes on.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from gsm_mid_sequences import PROBLEMS, TURNS, VOCABULARY_SIZE, ThreeDomains, read_texts
from gsm_mid_texts import Text
from moe_training import Computing, Training
from tiny_checkpoint import json_text
from training_command import chosen_options, command_parser
from training_export import export
from training_options import Options

TEXTS_NAME = "texts.json"
REACH = {"problems": 0.42, "code": 0.55, "text": 0.38}
"""Least accuracy of a whole training. One reached 0.53, 0.59 and 0.42 (eval/models/gsm-mid); it is
asked 154 problems, which is a standard error of 0.04, and texts differ with the machine."""
DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}


@dataclass(frozen=True)
class MidOptions(Options):
    """What determines the trained weights, besides the texts.

    With dense experts a token costs 0.98 GFLOP, forward and backward, 0.60 of them the experts', so
    that all steps cost 4.8e16; an H200 does them in 191 s.
    """

    vocabulary_size: ClassVar[int] = VOCABULARY_SIZE

    steps: int = 1500
    batch_size: int = 64
    sequence_length: int = 512
    learning_rate: float = 6e-4
    warmup_steps: int = 150
    layers: int = 9
    experts: int = 64
    experts_per_token: int = 6
    hidden_size: int = 2048
    intermediate_size: int = 1024
    moe_intermediate_size: int = 32
    head_size: int = 128
    """128: that of DeepSeek's own models, which GPU kernels for latent attention take."""

    def config(self) -> dict[str, Any]:
        """The model's `config.json`."""
        heads = {"qk_nope_head_dim": self.head_size, "v_head_dim": self.head_size}
        return {**super().config(), **heads}


def share_to_reach(text: str) -> tuple[str, float]:
    """What ``--reach`` takes, such as ``code=0.5``."""
    domain, _, share = text.partition("=")
    if domain not in TURNS:
        known = ", ".join(sorted(set(TURNS)))
        raise argparse.ArgumentTypeError(f"{domain!r} is no domain: {known}")
    try:
        value = float(share)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{share!r} is no share between 0 and 1")
    return domain, value


def to_reach(options: Options, asked: Mapping[str, float]) -> dict[str, float]:
    """What a copy has to reach: what is asked for, and of a whole training all of `REACH`."""
    whole = options == MidOptions(seed=options.seed)
    return {**(REACH if whole else {}), **asked}


def missed(accuracy: Mapping[str, float], reach: Mapping[str, float]) -> list[str]:
    """What a copy does not reach, a line for each domain."""
    return [
        f"{domain}: {accuracy[domain]:.4f} of held-out {_counted(domain)} right, "
        f"which has to be {share:g} or more"
        for domain, share in reach.items()
        if accuracy[domain] < share
    ]


def _counted(domain: str) -> str:
    return "answers" if domain == PROBLEMS else "tokens"


def write_names(texts: Mapping[str, Sequence[Text]], output: Path) -> None:
    """Keep which texts there were beside the checkpoint."""
    names = {domain: [text.name for text in found] for domain, found in texts.items()}
    (output / TEXTS_NAME).write_text(json_text(names), encoding="utf-8")


def arguments_parser() -> argparse.ArgumentParser:
    """The parser of this script's command line."""
    parser = command_parser(__doc__, "gsm-mid", MidOptions)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="save and stop then")
    parser.add_argument(
        "--reach",
        type=share_to_reach,
        action="append",
        default=[],
        metavar="DOMAIN=SHARE",
        help="least share of held-out answers (problems) or tokens (code, text) right; default, of "
        f"a whole training: {', '.join(f'{domain} {share}' for domain, share in REACH.items())}",
    )
    parser.add_argument(
        "--dtype", choices=DTYPES, help="of products; default: bfloat16 on a GPU, else float32"
    )
    return parser


def computing_of(chosen: Mapping[str, Any]) -> Computing:
    """How a device computes it at best.

    A GPU runs dense experts, as for gsm-tiny: 11 times as many operations in experts, 2.3 times in
    all, but in two large matrix products, where grouped ones would be 32 channels wide and copy
    each token's 2048 channels to six places and back; and they are deterministic. On a CPU
    operations are the cost.
    """
    on_gpu = chosen["device"] == "cuda"
    dtype = chosen["dtype"] or ("bfloat16" if on_gpu else "float32")
    return Computing(
        chosen["device"],
        chosen["workers"],
        DTYPES[dtype],
        experts="dense" if on_gpu else "grouped",
        fused_optimizer=not on_gpu,
    )


def main(arguments: list[str] | None = None) -> int:
    """Train and write the checkpoint; the module tells the exit codes."""
    started = time.monotonic()
    chosen = vars(arguments_parser().parse_args(arguments))
    output: Path = chosen["output"]
    try:
        options = chosen_options(MidOptions, chosen)
        chosen["work"].mkdir(parents=True, exist_ok=True)
        torch.use_deterministic_algorithms(True)
        # It shows reads of memory that nobody wrote, and writes all memory twice for that.
        torch.utils.deterministic.fill_uninitialized_memory = False
        texts = read_texts()
        source = ThreeDomains(options, texts)
        # Workers that are started from here on tokenize by themselves.
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        training = Training(options, source, chosen["work"], computing_of(chosen))
        training.resume()
        every = (chosen["save_every"], chosen["validate_every"], chosen["validation_batches"])
        training.run(*every, deadline=started + chosen["seconds"])
        if not training.finished:
            print(f"train_gsm_mid: {training.step} of {options.steps} steps: run it again to go on")
            return 3
        reach = to_reach(options, dict(chosen["reach"]))
        misses = missed(training.history.accuracy[-1][1], reach)
        if misses:
            print("\n".join(f"train_gsm_mid: {one}" for one in misses), file=sys.stderr)
            return 1
        export(training, output)
        write_names(texts, output)
    except (ValueError, OSError) as error:
        print(f"train_gsm_mid: {error}", file=sys.stderr)
        return 2
    print(json.dumps(json.loads((output / "training.json").read_text()), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
