# SPDX-License-Identifier: Apache-2.0
"""How expert weights get from rank to rank, what that costs where it is slow, and the way out.

Sentences only: who looks at the machine tells what it found. Figures are of two H200, 1.16 GB each
way at once (docs/footguns.md).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from packaging.version import Version

NIXL_IS_FIRST = Version("0.22")
"""From here on vLLM takes NIXL unasked, else gloo (`ParallelConfig.__post_init__`)."""
_GLOO_IN_ASYNC = Version("0.20")
_ENOUGH_SHARED_MEMORY = 2**30


@dataclass(frozen=True)
class Route:
    """How expert weights go."""

    description: str
    warning: str | None = None
    """What it costs, and the next step; None: nothing is to be done."""


def nixl_package(release: str, on_rocm: bool) -> str:
    """Name the module that a release looks for (its `distributed/nixl_utils.py`)."""
    if not on_rocm:
        return "nixl"
    return "rixl" if Version(release) < Version("0.27") else "nixl_rocm"


def nixl_advice(release: str, on_rocm: bool) -> str:
    """Say what gloo between GPUs costs, and how to get NIXL.

    Args:
        release: The supported release of vLLM, as which the installed one is overridden.
        on_rocm: Whether torch is built for ROCm.
    """
    # nixl-cu12 and nixl-cu13 alone lack the module that vLLM looks for; nixl brings both of them.
    package = "nixl, not nixl-cu12 or nixl-cu13 alone"
    if on_rocm:
        package = nixl_package(release, on_rocm)
    asked = "" if Version(release) >= NIXL_IS_FIRST else f" and give {_ask_for('nixl')}"
    return (
        "gloo sends expert weights through host memory: 0.71 GB/s were measured between two H200, "
        f"about 150 times slower than NIXL. Install the package {package}{asked}"
    )


def broken_nixl(release: str, package: str, problem: str) -> str | None:
    """Say what a NIXL costs that is installed and cannot be imported; None: vLLM leaves it alone.

    vLLM chooses it without importing it, and then ends every rank when it makes the communicator.
    """
    if Version(release) < NIXL_IS_FIRST:
        return None
    return (
        f"vLLM {release} chooses NIXL for EPLB because there is a package {package}, and a server "
        f"with EPLB stops, because it cannot be imported ({problem}). Install it again, uninstall "
        f"it, or give {_ask_for('torch_gloo')}"
    )


def by_communicator(release: str, on_rocm: bool, has_nixl: bool) -> Route:
    """Tell which communicator vLLM itself chooses for GPUs, elastic EP aside."""
    advice = nixl_advice(release, on_rocm)
    if Version(release) >= NIXL_IS_FIRST:
        return Route("by NIXL") if has_nixl else Route("over gloo, through host memory", advice)
    if Version(release) >= _GLOO_IN_ASYNC:
        return Route("by NCCL, in async mode over gloo, through host memory", advice)
    return Route("by NCCL")


def between_gpus(count: int, unreadable: Sequence[tuple[int, int]], otherwise: Route) -> Route:
    """Tell how they go on a host of GPUs.

    Args:
        count: GPUs that a server would see.
        unreadable: Pairs of them of which one cannot read the other's memory.
        otherwise: What vLLM does between these, and from host to host.
    """
    if count == 1:
        return Route(f"one GPU has no peer on this host; from other hosts {otherwise.description}")
    if not unreadable:
        return Route(
            f"from peers' memory, because all {count} GPUs of this host can read each other's; "
            f"from other hosts {otherwise.description}"
        )
    pairs = ", ".join(f"{one} and {other}" for one, other in unreadable)
    return Route(
        f"{otherwise.description}, because not all GPUs of this host can read each other's memory: "
        f"{pairs}",
        otherwise.warning,
    )


def on_cpu(free_bytes: int) -> Route:
    """Tell how they go between ranks of a build for the CPU, with what is free of /dev/shm."""
    free = _in_words(free_bytes)
    route = f"through shared memory, of which {free} are free in /dev/shm"
    if free_bytes >= _ENOUGH_SHARED_MEMORY:
        return Route(route)
    return Route(
        route,
        f"/dev/shm has {free} left, and the expert weights of all ranks are to lie there; if "
        "they do not fit, they are sent over gloo. A "
        "container has 64 MiB unless it is started with more, such as docker run --shm-size 16g",
    )


def _ask_for(communicator: str) -> str:
    return f'--eplb-config \'{{"communicator": "{communicator}"}}\''


def _in_words(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"
