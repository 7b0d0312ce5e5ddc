# SPDX-License-Identifier: Apache-2.0
"""What is said when ranks tell different facts."""

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
import torch.distributed as dist

from vllm_eplb_plugin.engine import rendezvous
from vllm_eplb_plugin.engine.agreement import RanksDisagreeError, agree, describe_differences
from vllm_eplb_plugin.engine.rendezvous import Coming


def coming(host: str, **facts: Any) -> Coming:
    return Coming(host, 1, facts)


def on_hosts(*values: Any, ranks_of_a_host: int = 8) -> list[Coming]:
    return [
        coming(f"node{rank // ranks_of_a_host}", check_weights=value)
        for rank, value in enumerate(values)
    ]


def test_facts_that_are_alike_are_no_difference() -> None:
    assert describe_differences([coming("a", x=1, y=[2]), coming("b", x=1, y=[2])]) is None
    # Keys of an object have no order.
    assert (
        describe_differences([coming("a", x={"p": 1, "q": 2}), coming("b", x={"q": 2, "p": 1})])
        is None
    )


def test_each_value_names_its_ranks_and_hosts() -> None:
    assert describe_differences([coming("a", x=1, same=0), coming("b", x=2, same=0)]) == (
        "x: 1 on rank 0 (a), 2 on rank 1 (b)"
    )


def test_of_64_ranks_the_odd_one_out_is_told_last_and_the_others_together() -> None:
    values = [False] * 64
    values[37] = True
    assert describe_differences(on_hosts(*values)) == (
        "check_weights: false on ranks 0-36, 38-63 (node0, node1, node2, node3 and 4 more hosts), "
        "true on rank 37 (node4)"
    )


def test_a_fact_that_a_rank_does_not_tell_is_a_difference() -> None:
    assert describe_differences([coming("a", x=None), coming("b")]) == (
        "x: null on rank 0 (a), nothing on rank 1 (b)"
    )


def test_a_true_and_a_one_differ() -> None:
    assert describe_differences([coming("a", x=True), coming("b", x=1)]) is not None


def test_many_facts_and_long_values_stay_readable() -> None:
    first, second = ({f"layer {layer}": [rank] * 5000 for layer in range(61)} for rank in (0, 1))
    told = describe_differences([coming("a", **first), coming("b", **second)])
    assert told is not None
    assert told.endswith("; and 53 more facts")
    assert len(told) < 4000


def test_every_rank_raises_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    store = dist.HashStore()
    monkeypatch.setattr(rendezvous, "store_of", lambda _: store)

    def one(rank: int) -> str:
        group = SimpleNamespace(unique_name=f"ep:{rank}", ranks=[0, 1, 2], rank_in_group=rank)
        agree(group, "equal facts", {"x": 1}, 30)
        with pytest.raises(RanksDisagreeError) as error:
            agree(group, "different facts", {"x": rank // 2}, 30, "Think again")
        return str(error.value)

    monkeypatch.setattr(rendezvous, "_meetings", rendezvous.Counter())
    with ThreadPoolExecutor(3) as ranks:
        said = set(ranks.map(one, range(3)))
    (message,) = said
    assert message.startswith("different facts: the 3 EP ranks do not agree. x: 0 on ranks 0-1 (")
    assert message.endswith("). Think again.")
