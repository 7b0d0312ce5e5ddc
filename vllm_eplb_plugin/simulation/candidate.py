# SPDX-License-Identifier: Apache-2.0
"""Ways to plan, by the name or the JSON that a person gives."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field

from pydantic import ValidationError

from vllm_eplb_plugin.planning.policies.default import Default
from vllm_eplb_plugin.planning.problem import Integers, Problem
from vllm_eplb_plugin.planning.registry import UnknownPolicyError, make_pipeline
from vllm_eplb_plugin.planning_settings import PlanningOptions
from vllm_eplb_plugin.simulation.errors import SimulationError

Plan = Callable[[Problem], Integers]
"""From a problem to the placement ``[layers, slots]`` that comes into force."""

NOTHING = "none"
"""Nothing moves."""
VLLM = "vllm"
"""vLLM's default policy, as where the setting ``planning`` is not given: it also changes layers
that lose by it, which a pipeline never does."""


@dataclass(frozen=True)
class Candidate:
    """A candidate is a way to plan."""

    name: str
    """What it was called: `NOTHING`, `VLLM`, or a policy's name or JSON."""
    options: PlanningOptions = field(default_factory=PlanningOptions)
    """The setting ``planning``; its defaults where there is none."""

    def make(self) -> Plan:
        """Make what plans, which compiles what it is made of."""
        if self.name == NOTHING:
            return _stay
        if self.name == VLLM:
            return Default()
        pipeline = make_pipeline(self.options)
        return lambda problem: pipeline(problem).placement


def parse_candidate(text: str) -> Candidate:
    """Read `NOTHING`, `VLLM`, a policy's name, or the setting ``planning`` as JSON.

    Raises:
        SimulationError: It is none of them, or its policy or a step cannot be made.
    """
    if text in (NOTHING, VLLM):
        return Candidate(text)
    try:
        written = json.loads(text) if text.lstrip().startswith("{") else {"policy": text}
        candidate = Candidate(text, PlanningOptions.model_validate(written))
        candidate.make()
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(map(str, one['loc'])) or 'it'}: {one['msg']}" for one in error.errors()
        )
        raise SimulationError(f"{text!r} is no setting planning: {wrong}") from error
    except UnknownPolicyError as error:
        raise SimulationError(str(error)) from error
    except ValueError as error:
        raise SimulationError(f"{text!r} is no JSON: {error}") from error
    return candidate


def _stay(problem: Problem) -> Integers:
    return problem.old
