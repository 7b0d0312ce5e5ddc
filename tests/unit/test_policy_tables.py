# SPDX-License-Identifier: Apache-2.0
"""Tables of `vllm-eplb bench plan`, in terminals of any width."""

import io

import pytest
from rich.console import Console

from vllm_eplb_plugin.bench.comparison.rows import PolicyRow
from vllm_eplb_plugin.bench.comparison.tables import policy_tables

NUMBERS = ("0.9974", "0.9692", "5805", "30.1", "255.4", "1234", "740.3", "48", "114.0", "1.00")


def row(policy: str, received: float) -> PolicyRow:
    return PolicyRow(
        *("Qwen3-30B 48 x 128+16", 8, "slow", policy, 0.9974, 0.9692, [0.9692], received, 1234),
        *(740.3, 255.4e9, 48, 114.0, 1.0, 49.71),
    )


@pytest.mark.parametrize(("width", "tables"), [(80, 2), (190, 1)])
def test_no_number_and_no_name_is_cut(width: int, tables: int) -> None:
    name = "incremental,target=0.98,kappa=0"
    made = list(policy_tables([row("default", 5805), row(name, 5805 / 30.1)], width < 125))
    assert len(made) == tables
    file = io.StringIO()
    console = Console(file=file, width=width)
    for one in made:
        console.print(one)
    printed = file.getvalue()
    assert "…" not in printed
    assert all(number in printed for number in (*NUMBERS, "49.71"))
    assert all(len(line) <= width for line in printed.splitlines())
