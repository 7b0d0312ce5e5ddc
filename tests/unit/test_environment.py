# SPDX-License-Identifier: Apache-2.0
"""Environment variables that keep the plugin or its settings away."""

import pytest

from vllm_eplb_plugin.cli.environment import not_loaded_problem, ray_hint


@pytest.mark.parametrize("environment", [{}, {"VLLM_PLUGINS": "eplb"}, {"VLLM_PLUGINS": "a,eplb"}])
def test_nothing_is_said_where_vllm_loads_the_plugin(environment: dict[str, str]) -> None:
    assert not_loaded_problem(environment) is None


@pytest.mark.parametrize(
    ("value", "advice"),
    [
        ("", "VLLM_PLUGINS=eplb,"),
        ("a,b", "VLLM_PLUGINS=a,b,eplb,"),
        ("a, eplb", "VLLM_PLUGINS=a,eplb,"),  # vLLM takes the space for part of the name
    ],
)
def test_a_list_without_the_plugin_is_a_problem_with_the_value_to_set(
    value: str, advice: str
) -> None:
    problem = not_loaded_problem({"VLLM_PLUGINS": value})
    assert problem is not None
    assert f"Set {advice} or unset it" in problem


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"EPLB_PLUGIN": ""},
        {"EPLB_PLUGIN": "{}", "VLLM_RAY_EXTRA_ENV_VARS_TO_COPY": "A, EPLB_PLUGIN"},
        {"EPLB_PLUGIN": "{}", "VLLM_RAY_EXTRA_ENV_VAR_PREFIXES_TO_COPY": "EPLB_"},
    ],
)
def test_nothing_is_said_of_ray_where_settings_arrive(environment: dict[str, str]) -> None:
    assert ray_hint(environment) is None


def test_settings_in_the_environment_do_not_reach_rays_workers() -> None:
    hint = ray_hint({"EPLB_PLUGIN": "{}", "VLLM_RAY_EXTRA_ENV_VARS_TO_COPY": "A"})
    assert hint is not None
    assert "--additional-config" in hint
    assert "VLLM_RAY_EXTRA_ENV_VARS_TO_COPY=A,EPLB_PLUGIN" in hint
