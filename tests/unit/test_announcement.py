# SPDX-License-Identifier: Apache-2.0
"""The line that says what is on."""

from vllm_eplb_plugin.compatibility import Support
from vllm_eplb_plugin.engine.announcement import describe
from vllm_eplb_plugin.engine.planner import Planner
from vllm_eplb_plugin.engine.policy_words import policy_in_words
from vllm_eplb_plugin.engine.rearrangements import Rearrangements
from vllm_eplb_plugin.observe.event_log import EventLog
from vllm_eplb_plugin.observe.identity import Source
from vllm_eplb_plugin.planning_settings import PlanningOptions
from vllm_eplb_plugin.settings import Settings


class DefaultEplbPolicy:
    """As vLLM's is called."""


class CompiledPolicy:
    """As ours is called."""


def test_what_plans_is_called_as_people_set_it() -> None:
    planning = {"policy": "default", "steps": ["keep_in_place"], "trigger": {"below": 0.9}}
    options = PlanningOptions.model_validate(planning)
    planner = Planner(options, Rearrangements(EventLog(None, Source(0, 0, 0))))
    assert policy_in_words(planner) == "default, then keep_in_place, looking every 50 steps"
    assert policy_in_words(CompiledPolicy) == "vLLM's default, compiled"
    assert policy_in_words(DefaultEplbPolicy) == "vLLM's own DefaultEplbPolicy"


def test_a_line_tells_of_an_untested_vllm_and_of_what_is_slower_or_not_done() -> None:
    support = Support("0.34.0rc1+cu130", "0.33.0", tested=False)
    named = {"policy": DefaultEplbPolicy, "transfer": "NCCL", "commits": "torch operations"}
    line = describe(support, "tried", "sync", **named, settings=Settings())
    assert line.startswith(
        "EPLB is vllm-eplb-plugin's: vLLM 0.34.0rc1+cu130 (untested, overridden as 0.33.0, tried), "
        "sync mode; policy: vLLM's own DefaultEplbPolicy; weights: NCCL; commits: torch "
        "operations; checked: placements before weights move; events: not written; switch "
        "interval: "
    )


def test_a_line_tells_where_experts_begin_and_whether_they_move_on() -> None:
    support = Support("0.33.0", "0.33.0", tested=True)
    named = {"policy": DefaultEplbPolicy, "transfer": "NCCL", "commits": "numba"}
    for rearrange, then in (("interval", "; "), ("never", ", and for good; ")):
        planning = {"initial": "recordings/one", "rearrange": rearrange}
        settings = Settings.model_validate({"planning": planning})
        line = describe(support, None, "sync", **named, settings=settings)
        assert f"; experts: at first as recordings/one says{then}weights: NCCL" in line
