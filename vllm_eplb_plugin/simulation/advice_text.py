# SPDX-License-Identifier: Apache-2.0
"""A choice in ten lines, each with its figures, and the options to copy."""

import json

from vllm_eplb_plugin.recording.recording import Recording
from vllm_eplb_plugin.simulation.advising import (
    FEWEST_WINDOWS,
    STILL,
    Choice,
    Verdict,
    largest_change,
    seconds_of,
)
from vllm_eplb_plugin.simulation.changes import BALANCED
from vllm_eplb_plugin.simulation.summary import Row, name_of

_VERDICTS: dict[Verdict, str] = {
    "worth it": "EPLB is worth it here.",
    "already balanced": "EPLB is not worth it here: the load is balanced without it.",
    "costs more than it gains": "EPLB is not worth it here: moving takes longer than it can save.",
    "too short": f"Too short to tell: record {FEWEST_WINDOWS} windows with load at least.",
    "still": "Too still to tell how often to plan, and what a change of domain costs: in no window "
    f"is {STILL:.0%} of the load on other experts than in the first. One plan is worth it; record "
    "while the load changes to know more.",
}


def advice(recording: Recording, choice: Choice) -> list[str]:
    """Say what to set and why."""
    return [
        _recorded(recording),
        _VERDICTS[choice.verdict],
        f"Without EPLB: {_served(choice.without)}; a layer waits for a rank with "
        f"{1 / (choice.without.as_served or 1):.2f} times the mean load.",
        _redundant(choice),
        _policy(choice),
        _interval(recording, choice),
        _moved(choice),
        _worth(choice),
        _changes(choice.chosen),
        "These are tokens on the load that was recorded, not time: measure what it is worth.",
    ]


def options(recording: Recording, choice: Choice, begin: str) -> str | None:
    """What to give to ``vllm serve``; None: nothing, or it cannot be told.

    Args:
        recording: The one.
        choice: What was chosen from it.
        begin: Its path, by which experts are placed at first.
    """
    if choice.verdict not in ("worth it", "still"):
        return None
    chosen, served = choice.chosen, recording.served
    config = {"num_redundant_experts": chosen.redundant}
    if served.interval_steps is not None:
        config["step_interval"] = served.interval_steps * chosen.interval
    if served.window_steps is not None:
        config["window_size"] = served.window_steps
    plugin = {"eplb_plugin": {"planning": {"policy": chosen.policy, "initial": begin}}}
    return (
        f"--enable-eplb --eplb-config '{json.dumps(config)}' "
        f"--additional-config '{json.dumps(plugin)}'"
    )


def _recorded(recording: Recording) -> str:
    shape, seconds = recording.served.shape, seconds_of(recording)
    over = "" if seconds is None else f" over {seconds / 60:.0f} min"
    return (
        f"{name_of(recording)}: {len(recording.windows)} windows{over}, {shape.layers} layers of "
        f"{shape.experts} experts, {shape.ranks} ranks; up to {largest_change(recording):.0%} of "
        "the load on other experts than in the first."
    )


def _served(row: Row) -> str:
    if row.mean is None:
        return "no window has a load"
    return f"balancedness {row.mean:.3f}, in the worst windows {row.worst:.3f}"


def _redundant(choice: Choice) -> str:
    chosen = choice.chosen
    numbers = sorted({row.redundant for row in choice.others})
    others = {number: choice.beside(redundant=number) for number in numbers}
    told = ", ".join(
        f"{number}: {row.as_served:.3f}"
        for number, row in others.items()
        if row is not None and number != chosen.redundant
    )
    return (
        f"num_redundant_experts {chosen.redundant}: {_served(chosen)}, for "
        f"{chosen.redundant_bytes / 1e9:.3g} GB on each rank. Others: {told}."
    )


def _policy(choice: Choice) -> str:
    chosen = choice.chosen
    other = choice.beside(policy="default" if chosen.policy == "incremental" else "incremental")
    told = f"policy {chosen.policy}: moves {chosen.bytes / 1e9:.4g} GB"
    if other is None:
        return f"{told}."
    return f"{told}; {other.policy}: {other.as_served:.3f} with {other.bytes / 1e9:.4g} GB."


def _interval(recording: Recording, choice: Choice) -> str:
    chosen, steps = choice.chosen, recording.served.interval_steps
    rows = [choice.beside(interval=every) for every in (1, 2, 4)]
    told = ", ".join(
        f"{_every(row)}: {row.as_served:.3f} with {row.bytes / 1e9:.4g} GB"
        for row in rows
        if row is not None and row.interval != chosen.interval
    )
    named = "" if steps is None else f" (step_interval {steps * chosen.interval})"
    return f"Plan after {_every(chosen)}{named}. Others: {told or 'none'}."


def _every(row: Row) -> str:
    ordinal = {1: "", 2: "2nd "}.get(row.interval, f"{row.interval}th ")
    return f"every {ordinal}window"


def _moved(choice: Choice) -> str:
    row = choice.chosen
    return (
        f"A rearrangement moves {(row.bytes_per_plan or 0) / 1e9:.3g} GB; at most one rank "
        f"receives {row.busiest_bytes / 1e9:.3g} GB, {row.link_s_longest or 0:.3g} s on the link."
    )


def _worth(choice: Choice) -> str:
    moving = "the recording has no times to compare moving with"
    if choice.moving is not None:
        moving = f"the link is busy for it {choice.moving:.2%} of the time"
    return f"It saves at most {choice.gain:.1%} of the time of expert layers; {moving}."


def _changes(row: Row) -> str:
    if not row.changes:
        return "No change of domain was recorded: what one costs is not known."
    reached = "none was balanced again before the next"
    if row.until_balanced is not None:
        reached = f"windows until {BALANCED}: {row.until_balanced:.1f}, at most {row.slowest}"
        reached += f"; {row.never} times never before the next" if row.never else ""
    return f"{row.changes} changes of domain; {reached}."
