# SPDX-License-Identifier: Apache-2.0
"""scripts/house.py, which scripts/lint runs, finds every broken rule of the package's rooms."""

import subprocess
import sys
from pathlib import Path

import pytest

from scripts import house

ROOT = Path(__file__).parents[2]


def build(folder: Path, **files: str) -> Path:
    """A package of these files: ``placement__maps`` is ``placement/maps.py``."""
    package = folder / "vllm_eplb_plugin"
    for name, text in {"__init__": "", **files}.items():
        parts = [name] if name == "__init__" else name.split("__")
        file = package.joinpath(*parts).with_suffix(".py")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return package


def test_the_house_is_in_order() -> None:
    assert house.problems() == []


def test_lint_looks(tmp_path: Path) -> None:
    assert "-m scripts.house" in (ROOT / "scripts" / "lint").read_text()
    package = build(tmp_path, placement__maps="import vllm")
    done = subprocess.run(
        [sys.executable, "-m", "scripts.house", str(package)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stdout == "vllm_eplb_plugin/placement/maps.py:1: placement may not import vllm\n"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("from vllm_eplb_plugin.planning.guard import Plan", 1),
        ("import os\nimport vllm_eplb_plugin.planning.guard", 2),
        ("from vllm_eplb_plugin.planning import guard", 1),
        ("from ..planning import guard", 1),
        ("from ..planning.guard import Plan", 1),
        ("def late():\n    from vllm_eplb_plugin.planning import guard", 2),
    ],
)
def test_a_room_imports_only_what_it_may(tmp_path: Path, text: str, line: int) -> None:
    package = build(tmp_path, placement__maps=text, planning__guard="")
    where = f"vllm_eplb_plugin/placement/maps.py:{line}"
    assert house.problems(package) == [f"{where}: placement may not import planning.guard"]


@pytest.mark.parametrize(
    ("room", "text", "name"),
    [
        ("planning", "from vllm.distributed import eplb", "vllm"),
        ("planning", "from torch.distributed import all_reduce", "torch.distributed"),
        ("placement", "from torch import distributed", "torch.distributed"),
        ("observe", "import torch\ntorch.distributed.barrier()", "torch.distributed"),
    ],
)
def test_what_is_tied_to_a_server_is_imported_where_it_may(
    tmp_path: Path, room: str, text: str, name: str
) -> None:
    [problem] = house.problems(build(tmp_path, **{f"{room}__maps": text}))
    assert problem.endswith(f": {room} may not import {name}")
    assert house.problems(build(tmp_path / "other", engine__maps=text)) == []


def test_a_right_of_one_module_is_none_of_its_rooms(tmp_path: Path) -> None:
    text = "import torch.distributed"
    assert house.problems(build(tmp_path, planning__guard=text)) == []
    package = build(tmp_path, planning__guard=text, planning__guardian=text)
    [problem] = house.problems(package)
    assert problem.startswith("vllm_eplb_plugin/planning/guardian.py:1: ")


def test_what_is_imported_for_types_alone_is_free(tmp_path: Path) -> None:
    types = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import vllm\n"
    assert house.problems(build(tmp_path, placement__maps=types)) == []
    [problem] = house.problems(build(tmp_path, placement__maps=types + "else:\n    import vllm\n"))
    assert problem.startswith("vllm_eplb_plugin/placement/maps.py:5: ")


def test_a_new_room_needs_its_rights(tmp_path: Path) -> None:
    [problem] = house.problems(build(tmp_path, cellar__wine=""))
    assert problem.startswith("vllm_eplb_plugin/cellar/wine.py: cellar is in no table of")


def test_imports_never_go_in_a_circle(tmp_path: Path) -> None:
    package = build(
        tmp_path,
        placement__maps="\nfrom vllm_eplb_plugin.placement import balance",
        placement__balance="from vllm_eplb_plugin.placement import derive",
        placement__derive="def late():\n    from vllm_eplb_plugin.placement import maps",
        placement__kernels="from vllm_eplb_plugin.placement import maps",
    )
    assert house.problems(package) == [
        "vllm_eplb_plugin/placement/balance.py:1: imports go in a circle: "
        "placement.balance -> placement.derive -> placement.maps -> placement.balance"
    ]


def test_a_file_fits_on_a_few_screens_unless_it_is_a_table(tmp_path: Path) -> None:
    fits, long = "\n" * house.MAX_LINES, "\n" * (house.MAX_LINES + 1)
    package = build(tmp_path, placement__maps=fits, releases=long)
    assert house.problems(package) == []
    [problem] = house.problems(build(tmp_path, placement__maps=long))
    assert problem == "vllm_eplb_plugin/placement/maps.py:251: longer than 250 lines: split it"
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts/bench.py").write_text(long)
    assert "scripts/bench.py:251: longer than 250 lines: split it" in house.problems(package)


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ("plan", "plans", True),
        ("plan", "plane", True),
        ("lan", "plan", True),
        ("map", "mop", True),
        ("plan_event", "plan_events", True),
        ("plan", "planes", False),
        ("plan", "planning", False),
        ("plan", "nalp", False),
        ("v018", "v019", False),
        ("worker1", "worker", False),
        ("on_host", "onhost", False),
    ],
)
def test_names_of_files_differ_by_more_than_a_letter(
    tmp_path: Path, one: str, other: str, alike: bool
) -> None:
    files = {f"placement__{one}": "", f"planning__{other}": ""}
    expected = [
        f"vllm_eplb_plugin/{room}/{name}.py"
        for room, name in (("placement", one), ("planning", other))
    ]
    found = house.problems(build(tmp_path, **files))
    assert len(found) == alike
    assert all(file in problem for problem in found for file in expected)


def test_rooms_too_have_names_of_their_own(tmp_path: Path) -> None:
    found = house.problems(build(tmp_path, engine__maps="", engines__derive=""))
    assert any("differ by one letter" in problem for problem in found)


def test_files_of_different_rooms_may_have_one_name(tmp_path: Path) -> None:
    assert house.problems(build(tmp_path, engine__refusals="", loopback__refusals="")) == []


def build_harness(package: Path, room: str, text: str) -> Path:
    """One file in a room of the harness beside a package."""
    file = package.parent / "eval" / room / "made_up.py"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    return package


@pytest.mark.parametrize("name", ["vllm_eplb_plugin.settings", "vllm_eplb_plugin.observe"])
def test_the_harness_shares_nothing_with_the_plugin_but_the_types_of_events(
    tmp_path: Path, name: str
) -> None:
    text = f"from vllm_eplb_plugin.observe.events import Event\nimport {name}\n"
    package = build_harness(build(tmp_path, observe__events="", settings=""), "activity", text)
    assert house.problems(package) == [f"eval/activity/made_up.py:2: eval may not import {name}"]


@pytest.mark.parametrize("room", ["judging", "report", "results", "activity"])
@pytest.mark.parametrize("name", ["vllm", "lm_eval", "torch", "transformers"])
def test_what_judges_and_reports_loads_nothing_that_asks_or_decodes(
    tmp_path: Path, room: str, name: str
) -> None:
    package = build_harness(build(tmp_path), room, f"import {name}\n")
    assert house.problems(package) == [f"eval/{room}/made_up.py:1: {room} may not import {name}"]


def test_what_judges_starts_no_server(tmp_path: Path) -> None:
    package = build_harness(build(tmp_path), "serving", "")
    build_harness(package, "judging", "from eval.serving import made_up\n")
    assert house.problems(package) == [
        "eval/judging/made_up.py:1: judging may not import serving.made_up"
    ]
