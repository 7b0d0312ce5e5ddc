# SPDX-License-Identifier: Apache-2.0
"""A report says by what and on what a model was served, before anything else of it."""

from pathlib import Path
from typing import Any

import pytest

from eval.report.where import served
from eval.results.folder import read_result
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
