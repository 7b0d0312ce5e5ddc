# SPDX-License-Identifier: Apache-2.0
"""What unit tests of several files need."""

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import torch.distributed as dist


@pytest.fixture(autouse=True)
def _of_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that creates a configuration makes this process the front end of a server."""
    # scripts/test-wheel runs tests where there is nothing that it needs.
    if metrics := sys.modules.get("vllm_eplb_plugin.front_end.metrics"):
        monkeypatch.setattr(metrics, "_server", None)


@pytest.fixture
def group() -> "Iterator[dist.ProcessGroup]":
    """A gloo group of this process alone."""
    import torch.distributed as dist

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    assert dist.group.WORLD is not None
    yield dist.group.WORLD
    dist.destroy_process_group()
