# SPDX-License-Identifier: Apache-2.0
"""The command line that the trainings of small models share."""

import argparse
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from training_options import Options


def command_parser(text: str | None, model: str, options: type[Options]) -> argparse.ArgumentParser:
    """A parser of everything that does not depend on where sequences come from.

    Args:
        text: What the script does, in its first paragraph.
        model: The name of what is trained.
        options: With the model's own values.
    """
    parser = argparse.ArgumentParser(description=(text or "").split("\n\n")[0])
    parser.add_argument("--output", type=Path, required=True, help="folder for the checkpoint")
    parser.add_argument("--work", type=Path, default=Path("build", model), help="to resume from")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--workers", type=int, default=8, help="processes that make sequences")
    parser.add_argument("--save-every", type=int, default=500, help="steps")
    parser.add_argument("--validate-every", type=int, default=250, help="steps")
    parser.add_argument("--validation-batches", type=int, default=2, help="of each domain")
    for option in fields(options):
        flag = "--" + option.name.replace("_", "-")
        parser.add_argument(flag, type=option.type, default=option.default, help="%(default)s")
    return parser


def chosen_options(options: type[Options], chosen: dict[str, Any]) -> Options:
    """What was given of the model's options.

    Raises:
        TrainingError: A value that training cannot have.
        OptionError: A size that the model cannot have.
    """
    found = options(**{one.name: chosen[one.name] for one in fields(options)})
    found.config()
    return found
