# SPDX-License-Identifier: Apache-2.0
"""Why DeepEP cannot be used is found out by importing it, and told with what to install."""

import importlib.metadata
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from vllm_eplb_plugin.cli.deep_ep import deep_ep_problem, deep_ep_v2_problem


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """What one test imports by that name, the next one does not find."""
    yield
    sys.modules.pop("deep_ep", None)


@pytest.mark.parametrize(
    ("code", "problem", "problem_of_v2"),
    [
        (None, "deep_ep is not installed: ", "deep_ep is not installed: "),
        ("raise ImportError('libnvshmem_host.so.3: cannot open')", "ImportError: libnv", "libnv"),
        ("version = '1.0.0'", "has no class Buffer, so it is not DeepEP", "no class ElasticBuffer"),
        ("class Buffer: ...", None, "has no class ElasticBuffer: it is older than DeepEP 2"),
        ("class Buffer: ...\nclass ElasticBuffer: ...", None, None),
    ],
)
def test_each_interface_is_looked_for(
    code: str | None,
    problem: str | None,
    problem_of_v2: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if code is not None:
        (tmp_path / "deep_ep.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    for expected, look in ((problem, deep_ep_problem), (problem_of_v2, deep_ep_v2_problem)):
        sys.modules.pop("deep_ep", None)
        found = look()
        assert found is None if expected is None else expected in (found or "")


@pytest.mark.parametrize(
    ("torch", "said"),
    [
        ("2.11.0", "pip install --no-deps tokenspeed-deepep==1.2.1.post20251110"),
        ("2.14.1+cu130", "pip install --no-deps sgl-deep-ep==0.1.2.post1"),
        ("2.9.1", "build github.com/deepseek-ai/DeepEP against this torch"),
    ],
)
def test_what_is_installed_depends_on_torch(
    torch: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda _: torch)
    assert said in (deep_ep_problem() or "")
