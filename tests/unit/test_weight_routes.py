# SPDX-License-Identifier: Apache-2.0
"""How expert weights get from rank to rank, with what that costs and what can be done about it."""

from itertools import combinations

import pytest

from vllm_eplb_plugin.releases import supported_releases
from vllm_eplb_plugin.weight_routes import (
    Route,
    between_gpus,
    broken_nixl,
    by_communicator,
    nixl_advice,
    on_cpu,
)

GLOO = Route("over gloo", "slow")


@pytest.mark.parametrize("release", supported_releases())
@pytest.mark.parametrize("has_nixl", [True, False])
def test_every_release_takes_nixl_or_gloo_from_0_22_on_and_nccl_before(
    release: str, has_nixl: bool
) -> None:
    route = by_communicator(release, False, has_nixl)
    minor = int(release.split(".")[1])
    words = [word for word in ("NCCL", "NIXL", "gloo") if word in route.description]
    expected = ["NIXL"] if has_nixl else ["gloo"]
    if minor < 22:
        expected = ["NCCL", "gloo"] if minor >= 20 else ["NCCL"]
    assert words == expected
    assert (route.warning is not None) == ("gloo" in expected)


def test_the_way_out_of_gloo_is_the_package_that_vllm_looks_for() -> None:
    assert "Install the package nixl, not" in nixl_advice("0.33.0", on_rocm=False)
    assert "0.71 GB/s" in nixl_advice("0.33.0", on_rocm=False)
    assert "communicator" not in nixl_advice("0.22.0", on_rocm=False)
    assert '--eplb-config \'{"communicator": "nixl"}\'' in nixl_advice("0.21.0", on_rocm=False)
    assert "Install the package rixl" in nixl_advice("0.26.0", on_rocm=True)
    assert "Install the package nixl_rocm" in nixl_advice("0.27.0", on_rocm=True)


def test_a_nixl_that_cannot_be_imported_is_named_where_vllm_takes_it_unasked() -> None:
    assert broken_nixl("0.21.0", "nixl", "ImportError: libucp.so.0") is None
    assert "a server with EPLB stops" in str(broken_nixl("0.22.0", "nixl", "ImportError: libucp"))


def test_gpus_that_all_read_each_other_need_nothing_else() -> None:
    route = between_gpus(4, [], GLOO)
    assert "all 4 GPUs" in route.description
    assert route.warning is None


@pytest.mark.parametrize(
    ("unreadable", "words"),
    [
        (
            [(0, 2), (1, 2)],
            "over gloo, because not all GPUs of this host can read each other's memory: 0 and 2",
        ),
        (list(combinations(range(3), 2)), "memory: 0 and 1, 0 and 2, 1 and 2"),
    ],
)
def test_gpus_that_cannot_read_each_other_are_named_with_what_that_costs(
    unreadable: list[tuple[int, int]], words: str
) -> None:
    route = between_gpus(3, unreadable, GLOO)
    assert words in route.description
    assert route.warning == "slow"


def test_one_gpu_is_no_reason_to_warn() -> None:
    assert between_gpus(1, [], GLOO).warning is None


@pytest.mark.parametrize(("free", "words"), [(2**26, "64 MiB"), (24 * 2**30, "24.0 GiB")])
def test_little_shared_memory_is_warned_of(free: int, words: str) -> None:
    route = on_cpu(free)
    assert words in route.description
    assert ("--shm-size" in (route.warning or "")) == (free == 2**26)
