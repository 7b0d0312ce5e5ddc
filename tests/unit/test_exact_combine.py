# SPDX-License-Identifier: Apache-2.0
"""Where adding experts' outputs exactly cannot work, that is said before a model is loaded."""

from types import SimpleNamespace
from typing import Any

import pytest

from vllm_eplb_plugin.front_end import exact_combine
from vllm_eplb_plugin.front_end.exact_combine import ExactCombineError, check_exact_combine


def config(device: str = "cuda", quantization: str | None = None, **parallel: Any) -> Any:
    usual = {
        "enable_expert_parallel": True, "data_parallel_size": 2, "tensor_parallel_size": 1,
        "all2all_backend": "allgather_reducescatter",
    }  # fmt: skip
    return SimpleNamespace(
        device_config=SimpleNamespace(device_type=device),
        parallel_config=SimpleNamespace(**{**usual, **parallel}),
        quant_config=quantization,
        model_config=SimpleNamespace(quantization=quantization),
    )


@pytest.fixture
def release(monkeypatch: pytest.MonkeyPatch) -> Any:
    def set_to(version: str) -> None:
        support = SimpleNamespace(release=version, installed=version)
        monkeypatch.setattr(exact_combine, "installed_support", lambda: support)

    set_to("0.33.0")
    return set_to


@pytest.mark.usefixtures("release")
@pytest.mark.parametrize("changes", [{}, {"all2all_backend": "naive"}, {"device": "cpu"}])
def test_ranks_that_gather_and_scatter_are_served(changes: dict[str, Any]) -> None:
    check_exact_combine(config(**changes))


@pytest.mark.usefixtures("release")
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"all2all_backend": "deepep_v2"}, "--all2all-backend is deepep_v2, and it takes allgath"),
        ({"tensor_parallel_size": 2}, "--tensor-parallel-size is 2, and it takes 1"),
        ({"data_parallel_size": 1}, "a --data-parallel-size of 2 or more"),
        ({"enable_expert_parallel": False}, "needs --enable-expert-parallel"),
        ({"quantization": "fp8"}, "the model is quantized (fp8)"),
    ],
)
def test_what_is_in_the_way_is_named(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ExactCombineError) as refused:
        check_exact_combine(config(**changes))
    assert said in str(refused.value)


def test_all_that_is_in_the_way_is_named_at_once(release: Any) -> None:
    release("0.20.2")
    with pytest.raises(ExactCombineError) as refused:
        check_exact_combine(config(tensor_parallel_size=2, quantization="fp8"))
    assert str(refused.value) == (
        "exact_combine cannot work: it needs vLLM 0.21.0 or later, and this is 0.20.2; "
        "--tensor-parallel-size is 2, and it takes 1; the model is quantized (fp8). Change that, "
        "or leave the setting out (docs/exact.md)"
    )


def test_a_cpu_needs_a_later_release(release: Any) -> None:
    release("0.31.0")
    with pytest.raises(ExactCombineError, match=r"needs vLLM 0\.32\.0 on a CPU or later"):
        check_exact_combine(config(device="cpu"))
    check_exact_combine(config())
