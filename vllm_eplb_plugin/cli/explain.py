# SPDX-License-Identifier: Apache-2.0
"""What the plugin overrides on a release, and why."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from vllm_eplb_plugin.overrides.override import Kind, Override

MOMENTS = {
    "entry": "vLLM's module is imported",
    "state": "EPLB starts",
    "runner": "EPLB starts",
    "loopback": "loopback starts",
    "loopback_serving": "loopback starts",
    "loopback_cuda": "loopback starts on a GPU",
}
"""When each group of the catalogue is bound."""

_COLOURS = {"replace": "cyan", "hook": "green", "pretend": "yellow", "break": "red"}


class Explained(NamedTuple):
    """One override, as it is told."""

    target: str
    kind: Kind
    room: str
    """Folder and module of the package."""
    bound_when: str
    fixes: str
    delete_when: str
    releases: str
    """A version specifier; empty: every supported one."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return self._asdict()


def explain(release: str) -> list[Explained]:
    """Every override of a release, and those that a fault of a setting binds; imports vLLM."""
    from vllm_eplb_plugin.faults.by_name import FAULTS
    from vllm_eplb_plugin.overrides.catalogue import entries_for
    from vllm_eplb_plugin.overrides.override import select

    found = [
        _explained(one.override, one.room, MOMENTS[one.moment]) for one in entries_for(release)
    ]
    for name, overrides in FAULTS.items():
        moment = f"the setting fault is {name}"
        found += [_explained(one, "faults", moment) for one in select(overrides, release)]
    return found


def show(explained: list[Explained], console: Console) -> None:
    """Print each, in the order in which they are bound."""
    for moment, ones in _by_moment(explained):
        console.print(Text(f"When {moment}", "bold"))
        for one in ones:
            heading = Text.assemble((one.kind, _COLOURS[one.kind]), " ", one.target)
            console.print(Padding(heading, (0, 0, 0, 2)))
            releases = f" Releases {one.releases}." if one.releases else ""
            text = f"{one.fixes} Until: {one.delete_when}{releases} In {one.room}."
            console.print(Padding(Text(text, "dim"), (0, 0, 0, 4)))
        console.print()


def _by_moment(explained: list[Explained]) -> Iterator[tuple[str, list[Explained]]]:
    for moment in dict.fromkeys(one.bound_when for one in explained):
        yield moment, [one for one in explained if one.bound_when == moment]


def _explained(override: Override, room: str, moment: str) -> Explained:
    return Explained(
        override.target,
        override.kind,
        room,
        moment,
        override.fixes,
        override.delete_when,
        override.releases,
    )
