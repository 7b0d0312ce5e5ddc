# SPDX-License-Identifier: Apache-2.0
"""A recording planned again, window after window, as it was served."""

from vllm_eplb_plugin.planning.posing import Posing
from vllm_eplb_plugin.planning.problem import Integers
from vllm_eplb_plugin.recording.recording import InForce, Recording, Served
from vllm_eplb_plugin.simulation.candidate import VLLM, Candidate, parse_candidate
from vllm_eplb_plugin.simulation.combination import cluster_of, first_placement
from vllm_eplb_plugin.simulation.errors import SimulationError


def served_candidate(served: Served) -> Candidate:
    """How was planned when it was recorded.

    Raises:
        SimulationError: See `parse_candidate`.
    """
    if not served.policy:
        return Candidate(VLLM)
    return parse_candidate(served.policy)


def replay(recording: Recording) -> list[InForce]:
    """Plan from each window in turn, with the settings of the recording.

    What was served in sync mode gives the recorded placements, bit for bit: a window is what a
    rearrangement planned from, and its placement is in force before the next one begins. In async
    mode the same holds where each rearrangement had ended before the next one.

    Returns:
        The first placement, and after it one for each window, that of its step, whether or not it
        differs from the one before.

    Raises:
        SimulationError: Windows were smoothed, and forgotten where the load changed: which ones is
            not recorded. Or see `served_candidate`.
    """
    candidate = served_candidate(recording.served)
    options, plan = candidate.options, candidate.make()
    trigger = options.trigger
    if options.smoothing is not None and trigger is not None and trigger.changed is not None:
        raise SimulationError(
            f"{recording.served.model}: planned with smoothing and a trigger; when earlier windows "
            "were forgotten is not recorded, so it cannot be planned again"
        )
    shape = recording.served.shape
    posing, cluster = Posing(options), cluster_of(recording, shape)
    placement: Integers = first_placement(recording, shape)
    placements = [InForce(0, 0.0, placement)]
    for window in recording.windows:
        placement = plan(posing.pose_window(window.slices.astype(float), placement, cluster))
        placements.append(InForce(window.step, window.time, placement))
    return placements
