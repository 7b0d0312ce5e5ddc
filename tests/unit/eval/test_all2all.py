# SPDX-License-Identifier: Apache-2.0
"""A backend that cannot take a model is refused from the model's own configuration."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from eval.preflight.all2all import problem_of_backend

LOW, HIGH = "deepep_low_latency", "deepep_high_throughput"


@pytest.mark.parametrize(
    ("backend", "dtype", "config", "problem"),
    [
        (LOW, "bfloat16", {"hidden_size": 192}, "takes hidden sizes of 2048, 2560, .* has 192"),
        ("nixl_ep", None, {"hidden_size": 2880}, "takes hidden sizes of"),
        (LOW, None, {"text_config": {"hidden_size": 192}}, "takes hidden sizes of"),
        (LOW, None, {"hidden_size": 9000, "quantization_config": {}}, "takes hidden sizes of"),
        (LOW, "float32", {"hidden_size": 2048}, "moves bfloat16 only, .* served in float32"),
        (HIGH, "half", {"hidden_size": 192}, "moves bfloat16 only, .* served in half"),
        ("deepep_v2", "auto", {"torch_dtype": "float16"}, "served in float16"),
        (HIGH, None, {"dtype": "float16"}, "served in float16"),
        (LOW, "bfloat16", {"hidden_size": 2048}, None),
        (LOW, None, {"hidden_size": 2880, "quantization_config": {}}, None),
        (HIGH, "bfloat16", {"hidden_size": 192}, None),
        # vLLM serves it in what the platform prefers.
        (HIGH, "auto", {"dtype": "float32"}, None),
        ("allgather_reducescatter", "float32", {"hidden_size": 192}, None),
        (LOW, None, {}, None),
        (LOW, None, [], None),
    ],
)
def test_hidden_size_and_dtype_are_compared_with_the_kernels(
    tmp_path: Path, backend: str, dtype: object, config: Any, problem: str | None
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = problem_of_backend(backend, dtype, tmp_path)

    if problem is None:
        assert found is None
    else:
        assert found is not None
        assert re.search(problem, found), found
