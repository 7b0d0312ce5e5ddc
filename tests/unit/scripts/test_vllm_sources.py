# SPDX-License-Identifier: Apache-2.0
"""Names and bodies of vLLM, looked up in its sources without importing them."""

from pathlib import Path

import pytest

from scripts.vllm_sources import Sources, gone, has_another_body

STATE = """
from .worker import run, walk as stroll
from vllm.eplb import moved
import vllm.eplb.worker as thread
if True:
    LIMIT = 4
else:
    def spare(): ...
try:
    import nothing
except ImportError:
    nothing, more = None, None

class State:
    def step(self, a):
        "Say it."
        return a + 1

    if LIMIT:
        def late(self): ...
"""


def write(folder: Path, **files: str) -> Sources:
    """Sources of these modules below vllm: ``eplb__state`` is ``vllm/eplb/state.py``."""
    for name, text in files.items():
        file = folder.joinpath("vllm", *name.split("__")).with_suffix(".py")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        for parent in file.relative_to(folder).parents[:-1]:
            (folder / parent / "__init__.py").touch()
    return Sources(folder)


@pytest.fixture
def older(tmp_path: Path) -> Sources:
    worker = "def run(): return 1\ndef walk(): ..."
    return write(tmp_path / "older", eplb__state=STATE, eplb__worker=worker)


@pytest.mark.parametrize(
    ("name", "there"),
    [
        ("vllm", True),
        ("vllm.eplb", True),
        ("vllm.eplb.state.State", True),
        ("vllm.eplb.state.LIMIT", True),
        ("vllm.eplb.state.spare", True),
        ("vllm.eplb.state.more", True),
        ("vllm.eplb.state.stroll", True),
        ("vllm.eplb.state.walk", False),
        ("vllm.eplb.state.thread", True),
        ("vllm.eplb.other", False),
        ("vllm.eplb.other.State", False),
        ("other", False),
    ],
)
def test_a_name_is_there_however_its_module_gets_it(older: Sources, name: str, there: bool) -> None:
    assert older.has(name) == there


@pytest.mark.parametrize("text", ["from os import *", "def __getattr__(name): ..."])
def test_what_a_module_may_have_counts_as_there(tmp_path: Path, text: str) -> None:
    assert write(tmp_path, state=text).has("vllm.state.anything")


def test_what_is_gone_was_there(tmp_path: Path, older: Sources) -> None:
    newer = write(tmp_path / "newer", eplb__state=STATE.replace("LIMIT", "BOUND"))
    left = ["vllm.eplb.state.LIMIT", "vllm.eplb.worker.run"]
    names = [*left, "vllm.eplb.state.State", "vllm.eplb.state.never"]
    assert gone(names, older, newer) == left


@pytest.mark.parametrize(
    ("change", "target", "differs"),
    [
        (("", ""), "State.step", False),
        (("a + 1", "a + 2"), "State.step", True),
        (("a + 1", "a + 2"), "State.late", False),
        (("a + 1", "a + 2"), "State", True),
        (("Say it.", "Say it again."), "State.step", False),
        (("return a", "# Why.\n        return a"), "State.step", False),
        (("step(self, a)", "step(self, b)"), "State.step", True),
        (("def late(self): ...", "def late(self): return 1"), "State.late", True),
        # Who is not there, or is none, is nobody's other body.
        (("def step", "def step_on"), "State.step", False),
        (("LIMIT = 4", "LIMIT = 5"), "LIMIT", False),
    ],
)
def test_a_body_differs_by_what_runs(
    tmp_path: Path, older: Sources, change: tuple[str, str], target: str, differs: bool
) -> None:
    newer = write(tmp_path / "newer", eplb__state=STATE.replace(*change))
    assert has_another_body(f"vllm.eplb.state:{target}", older, newer) == differs


def test_a_body_is_that_of_the_module_a_name_is_imported_from(
    tmp_path: Path, older: Sources
) -> None:
    worker = "def run(): return 2\ndef walk(): ..."
    newer = write(tmp_path / "newer", eplb__state=STATE, eplb__worker=worker)
    assert has_another_body("vllm.eplb.state:run", older, newer)
    assert not has_another_body("vllm.eplb.state:stroll", older, newer)


def test_names_that_import_each_other_in_a_circle_are_no_definition(tmp_path: Path) -> None:
    circle = write(tmp_path, one="from vllm.two import name", two="from .one import name")
    assert circle.find("vllm.one:name") is None
