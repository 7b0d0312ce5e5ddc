# SPDX-License-Identifier: Apache-2.0
"""Facts that have to be alike on all ranks are compared before a collective depends on them."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from vllm_eplb_plugin.engine.rendezvous import Coming, meet, spans

_SHOWN_FACTS, _SHOWN_HOSTS, _SHOWN_CHARACTERS = 8, 4, 160
_NOTHING = "nothing"
"""What stands for a fact that a rank, of another version of the plugin, does not tell."""


class RanksDisagreeError(RuntimeError):
    """A fact is not alike on all ranks; the message says which ranks have which value of it."""


def agree(
    coordinator: Any,
    purpose: str,
    facts: Mapping[str, Any],
    limit_seconds: float,
    next_step: str = "Give all ranks the same",
) -> None:
    """Return if all ranks of a group come and tell the same facts; else every one of them raises.

    Args:
        coordinator: A vLLM ``GroupCoordinator``, of whose ranks all call, or are waited for.
        purpose: A few words, the same on all ranks and for no other calls; an error begins with
            them.
        facts: By their names; values are whatever JSON can hold.
        limit_seconds: How long to wait for the others (`Settings.rank_timeout_s`).
        next_step: What to do where they differ, an imperative.

    Raises:
        RanksDisagreeError: A fact differs.
        RanksMissingError: A rank did not come.
    """
    came = meet(coordinator, purpose, dict(facts), limit_seconds)
    if (differences := describe_differences(came)) is not None:
        raise RanksDisagreeError(
            f"{purpose}: the {len(came)} EP ranks do not agree. {differences}. {next_step}."
        )


def describe_differences(came: Sequence[Coming]) -> str | None:
    """Say which ranks have which value of what is not alike; None: everything is.

    Args:
        came: Each rank's facts, in the order of ranks.
    """
    names = sorted({name for coming in came for name in coming.message})
    by_name = {name: _ranks_by_value(came, name) for name in names}
    different = {name: groups for name, groups in by_name.items() if len(groups) > 1}
    if not different:
        return None
    told = [f"{name}: {_describe(groups, came)}" for name, groups in different.items()]
    left = len(told) - _SHOWN_FACTS
    return "; ".join(told[:_SHOWN_FACTS]) + (f"; and {left} more facts" if left > 0 else "")


def _ranks_by_value(came: Sequence[Coming], name: str) -> dict[str, list[int]]:
    """Ranks by what each tells, as JSON; most ranks first."""
    groups: dict[str, list[int]] = {}
    for rank, coming in enumerate(came):
        told = name in coming.message
        value = json.dumps(coming.message[name], sort_keys=True) if told else _NOTHING
        groups.setdefault(value, []).append(rank)
    return dict(sorted(groups.items(), key=lambda group: -len(group[1])))


def _describe(groups: Mapping[str, Sequence[int]], came: Sequence[Coming]) -> str:
    return ", ".join(
        f"{_shorten(value)} on rank{'s' if len(ranks) > 1 else ''} {spans(ranks)} "
        f"({_hosts(came[rank].host for rank in ranks)})"
        for value, ranks in groups.items()
    )


def _hosts(hosts: Any) -> str:
    different = list(dict.fromkeys(hosts))
    left = len(different) - _SHOWN_HOSTS
    return ", ".join(different[:_SHOWN_HOSTS]) + (f" and {left} more hosts" if left > 0 else "")


def _shorten(value: str) -> str:
    # The first and the last characters, because long lists mostly differ at one end.
    half = _SHOWN_CHARACTERS // 2
    return value if len(value) <= _SHOWN_CHARACTERS else f"{value[:half]}...{value[-half:]}"
