# SPDX-License-Identifier: Apache-2.0
"""Nothing that only makes EPLB faster keeps a server from starting."""

import errno
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numba.core import caching

from vllm_eplb_plugin.engine import committer as commits
from vllm_eplb_plugin.placement import compiling, derive, fast_way
from vllm_eplb_plugin.placement.compiling import compiled, numba_cache_problem
from vllm_eplb_plugin.placement.fast_way import FastWay
from vllm_eplb_plugin.planning.policies import fastest as choice

ROOT = Path(__file__).parents[2]
CHOOSE = """
import logging; logging.basicConfig(format="%(message)s")
import torch
from vllm_eplb_plugin.placement.derive import derive_into
from vllm_eplb_plugin.planning.policies import fastest as choice
l2p, counts = torch.zeros(1, 2, 2, dtype=torch.long), torch.zeros(1, 2, dtype=torch.long)
derive_into(torch.tensor([[1, 0, 1]]), l2p, counts)
assert (l2p.tolist(), counts.tolist()) == ([[[1, -1], [0, 2]]], [[1, 2]])
class Own:
    def rebalance_experts(self, load, slots, groups, nodes, ranks, old):
        from vllm_eplb_plugin.planning.policies.default import CompiledPolicy
        return CompiledPolicy.rebalance_experts(load, slots, groups, nodes, ranks, old)
print(type(choice.fastest(Own())).__name__)
"""
"""Commits, and chooses a policy: prints ``type`` for the compiled one, a class."""


@pytest.fixture(autouse=True)
def _as_in_a_new_process() -> Iterator[None]:
    def forget() -> None:
        compiling._cache_problems.clear()
        fast_way._warn_once.cache_clear()
        derive.is_compiled.cache_clear()

    forget()
    yield
    forget()


def choose(*prefix: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("NUMBA_", "XDG_"))}
    return subprocess.run(
        [*prefix, sys.executable, "-c", CHOOSE],
        env={**inherited, "PYTHONPATH": str(ROOT), **environment},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=300,
    )


def lines(done: subprocess.CompletedProcess[str]) -> list[str]:
    assert done.returncode == 0, done.stderr
    return [line for line in done.stderr.splitlines() if "EPLB" in line]


def another_user() -> list[str]:
    """A command's prefix: an arbitrary uid, which may read everything and write nothing."""
    prefix = [
        *("setpriv", "--reuid=54321", "--regid=54321", "--clear-groups"),
        *("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"),
    ]
    if os.getuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("needs root and setpriv, to run as another user that can read this environment")
    tried = subprocess.run(
        [*prefix, sys.executable, "-c", "import torch"], capture_output=True, text=True
    )
    if tried.returncode != 0:
        pytest.skip(f"another user cannot read this environment here: {tried.stderr[-200:]}")
    return prefix


def test_where_nothing_can_be_written_it_is_compiled_without_a_cache() -> None:
    done = choose(*another_user(), HOME="/nonexistent")
    assert done.stdout == "type\n", done.stderr
    [line] = lines(done)
    assert "so every process compiles again when it starts" in line
    assert "set NUMBA_CACHE_DIR to an empty folder that the server's user can write" in line
    assert "no locator available" in line


def test_as_the_line_says_a_folder_in_numba_cache_dir_is_enough(tmp_path: Path) -> None:
    prefix = another_user()
    folder = tmp_path / "cache"
    folder.mkdir()
    os.chown(folder, 54321, 54321)
    done = choose(*prefix, HOME="/nonexistent", NUMBA_CACHE_DIR=str(folder))
    assert (done.stdout, lines(done)) == ("type\n", [])
    assert list(folder.rglob("*.nbi"))


def test_a_broken_index_costs_the_cache_only(tmp_path: Path) -> None:
    assert lines(choose(NUMBA_CACHE_DIR=str(tmp_path))) == []
    indices = list(tmp_path.rglob("*.nbi"))
    assert len(indices) == 4
    for index in indices:
        index.write_bytes(index.read_bytes()[:20])
    done = choose(NUMBA_CACHE_DIR=str(tmp_path))
    assert done.stdout == "type\n"
    [line] = lines(done)
    assert "numba cannot cache what it compiles for EPLB" in line


@pytest.mark.parametrize(
    "code",
    [
        "raise ImportError('Numba needs NumPy 2.2 or less. Got NumPy 2.3.')",
        "raise OSError('libllvmlite.so: cannot open shared object file')",
        "raise AttributeError('module numpy has no attribute long')",
        "def njit(*arguments, **options):\n    raise TypeError('unknown option nogil')",
    ],
)
def test_a_numba_that_does_not_work_means_the_slower_way(tmp_path: Path, code: str) -> None:
    (tmp_path / "numba.py").write_text(code)
    done = choose(PYTHONPATH=f"{tmp_path}:{ROOT}")
    assert done.stdout == "Own\n"
    commit_line, plan_line = lines(done)
    assert commit_line.startswith("EPLB commits by torch operations, which is slower: ")
    assert plan_line.startswith("EPLB plans with vLLM's own policy, which is slower: ")


def test_without_its_library_a_fast_way_is_left_out_and_said_so_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "vllm_eplb_plugin.placement.compiled", None)
    for _ in range(2):
        l2p, counts = torch.full((1, 2, 2), 77), torch.full((1, 2), 77)
        derive.derive_into(torch.tensor([[1, 0, 1]]), l2p, counts)
        assert (l2p.tolist(), counts.tolist()) == ([[[1, -1], [0, 2]]], [[1, 2]])
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("EPLB commits by torch operations, which is slower: ")


def full(*_: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def broken(*_: Any) -> None:
    raise pickle.UnpicklingError("pickle data was truncated")


def denied(*_: Any) -> None:
    raise PermissionError(errno.EACCES, "Permission denied")


@pytest.mark.parametrize(
    ("owner", "name", "fault"),
    [
        (caching.IndexDataCacheFile, "_save_index", full),
        (caching.IndexDataCacheFile, "_save_data", full),
        (caching.IndexDataCacheFile, "_load_index", broken),
        (caching.IndexDataCacheFile, "_load_index", denied),
        (caching._SourceFileBackedLocatorMixin, "get_source_stamp", denied),
    ],
)
def test_whatever_is_wrong_with_the_cache_the_function_is_compiled(
    owner: Any, name: str, fault: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("numba.config.CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(owner, name, fault)

    def twice(array):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        return array * 2

    function = compiled("f8[:](f8[:])")(twice)
    assert function(np.ones(2)).tolist() == [2.0, 2.0]
    assert len(function.signatures) == 1
    assert "NUMBA_CACHE_DIR" in (numba_cache_problem() or "")


def test_what_numba_cannot_compile_is_not_blamed_on_its_cache() -> None:
    def wrong(array):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        return array.nothing_of_this_name

    with pytest.raises(Exception, match="nothing_of_this_name"):
        compiled("f8[:](f8[:])")(wrong)
    assert numba_cache_problem() is None


def test_a_compiled_policy_that_fails_is_left_out(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise TypeError("No matching definition for argument type(s)")

    class Own:
        def rebalance_experts(self, *_: Any) -> torch.Tensor:
            return torch.zeros(1)

    monkeypatch.setattr("vllm_eplb_plugin.planning.policies.default._place", fail)
    own: Any = Own()
    assert choice.fastest(own) is own
    assert caplog.messages == [
        "EPLB plans with vLLM's own policy, which is slower: "
        "TypeError: No matching definition for argument type(s)"
    ]


class Triton:
    """Stands for ``placement/kernels.py`` on a machine that has a GPU."""

    fails_to_compile = False

    class Kernel:
        def __init__(self, *maps: Any) -> None: ...

        def warm_up(self) -> None:
            if Triton.fails_to_compile:
                raise PermissionError(errno.EACCES, "Permission denied", "/.triton")

        def compile(self, source: torch.dtype) -> None:
            raise OSError("libcuda.so.1: cannot open shared object file")


@pytest.fixture
def _triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm_eplb_plugin.placement.kernels", Triton)  # type: ignore[arg-type]


@pytest.mark.usefixtures("_triton")
@pytest.mark.parametrize("fails", [True, False])
def test_a_triton_that_cannot_compile_means_torch_operations(
    fails: bool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Triton, "fails_to_compile", fails)
    on_gpu: Any = SimpleNamespace(device=torch.device("cuda"))
    for _ in range(2):
        kernel = derive.kernel_for(on_gpu, on_gpu, on_gpu)
        assert (kernel is None) == fails
    warning = (
        "EPLB commits by torch operations, which is slower: "
        "PermissionError: [Errno 13] Permission denied: '/.triton'"
    )
    assert caplog.messages == [warning] * fails


@pytest.mark.usefixtures("_triton")
def test_a_driver_that_cannot_be_called_means_triton_s_own_launcher(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    derived: list[int | None] = []
    kernel: Any = Triton.Kernel()
    kernel.derive = derived.append
    monkeypatch.setattr(commits, "kernel_for", lambda *_: kernel)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    maps = [torch.zeros(shape, dtype=torch.long) for shape in ((1, 3), (1, 2, 2), (1, 2))]
    commits.Committer(*maps).commit(torch.tensor([0, 1, 0]), layer=0)
    assert maps[0].tolist() == [[0, 1, 0]]
    assert derived == [0]
    assert caplog.messages == [
        "EPLB commits by Triton's own launcher, which is slower: "
        "OSError: libcuda.so.1: cannot open shared object file"
    ]


def test_a_way_that_is_open_is_not_spoken_of(caplog: pytest.LogCaptureFixture) -> None:
    assert FastWay("plans by numba", "EPLB plans slowly", None).is_open()
    assert caplog.messages == []
