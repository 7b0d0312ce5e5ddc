# SPDX-License-Identifier: Apache-2.0
"""Commands of an operator that reach one rank, and what both ranks do."""

from typing import Any

from tests.releases.tiny_model import TinyModel
from tests.releases.two_ranks import LOGICAL, Job, Report, new_state, record_load, wait_for_worker
from vllm_eplb_plugin.observe import commands
from vllm_eplb_plugin.observe.commands import Command


def drive(job: Job, rank: int, config: Any) -> dict[str, Any]:
    """Make ``job.steps`` steps.

    ``commands`` of the arguments are ``[step, rank, order, action]``: what reaches which rank
    before which step. ``window`` and ``interval`` are vLLM's.
    """
    eplb = config.parallel_config.eplb_config
    eplb.window_size, eplb.step_interval = job.arguments["window"], job.arguments["interval"]
    models = [TinyModel(rank, 2, 3, LOGICAL, job.redundant, tag) for tag in range(job.models)]
    models[0].is_drafter = job.models > 1
    state = new_state(models, config)
    state.start_async_loop()
    report = Report(job, rank, state)
    session = state.eplb_session
    number, started, paused = session.rearrangements.number, [], []
    for step in range(1, job.steps + 1):
        for at, heard_by, order, action in job.arguments["commands"]:
            if (at, heard_by) == (step, rank):
                commands.note(Command(order, action).number)
        record_load(state, step)
        state.step(is_dummy=rank == 1 and step % 5 == 0)
        if session.rearrangements.number > number:
            number = session.rearrangements.number
            started.append(step)
        if session.commands.paused:
            paused.append(step)
        report.look()
        wait_for_worker(state)
    carried = [vars(status) for status in session.commands.status()]
    return {**report.as_dict(), "started": started, "paused": paused, "carried": carried}
