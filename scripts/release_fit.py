# SPDX-License-Identifier: Apache-2.0
"""Whether a vLLM on the path looks as the overrides of a release expect, as JSON.

A process of its own, because a process imports one vLLM:

    PYTHONPATH=FOLDER .venv/bin/python -m scripts.release_fit 0.33.0
"""

import importlib
import json
import os
import sys
from dataclasses import asdict, dataclass, field
from typing import Any

from vllm_eplb_plugin.cli.explain import MOMENTS
from vllm_eplb_plugin.overrides.binding import find_mismatches
from vllm_eplb_plugin.overrides.catalogue import Declaration, declarations
from vllm_eplb_plugin.overrides.override import Override, select
from vllm_eplb_plugin.placement.fast_way import describe


@dataclass(frozen=True)
class Misfit:
    """An override, or a file of them, that does not fit."""

    problem: str
    """With what was expected and what was found."""
    file: str
    """Of the package, that declares it."""
    when: str
    """The moment at which it would be bound."""


@dataclass(frozen=True)
class Target:
    """What is overridden, and by which file."""

    target: str
    file: str
    kind: str


@dataclass
class Fit:
    """What was found."""

    targets: list[Target] = field(default_factory=list)
    """Those that the release's overrides have, as far as they could be imported."""
    misfits: list[Misfit] = field(default_factory=list)
    unseen: list[Misfit] = field(default_factory=list)
    """What cannot be told, because something besides vLLM is missing here."""


def look(release: str) -> Fit:
    """Compare everything that a release's overrides expect with the vLLM on the path.

    Args:
        release: One of the table.
    """
    fit = Fit()
    known = set()
    for declaration in declarations():
        try:
            declared = [place.override for place in declaration.places()]
        except Exception as error:  # whatever vLLM raises when it is imported is the answer
            problem = f"{declaration.file} cannot be imported: {describe(error)}"
            _tell(fit, error, problem, declaration)
            continue
        for override in select(declared, release):
            if override not in known:
                known.add(override)
                _look_at(fit, override, declaration)
    return fit


def _look_at(fit: Fit, override: Override, declaration: Declaration) -> None:
    fit.targets.append(Target(override.target, declaration.file, override.kind))
    try:
        importlib.import_module(override.module)
    except Exception as error:
        problem = f"{override.module}, for {override.target}, cannot be imported: {describe(error)}"
        _tell(fit, error, problem, declaration)
        return
    when = _when(declaration)
    fit.misfits.extend(Misfit(one, declaration.file, when) for one in find_mismatches([override]))


def _tell(fit: Fit, error: Exception, problem: str, declaration: Declaration) -> None:
    found = fit.misfits if is_of_vllm(error) else fit.unseen
    found.append(Misfit(problem, declaration.file, _when(declaration)))


def _when(declaration: Declaration) -> str:
    return MOMENTS.get(declaration.moment, "a loopback worker starts with a fault")


def is_of_vllm(error: Exception) -> bool:
    """Whether a name is missing in vLLM, and not in a package that it needs."""
    owner: Any = None
    if isinstance(error, ImportError):
        owner = error.name
    elif isinstance(error, AttributeError):
        # Of a class or its instance, of a module.
        owner = getattr(error.obj, "__module__", None) or getattr(error.obj, "__name__", None)
    return str(owner).partition(".")[0] == "vllm"


def main() -> int:
    """Print what was found."""
    # vLLM prints as well: that goes where its log goes.
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    [release] = sys.argv[1:]
    print(json.dumps(asdict(look(release))), file=answer, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
