# SPDX-License-Identifier: Apache-2.0
"""Meetings of ranks that serve: a request calls them, reaches each at a step of its own, or only
some of them, and may be repeated.

So they cannot count calls, as `rendezvous.meet` does. The store has the number of the next meeting,
and whoever ends one, held or given up, moves it on.
"""

from dataclasses import dataclass, field
from typing import Any

from vllm_eplb_plugin.engine.rendezvous import Coming, Meeting, RanksMissingError, store_of


@dataclass
class ServingMeetings:
    """The meetings of one `EplbState`, seen by one rank."""

    refusals_seen: set[int] = field(default_factory=set)
    """Meetings that this rank has refused."""

    def hold(
        self, coordinator: Any, purpose: str, step: int, message: Any, limit_seconds: float
    ) -> list[Coming]:
        """Hold the next meeting of a vLLM group.

        Args:
            coordinator: A vLLM ``GroupCoordinator``.
            purpose: A few words for those who read an error.
            step: Engine steps of this rank. One that was in a step, waiting for ranks that waited
                here for it, comes a step later, when they have given up: it is refused at once.
            message: What this rank has to say.
            limit_seconds: How long to wait for the others.

        Returns:
            What each rank said, in their order.

        Raises:
            RanksMissingError: On every rank that came, some did not come in time.
        """
        store = store_of(coordinator)
        group = f"vllm_eplb_plugin/serving/{coordinator.unique_name.partition(':')[0]}"
        group += str(coordinator.ranks[0])
        next_key = f"{group}/next"
        number = int(store.get(next_key)) if store.check([next_key]) else 0
        refused_key = f"{group}/{number - 1}/refused"
        if number - 1 not in self.refusals_seen and store.check([refused_key]):
            self.refusals_seen.add(number - 1)
            refused_step, reason = store.get(refused_key).decode().split(" ", 1)
            if int(refused_step) == step - 1:
                raise RanksMissingError(reason)
        place, rank = f"{group}/{number}", coordinator.rank_in_group
        try:
            return Meeting(store, place, rank, coordinator.ranks, purpose).hold(
                message, limit_seconds
            )
        except RanksMissingError as error:
            self.refusals_seen.add(number)
            store.compare_set(f"{place}/refused", "", f"{step} {error}")
            raise
        finally:
            store.compare_set(next_key, str(number) if number else "", str(number + 1))
