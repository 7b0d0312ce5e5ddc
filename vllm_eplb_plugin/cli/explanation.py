# SPDX-License-Identifier: Apache-2.0
"""An explanation of overrides as text, for a terminal or a pipe."""

import itertools
import textwrap
from collections.abc import Iterator
from dataclasses import replace

from rich.console import Console
from rich.text import Text

from vllm_eplb_plugin.cli.explain import ExplainedOverride, Explanation
from vllm_eplb_plugin.overrides.override import KINDS, Kind

_MEANING: dict[Kind, str] = {
    "replace": "does vLLM's work in another way",
    "hook": "looks on: calls the original with the same arguments, or refuses",
    "pretend": "lets a CPU, or one GPU, stand for several GPUs, in loopback",
    "break": "a fault, put in on purpose, in loopback",
}
_STYLE: dict[Kind, str] = {
    "replace": "green",
    "hook": "cyan",
    "pretend": "yellow",
    "break": "red",
}
_MAX_WIDTH = 100
_INDENT = " " * 9


def show(explanation: Explanation, console: Console) -> None:
    """Print it in paragraphs, under the moments at which overrides are bound."""
    # Where lines go to a pipe, nobody has said how long they may be.
    width = min(console.width, _MAX_WIDTH) if console.is_terminal else _MAX_WIDTH
    for line in _lines(explanation, width, whole_targets=not console.is_terminal):
        console.print(line, soft_wrap=True)


def _lines(explanation: Explanation, width: int, whole_targets: bool) -> Iterator[Text]:
    yield from _summary(explanation, width)
    groups: dict[tuple[str, ...], list[ExplainedOverride]] = {}
    for override in explanation.overrides:
        groups.setdefault(override.bound_when, []).append(override)
    for moments, overrides in groups.items():
        yield Text()
        for line in textwrap.wrap("When " + ", or when ".join(moments), width):
            yield Text(line, style="bold")
        for _, alike in itertools.groupby(overrides, _all_but_target):
            yield Text()
            yield from _paragraph(list(alike), width, whole_targets)


def _summary(explanation: Explanation, width: int) -> Iterator[Text]:
    number = len(explanation.overrides)
    what = "1 override" if number == 1 else f"{number} overrides"
    headline = f"vLLM {explanation.release}: {what}"
    if not explanation.tested:
        headline = (
            f"vLLM {explanation.vllm} was not tested; all that is overridden when EPLB starts "
            f"looks as in {explanation.release}, whose {what} it gets"
        )
    if explanation.installed is not None:
        headline += f" ({explanation.installed} is installed)"
    yield from map(Text, textwrap.wrap(headline, width, break_on_hyphens=False))
    for kind in KINDS:
        number = sum(override.kind == kind for override in explanation.overrides)
        if number:
            yield Text.assemble(_kind(kind), f"{number:3}  {_MEANING[kind]}")


def _all_but_target(override: ExplainedOverride) -> ExplainedOverride:
    return replace(override, target="")


def _paragraph(alike: list[ExplainedOverride], width: int, whole_targets: bool) -> Iterator[Text]:
    for override in alike:
        target = override.target
        if not whole_targets and len(_INDENT + target) > width:
            target = target.replace(":", f":\n{_INDENT}")
        yield Text.assemble(_kind(override.kind), (target, "bold"))
    yield _indented("", f"in {override.room}, for {_releases(override)}", width)
    if override.kind == "break":
        yield _indented("breaks: ", override.fixes, width)
    else:
        yield _indented("mends: ", override.fixes, width)
        yield _indented("until: ", override.delete_when, width)


def _releases(override: ExplainedOverride) -> str:
    if not override.releases:
        return "every supported release"
    others = "; ".join(override.elsewhere)
    return f"releases {override.releases}" + (f" (another for {others})" if others else "")


def _kind(kind: Kind) -> tuple[str, str]:
    return f"{kind:{len(_INDENT)}}", _STYLE[kind]


def _indented(label: str, text: str, width: int) -> Text:
    start = _INDENT + label
    return Text(
        textwrap.fill(
            text,
            width,
            initial_indent=start,
            subsequent_indent=" " * len(start),
            break_long_words=False,
            break_on_hyphens=False,
        )
    )
