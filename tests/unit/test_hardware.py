# SPDX-License-Identifier: Apache-2.0
"""Why DeepEP cannot be used is found out by importing it."""

import sys
from pathlib import Path

import pytest

from vllm_eplb_plugin.cli.hardware import deep_ep_problem


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        (None, "deep_ep is not installed"),
        ("raise ImportError('libnvshmem_host.so.3: cannot open')", "ImportError: libnvshmem_host"),
        ("version = '1.0.0'", "has no class Buffer, so it is not DeepEP"),
        ("class Buffer: ...", None),
    ],
)
def test_deep_ep(
    code: str | None, problem: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if code is not None:
        (tmp_path / "deep_ep.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "deep_ep", raising=False)

    found = deep_ep_problem()
    assert found is None if problem is None else problem in (found or "")
