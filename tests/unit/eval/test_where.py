# SPDX-License-Identifier: Apache-2.0
"""A report says by what and on what a model was served, and how little its speed says."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from eval.report.speed import speed
from eval.report.where import served
from eval.results.folder import read_result
from eval.results.machine import plugin_commit
from eval.results.schema import Result
from eval.results.surroundings import Machine
from tests.builders.runs import write_run

H200 = ["NVIDIA H200"] * 2
LOOPBACK = {"loopback": True}


@pytest.fixture
def result(tmp_path: Path) -> Result:
    return read_result(write_run(tmp_path / "run"))


def changed(result: Result, gpus: list[str], dtype: str | None, **of_config: Any) -> Result:
    machine = Machine(processor="AMD EPYC", accelerators=gpus, cores=2, memory_gib=24)
    serve = result.config.serve
    options = {**serve.options, "data-parallel-size": 2, "dtype": dtype}
    of_config["serve"] = serve.model_copy(update={"options": options})
    config = result.config.model_copy(update=of_config)
    versions = result.versions.model_copy(update={"vllm": "0.33.0", "vllm_eplb_plugin": "0.1.0"})
    return result.model_copy(update={"config": config, "machine": machine, "versions": versions})


@pytest.mark.parametrize(
    ("gpus", "plugin", "where"),
    [
        (H200, {}, "on 2 GPUs (NVIDIA H200)."),
        (H200[:1], LOOPBACK, "in loopback on one GPU (NVIDIA H200), whose times say nothing of"),
        ([], LOOPBACK, "in loopback on a CPU (AMD EPYC), whose times say nothing of GPUs."),
        ([], {}, "on AMD EPYC, where the harness sees no GPU."),
    ],
)
def test_ranks_are_told_with_what_they_ran_on(
    gpus: list[str], plugin: dict[str, Any], where: str, result: Result
) -> None:
    told = served(changed(result, gpus, "bfloat16", plugin=plugin))
    start = "Served by vLLM 0.33.0 with vllm-eplb-plugin 0.1.0 in bfloat16: 2 EP ranks "
    assert told.startswith(start + where)


@pytest.mark.parametrize("dtype", [None, "auto"])
def test_a_dtype_that_nobody_chose_is_the_model_s(dtype: str | None, result: Result) -> None:
    assert "in the model's own dtype: " in served(changed(result, H200, dtype))


def test_the_plugin_s_commit_stands_behind_its_release(result: Result) -> None:
    known = result.model_copy(update={"plugin_commit": "a8f9b9a+"})
    told = served(changed(known, H200, None))
    assert "vllm-eplb-plugin 0.1.0 (a8f9b9a+) in" in told


def test_the_commit_is_git_s_where_the_plugin_is_in_a_checkout() -> None:
    root = Path(__file__).parents[3]
    head = subprocess.run(
        ["git", "-C", root, "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    ).stdout
    found = plugin_commit()
    if not head:
        assert found is None
        return
    assert found is not None and re.fullmatch(r"[0-9a-f]{7,}\+?", found)
    assert head.startswith(found.rstrip("+"))


def test_speed_is_told_of_every_arm_and_as_no_benchmark(result: Result) -> None:
    told = speed(result)
    for arm in result.arms:
        assert f"{arm.name} {arm.tokens_per_second:.0f}" in told
    assert "no benchmark" in told and "first of them with cold caches" in told
    assert "In sync mode a rearrangement stalls the model as long as it takes, in async" in told


def test_speed_of_async_arms_alone_says_nothing_of_sync(result: Result) -> None:
    arms = [arm for arm in result.config.arms if arm.eplb is None or arm.eplb.use_async]
    config = result.config.model_copy(update={"arms": arms})
    names = [arm.name for arm in arms]
    kept = [arm for arm in result.arms if arm.name in names]
    told = speed(result.model_copy(update={"config": config, "arms": kept}))
    assert "stalls" not in told and told.endswith(
        "In async mode a rearrangement goes on beside the model."
    )


def test_one_arm_or_another_kind_of_run_has_no_speed_to_tell(result: Result) -> None:
    assert speed(result.model_copy(update={"arms": result.arms[:1]})) == ""
    assert speed(result.model_copy(update={"kind": "stress"})) == ""
