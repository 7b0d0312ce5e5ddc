# SPDX-License-Identifier: Apache-2.0
"""Arms with a fault in them, which are not judged as part of their run, by their names."""

from collections.abc import Iterable
from typing import Protocol, TypeVar

CONTROL_PREFIX = "control-"
"""Of the name of every such arm."""


class _Named(Protocol):
    @property
    def name(self) -> str: ...


_Arm = TypeVar("_Arm", bound=_Named)


def is_control(arm: str) -> bool:
    """Whether this is the name of an arm with a fault in it."""
    return arm.startswith(CONTROL_PREFIX)


def without_controls(arms: Iterable[_Arm]) -> list[_Arm]:
    """The arms that are judged as part of their run, in their order."""
    return [arm for arm in arms if not is_control(arm.name)]
