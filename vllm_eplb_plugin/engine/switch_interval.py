# SPDX-License-Identifier: Apache-2.0
"""How long Python lets one thread of this process keep the interpreter from another one."""

import sys


def limit_switch_interval(milliseconds: float | None) -> None:
    """Make it so long at most.

    The async worker's Python otherwise keeps the thread that runs the model from going on for 5 ms
    whenever that one has waited for something, which it does in every step.

    Args:
        milliseconds: None or 0 leaves it as it is.
    """
    if milliseconds:
        sys.setswitchinterval(min(sys.getswitchinterval(), milliseconds / 1000))
