# SPDX-License-Identifier: Apache-2.0
"""Options that several commands have alike."""

from pathlib import Path
from typing import Annotated

import typer

ConfigArgument = Annotated[
    str, typer.Argument(metavar="CONFIG", help="A file, or the name of a preset such as gpus.")
]
SettingsOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY.PATH=VALUE", help="Another value, in YAML; repeatable."),
]
ArmsOption = Annotated[
    str, typer.Option(metavar="default|all", help="Also those that are not asked by default.")
]
GateOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Another gate, such as ci/gates/cpu-quick.yaml.", show_default=False
    ),
]
JunitOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Write the rules as JUnit XML; FOLDER: NAME.xml.", show_default=False
    ),
]
KeyOption = Annotated[
    str | None,
    typer.Option(
        "--api-key-env",
        metavar="NAME",
        help="Environment variable with the key for arms with a url.",
        show_default=False,
    ),
]
VerboseOption = Annotated[bool, typer.Option("--verbose", help="Show rules that passed, too.")]
