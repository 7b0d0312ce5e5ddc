# SPDX-License-Identifier: Apache-2.0
"""How expert weights would get from rank to rank here, found by looking at the machine."""

import importlib.util
import shutil
from collections.abc import Iterator
from itertools import combinations

from vllm_eplb_plugin.placement.fast_way import import_problem
from vllm_eplb_plugin.weight_routes import (
    Route,
    between_gpus,
    broken_nixl,
    by_communicator,
    nixl_package,
    on_cpu,
)


def route_on_cpu() -> Route | None:
    """Look at the shared memory of this machine or container; None: there is none."""
    try:
        return on_cpu(shutil.disk_usage("/dev/shm").free)
    except OSError:
        return None


def route_between_gpus(count: int, release: str) -> tuple[Route, list[str]]:
    """Ask torch which of so many GPUs are peers, and whether there is NIXL.

    Args:
        count: At least one.
        release: A supported release of vLLM.

    Returns:
        The route, and what is worth knowing of it.
    """
    import torch

    on_rocm = torch.version.hip is not None
    package = nixl_package(release, on_rocm)
    has_nixl = importlib.util.find_spec(package) is not None
    problem = import_problem(f"{package}._api") if has_nixl else None
    broken = None if problem is None else broken_nixl(release, package, problem)
    vllms = by_communicator(release, on_rocm, has_nixl)
    route = between_gpus(count, list(_unreadable(count)), vllms)
    return route, [hint for hint in (broken, route.warning) if hint is not None]


def _unreadable(count: int) -> Iterator[tuple[int, int]]:
    import torch

    can_read = torch.cuda.can_device_access_peer
    for one, other in combinations(range(count), 2):
        if not (can_read(one, other) and can_read(other, one)):
            yield one, other
