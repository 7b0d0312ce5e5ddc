# SPDX-License-Identifier: Apache-2.0
"""A drafter beside the model, in loopback on a CPU: what vLLM's CPU model runner leaves out."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

LOAD = """
import json
from types import SimpleNamespace
from vllm.distributed.eplb import eplb_state
from vllm.model_executor.models import interfaces
from vllm.v1.worker.gpu import eplb_utils
from vllm_eplb_plugin.loopback.cpu import model_runner

class State:
    is_async = True
    def __init__(self, *_): pass
    def add_model(self, experts, config, model_name=None): said.append(f"added {experts}")
    def start_async_loop(self): said.append("started")

class Drafter:
    model = "head"
    def set_eplb_state(self, state): said.append(f"told {type(state).__name__}")

def load(experts, drafter, enabled=True):
    find = lambda model: "experts of " + model if model in experts else None
    interfaces.get_mixture_of_experts_model = eplb_utils.get_mixture_of_experts_model = find
    runner = SimpleNamespace(
        device="cpu",
        model="model",
        drafter=drafter,
        model_config=None,
        parallel_config=SimpleNamespace(enable_eplb=enabled, enable_elastic_ep=False),
        speculative_config=SimpleNamespace(
            method="eagle", draft_model_config=SimpleNamespace(model="small")
        ),
        eplb_step=lambda is_profile: said.append("profiled"),
    )
    said.clear()
    model_runner._override_load_model(lambda runner, dummies: said.append("loaded"))(runner)
    return list(said)

said = []
eplb_state.EplbState = eplb_utils.EplbState = State
model_runner._make_intermediate_tensors = lambda runner: None
loads = {
    "both have experts": load(["model", "head"], Drafter()),
    "the drafter is no model": load(["model"], object()),
    "the drafter alone": load(["head"], Drafter()),
    "the model alone": load(["model"], Drafter()),
    "neither": load([], Drafter()),
    "without EPLB": load(["model", "head"], Drafter(), enabled=False),
}
print(json.dumps(loads))
"""

DRAFTER = ["added experts of head", "told State"]
MODEL = ["added experts of model"]


@pytest.fixture(scope="module")
def loads() -> dict[str, list[str]]:
    """What was done in which order when a runner loaded, by which of the two has experts."""
    done = subprocess.run(
        [sys.executable, "-c", LOAD],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    told: dict[str, list[str]] = json.loads(done.stdout.splitlines()[-1])
    return told


@pytest.mark.parametrize(
    ("who", "added"),
    [
        ("both have experts", [*DRAFTER, *MODEL]),
        ("the drafter is no model", MODEL),
        ("the drafter alone", DRAFTER),
        ("the model alone", MODEL),
    ],
)
def test_what_has_experts_is_added_with_the_drafter_first_and_the_worker_started_once(
    loads: dict[str, list[str]], who: str, added: list[str]
) -> None:
    assert loads[who] == ["loaded", *added, "started"]


def test_where_neither_has_experts_the_model_is_profiled(loads: dict[str, list[str]]) -> None:
    assert loads["neither"] == ["loaded", "profiled"]


def test_without_eplb_nothing_is_added(loads: dict[str, list[str]]) -> None:
    assert loads["without EPLB"] == ["loaded"]
