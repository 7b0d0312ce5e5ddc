# SPDX-License-Identifier: Apache-2.0
"""What an operator may ask of EPLB at run time, as a number that ranks can compare.

A command is its order and its action in one number: the highest is the newest, and all ranks that
know the highest know what to do.
"""

from dataclasses import dataclass, field
from typing import Literal, get_args

Action = Literal["pause", "resume", "rearrange", "plan"]
"""pause: no rearrangement begins, and one that is under way goes on; resume: they begin again;
rearrange: one begins as soon as it may, also while paused; plan: the same, but nothing is moved,
and what would be is told."""
ACTIONS: tuple[Action, ...] = get_args(Action)

_PLACES = 8
"""For actions in a number: more than there are."""
_MOST = 2**63 - 1

STEPS_BETWEEN = 64
"""Engine steps after which ranks ask each other for the newest command."""
STEPS_LATER = 4
"""Engine steps after that in which all carry it out."""


@dataclass(frozen=True)
class Command:
    """A command, and when it was given."""

    order: int
    """Unix milliseconds of whoever gave it; higher where a command with that number was known."""
    action: Action

    @property
    def number(self) -> int:
        """What ranks compare: positive, 63 bits."""
        return self.order * _PLACES + ACTIONS.index(self.action)

    @classmethod
    def of(cls, number: int) -> "Command":
        """Read a number.

        Raises:
            ValueError: It is none of a command.
        """
        order, place = divmod(number, _PLACES)
        if not 0 < number <= _MOST or place >= len(ACTIONS):
            raise ValueError(f"{number} is no command")
        return cls(order, ACTIONS[place])

    def after(self, newest: int) -> "Command":
        """Give the command again so that it is newer than a number that a rank knew already.

        Whoever gave that one has a clock that is ahead, or gave it in the same millisecond.
        """
        return self if newest < self.number else Command(newest // _PLACES + 1, self.action)


@dataclass(frozen=True)
class CommandStatus:
    """What became of a command that ranks carried out."""

    number: int
    action: Action
    step: int
    """Engine step in which all ranks did."""
    rearrangement: int | None = None
    """That it began; None: it has begun none."""
    ended: bool = True
    """Whether nothing of it is still to come."""
    outcomes: list[str] = field(default_factory=list)
    """Of its rearrangement, for each model that has one; or why there is none."""


_newest = 0


def note(number: int) -> int:
    """Note a command that reached this process; this never waits.

    Returns:
        The newest that it knew before; 0: none.

    Raises:
        ValueError: It is none of a command.
    """
    global _newest
    Command.of(number)
    before, _newest = _newest, max(_newest, number)
    return before


def newest() -> int:
    """Return the newest command that this process knows; 0: none."""
    return _newest
