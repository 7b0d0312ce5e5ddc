# SPDX-License-Identifier: Apache-2.0
"""What no server can be started with, refused before any is."""

from collections.abc import Sequence

from eval.commands.arm_names import ServedName
from eval.errors import ConfigError


def require_each_once(arms: Sequence[ServedName]) -> None:
    """Refuse an arm that is asked for twice.

    Raises:
        ConfigError: One is.
    """
    if len(set(arms)) < len(arms):
        given = ", ".join(map(str.__str__, arms))
        raise ConfigError(f"--arm {given}: each has one folder. Give each once")


def require_even_slots(experts: int, redundant: int, ranks: int) -> None:
    """Refuse slots that ranks would have different numbers of.

    Raises:
        ConfigError: They would.
    """
    slots = experts + redundant
    if slots % ranks:
        raise ConfigError(
            f"{experts} experts and {redundant} redundant are {slots} slots, which "
            f"{ranks} ranks cannot share evenly: make them a multiple of it together"
        )


def require_even_streams(streams: int, ranks: int) -> None:
    """Refuse streams that ranks would have different numbers of.

    Raises:
        ConfigError: They would.
    """
    if streams % ranks:
        raise ConfigError(
            f"--streams {streams} cannot be shared evenly by {ranks} ranks, each of which answers "
            "as many: make it a multiple of them"
        )


def require_graphs_possible(graphs: bool, gpus: int, ranks: int) -> None:
    """Refuse CUDA graphs in loopback.

    Raises:
        ConfigError: They are asked for, and there are fewer GPUs than ranks.
    """
    if graphs and gpus < ranks:
        raise ConfigError(
            "--graphs: CUDA graphs cannot capture loopback's collectives, and with "
            f"{gpus} of {ranks} GPUs it is loopback. Use {ranks}, or leave --graphs out"
        )
