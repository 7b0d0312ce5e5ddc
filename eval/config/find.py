# SPDX-License-Identifier: Apache-2.0
"""Which file CONFIG means: a path, or the name of a preset."""

import difflib
import re
import sys
from pathlib import Path, PurePath

from eval.errors import ConfigError

PRESETS = Path(__file__).parent / "presets"

DEFAULT = "cpu"


def preset_names() -> list[str]:
    """Of the configurations of this repository."""
    return sorted(file.stem for file in PRESETS.glob("*.yaml"))


def find_config(named: str) -> Path:
    """The file that is meant: a bare word is always a preset, ``./word`` is always a file.

    Args:
        named: A path, the name of a preset, or the path that a preset had before.

    Raises:
        ConfigError: There is no such preset.
    """
    if re.fullmatch(r"[A-Za-z0-9-]+", named):
        return _preset(named)
    path = Path(named)
    parts = PurePath(named).parts
    if parts[-3:-1] == ("eval", "configs") and path.stem in preset_names() and not path.exists():
        print(
            f"{named} is called {path.stem} now, as in `python -m eval run {path.stem}`; "
            "this path goes with the next release",
            file=sys.stderr,
        )
        return _preset(path.stem)
    return path


def _preset(name: str) -> Path:
    names = preset_names()
    if name in names:
        return PRESETS / f"{name}.yaml"
    nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.0)[0]
    raise ConfigError(
        f"there is no preset {name!r}, the nearest is {nearest!r} (there are {', '.join(names)}); "
        f"for a file of that name write ./{name}"
    )
