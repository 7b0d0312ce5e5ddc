# SPDX-License-Identifier: Apache-2.0
"""Put experts back where vLLM's loaders expect them, before weights are replaced.

Whatever was moved since, a loader writes a logical expert's weights into the slots that the first
placement gives it (vLLM #55228). So before weights are written or written out, a rearrangement that
is under way is carried to its end, and the first placement is put in force.
"""

import time
from typing import Any

import torch
from vllm.distributed.eplb.eplb_state import EplbState
from vllm.distributed.parallel_state import get_ep_group

from vllm_eplb_plugin.engine.rendezvous import Coming, RanksMissingError
from vllm_eplb_plugin.engine.session import Session, session_of
from vllm_eplb_plugin.engine.wanted_placement import rearrange_to

_PAUSE_SECONDS = 0.001
_MEETING_SECONDS = 10.0
"""At most: ranks that are between steps come at once, and one that is in a step, and waits in it
for those that wait here, serves nobody meanwhile."""


class WeightsRefusedError(RuntimeError):
    """Weights cannot be replaced now; nothing was changed, on any rank that came."""

    def __init__(self, request: str, reason: str) -> None:
        super().__init__(
            f"{request} is refused, and serving goes on with the weights that are there: {reason}. "
            "EPLB has moved experts, and all EP ranks have to move them back together, between the "
            "same two steps. Pause generation on all engines (POST /pause where this vLLM has it, "
            "or wait until no request is running), then send the request to all of them at once"
        )


def put_back(state: Any, request: str) -> None:
    """Put the first placement in force; at once if it is, and nothing is under way.

    Args:
        state: An `EplbState`.
        request: What asks for it, for whoever reads that it is refused.

    Raises:
        WeightsRefusedError: Other ranks are at another step or did not come, or a transfer does not
            end.
    """
    if session_of(state).asleep is not None:
        return  # there is no map to read, and it wakes up with the first placement
    firsts = [first_placement(model_state) for model_state in state.model_states.values()]
    if not is_under_way(state) and _are_in_force(state, firsts):
        return
    settle(state, request)
    if not _are_in_force(state, firsts):
        with torch.inference_mode():
            rearrange_to(state, firsts)
            start_window_anew(state)
        if not _are_in_force(state, firsts):
            raise WeightsRefusedError(request, "the first placement was not put back (see the log)")
    if state.device.type != "cpu":
        torch.accelerator.synchronize()


def settle(state: Any, request: str) -> None:
    """Let all ranks meet, and carry to its end what is under way.

    Raises:
        WeightsRefusedError: See `put_back`.
    """
    session = session_of(state)
    limit, step = session.settings.rank_timeout_s, session.rearrangements.step
    facts = {"step": step, "worker": _worker(state)}
    try:
        came = session.meetings.hold(
            get_ep_group(), request, step, facts, min(limit, _MEETING_SECONDS)
        )
    except RanksMissingError as error:
        raise WeightsRefusedError(request, str(error)) from error
    if (reason := _what_forbids(came)) is not None:
        raise WeightsRefusedError(request, reason)
    with torch.inference_mode():
        if not _finish(state, session, limit):
            raise WeightsRefusedError(
                request, f"a rearrangement that is under way has not ended in {limit:g} s"
            )


def first_placement(model_state: Any) -> torch.Tensor:
    """Where vLLM's loaders put experts: ``[layers, physical]`` int64 on the CPU."""
    model = model_state.model
    row = EplbState.build_initial_global_physical_to_logical_map(
        model.num_routed_experts, model.num_redundant_experts
    )
    return torch.tensor(row, dtype=torch.long).repeat(model.num_moe_layers, 1)


def is_under_way(state: Any) -> bool:
    """An async rearrangement has begun and not ended; alike on all ranks at one step."""
    return any(model_state.rebalanced for model_state in state.model_states.values())


def start_window_anew(state: Any) -> None:
    """Forget loads of slots that held other experts; the next rearrangement comes as it does after
    the model was loaded."""
    for model_state in state.model_states.values():
        model_state.expert_load_window.zero_()
        model_state.expert_load_pass.zero_()
    session = session_of(state)
    if session.planner is not None:
        session.planner.start_anew()
    if session.warm_start is not None:
        session.warm_start.left()
    interval = state.expert_rearrangement_step_interval
    state.expert_rearrangement_step = max(0, interval - interval // 4)
    update_recording(state)


def _are_in_force(state: Any, placements: list[torch.Tensor]) -> bool:
    return all(
        torch.equal(model_state.physical_to_logical_map.cpu().long(), placement)
        for model_state, placement in zip(state.model_states.values(), placements, strict=True)
    )


def _worker(state: Any) -> str:
    if session_of(state).power.is_stuck:
        return "stuck"
    ended = state.async_worker is None or not state.async_worker.is_alive()
    return "ended" if is_under_way(state) and ended else "alive"


def _what_forbids(came: list[Coming]) -> str | None:
    steps = [coming.message["step"] for coming in came]
    if len(set(steps)) > 1:
        return f"EP ranks are between different steps ({', '.join(map(str, steps))})"
    ended = [rank for rank, coming in enumerate(came) if coming.message["worker"] == "ended"]
    if ended:
        return (
            f"vLLM's async worker of the EP ranks {ended} has ended amid a rearrangement, and only "
            "a restart gets the others out of it (its error is in the log)"
        )
    stuck = [rank for rank, coming in enumerate(came) if coming.message["worker"] == "stuck"]
    if stuck:
        return (
            "EPLB was turned off while a worker stood still, which may still write into the "
            "buffers that are needed to move experts back: only a restart ends that"
        )
    return None


def _finish(state: Any, session: Session, limit_seconds: float) -> bool:
    """Commit what the async worker brings until nothing is under way; False: it does not end.

    Steps of vLLM's own do it, dummy ones that begin no rearrangement. All ranks make as many of
    them, because each asks all whether the next layer has come: none gives up alone.
    """
    attempts = int(limit_seconds / _PAUSE_SECONDS) + 1
    step, counter = session.rearrangements.step, state.expert_rearrangement_step
    state.expert_rearrangement_step = -attempts - 1
    try:
        for _ in range(attempts):
            if not is_under_way(state):
                return True
            type(state).step(state, is_dummy=True)
            time.sleep(_PAUSE_SECONDS)
        return not is_under_way(state)
    finally:
        session.rearrangements.step, state.expert_rearrangement_step = step, counter
        update_recording(state)


def update_recording(state: Any) -> None:
    """Let the router count tokens where vLLM wants their number, and only there."""
    if hasattr(state, "_update_layer_should_record"):  # 0.20 and later
        state._update_layer_should_record()
