# SPDX-License-Identifier: Apache-2.0
"""Policies of other packages, as docs/policies.md says that they are written and found."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tomllib
import torch

from vllm_eplb_plugin.placement.maps import validate_placement
from vllm_eplb_plugin.planning.costs import balancedness_of_layers, costs_of
from vllm_eplb_plugin.planning.pipeline import Pipeline
from vllm_eplb_plugin.planning.policies.incremental import Incremental
from vllm_eplb_plugin.planning.problem import Problem
from vllm_eplb_plugin.planning.registry import (
    ENTRY_POINTS,
    UnknownPolicyError,
    find_policy,
    find_step,
)

PAGE = Path(__file__).parents[2] / "docs" / "policies.md"

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Install a package with policies, as pip would, into a folder of its own on the path."""

    def into_folder(package: str, points: dict[str, str], **modules: str) -> None:
        folder = tmp_path / package
        metadata = folder / f"{package}-1.0.dist-info"
        metadata.mkdir(parents=True)
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0")
        lines = [f"{name} = {value}" for name, value in points.items()]
        text = "\n".join([f"[{ENTRY_POINTS}]", *lines])
        (metadata / "entry_points.txt").write_text(text)
        for name, code in modules.items():
            (folder / f"{name}.py").write_text(code)
        monkeypatch.syspath_prepend(str(folder))

    return into_folder


def blocks_of_page(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)


def skewed_problem() -> Problem:
    load = np.exp(np.random.default_rng(0).normal(size=(4, 24)))
    return Problem(load, np.tile(np.arange(32) % 24, (4, 1)), 4)


def test_the_policy_of_the_page_plans_once_its_package_is_installed(install: Install) -> None:
    [code] = blocks_of_page("python")
    [described] = blocks_of_page("toml")
    points = tomllib.loads(described)["project"]["entry-points"][ENTRY_POINTS]
    [(name, value)] = points.items()
    install("theirs", points, **{value.partition(":")[0]: code})
    problem = skewed_problem()
    for policy in (find_policy(name, {}), find_policy(value, {})):
        placement = Pipeline(policy)(problem).placement
        validate_placement(torch.from_numpy(placement), (4, 32), 24)
        before, after = (balancedness_of_layers(problem, one) for one in (problem.old, placement))
        assert (after >= before).all()
        assert after.mean() > before.mean() + 0.01
        assert 0 < costs_of(problem, placement).received.sum() <= 8


def test_a_package_that_cannot_be_imported_leaves_the_others_alone(install: Install) -> None:
    install("broken", {"broken": "broken_module:Policy"}, broken_module="raise OSError('no disk')")
    install("odd", {"odd": "not a place"})
    install("fine", {"fine": "fine_module:Policy"}, fine_module=blocks_of_page("python")[0] + PLAIN)
    assert callable(find_policy("fine", {}))
    assert find_policy("incremental", {}) == Incremental()
    with pytest.raises(UnknownPolicyError, match="'broken' cannot be imported: OSError: no disk"):
        find_policy("broken", {})
    with pytest.raises(UnknownPolicyError, match="'odd' cannot be imported"):
        find_policy("odd", {})


PLAIN = "\nPolicy = SwapOne\n"


def test_a_wrong_name_is_told_with_the_nearest_of_an_installed_package(install: Install) -> None:
    install("theirs", {"swap_one": "nowhere:Policy"})
    with pytest.raises(UnknownPolicyError, match="no policy 'swap_on', the nearest is 'swap_one'"):
        find_policy("swap_on", {})
    with pytest.raises(UnknownPolicyError, match="no step 'keep', the nearest is 'keep_in_place'"):
        find_step("keep", {})


def test_a_package_cannot_take_one_of_our_names(install: Install) -> None:
    install("theirs", {"incremental": "nowhere:Policy"})
    assert find_policy("incremental", {}) == Incremental()


def test_a_name_of_two_packages_is_neither_ones(install: Install) -> None:
    install("one", {"same": "one_module:Policy"}, one_module="Policy = dict")
    install("two", {"same": "two_module:Policy"}, two_module="Policy = dict")
    said = "'same' may be 'one_module:Policy' and 'two_module:Policy': name the policy by its"
    with pytest.raises(UnknownPolicyError, match=said):
        find_policy("same", {})


@pytest.mark.parametrize(
    ("code", "parameters", "said"),
    [
        ("Policy = 3", {}, "cannot be made: TypeError: 'int' object is not callable"),
        ("def Policy(): return 3", {}, "makes 3, which cannot be called"),
        ("def Policy(): raise OSError('no table')", {}, "cannot be made: OSError: no table"),
        ("def Policy(): return print", {"x": 1}, "has no 'x', it takes none"),
        ("", {}, "cannot be imported: AttributeError: .* has no attribute 'Policy'"),
        ("1 +", {}, "cannot be imported: SyntaxError"),
    ],
)
def test_what_is_no_policy_is_told(
    install: Install,
    code: str,
    parameters: dict[str, int],
    said: str,
    request: pytest.FixtureRequest,
) -> None:
    module = f"no_policy_{abs(hash(request.node.name))}"
    install("theirs", {}, **{module: code})
    with pytest.raises(UnknownPolicyError, match=said):
        find_policy(f"{module}:Policy", parameters)


def test_an_object_inside_another_is_found(install: Install) -> None:
    install(
        "theirs",
        {},
        nested_module="class Policies:\n    @staticmethod\n    def make(): return print",
    )
    assert find_policy("nested_module:Policies.make", {}) is print
