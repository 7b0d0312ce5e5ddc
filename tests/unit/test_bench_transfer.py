# SPDX-License-Identifier: Apache-2.0
"""What `vllm-eplb bench transfer` draws, counts, checks and shows, and how its ranks end."""

import io
import multiprocessing
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from tests.builders import rank_jobs
from vllm_eplb_plugin.bench.result import BenchError
from vllm_eplb_plugin.bench.transfer import processes
from vllm_eplb_plugin.bench.transfer.expert_sizes import MODELS, megabytes, parse_expert_sizes
from vllm_eplb_plugin.bench.transfer.floor import Rates, spread
from vllm_eplb_plugin.bench.transfer.held_weights import HeldWeights, layers_that_fit
from vllm_eplb_plugin.bench.transfer.placements import (
    SHARES,
    Share,
    draw_next,
    first_placement,
    moved_slots,
    received_slots,
)
from vllm_eplb_plugin.bench.transfer.plot import plot_transfers
from vllm_eplb_plugin.bench.transfer.processes import run_ranks
from vllm_eplb_plugin.bench.transfer.tables import link_line, transfer_tables
from vllm_eplb_plugin.bench.transfer.task import TIMED, Answer, Measured, Task
from vllm_eplb_plugin.transfer.pulls import plan_pulls

SMALL = parse_expert_sizes("64+16")
LIMIT = 60.0


def drawn(share: Share, ranks: int, slots: int) -> tuple[np.ndarray, np.ndarray]:
    old = draw_next(first_placement(ranks, slots), ranks, SHARES[2], np.random.default_rng(1))
    return old, draw_next(old, ranks, share, np.random.default_rng(2))


@pytest.mark.parametrize("share", SHARES, ids=lambda share: share.name)
@pytest.mark.parametrize(("ranks", "slots"), [(2, 40), (3, 7), (4, 10), (2, 1)])
def test_every_rank_gives_and_receives_as_many_experts_as_the_share_says(
    share: Share, ranks: int, slots: int
) -> None:
    old, new = drawn(share, ranks, slots)
    assert sorted(new) == sorted(old) == list(range(ranks * slots))
    for rank in range(ranks):
        assert received_slots(old, new, rank, ranks) == moved_slots(share, slots)
    assert (old != new).sum() == ranks * moved_slots(share, slots)


def test_shares_of_a_rank_come_to_so_many_slots() -> None:
    assert [moved_slots(share, 40) for share in SHARES] == [40, 40, 20, 4, 1]


def test_whole_blocks_are_one_copy_and_drawn_slots_are_many() -> None:
    whole, every = (drawn(share, 2, 40) for share in SHARES[:2])
    assert len(plan_pulls(*whole, 0, 40, range(2))) == 1
    assert len(plan_pulls(*every, 0, 40, range(2))) > 30


def test_the_same_seed_draws_the_same_placement() -> None:
    first, second = (drawn(SHARES[1], 2, 40)[1] for _ in range(2))
    assert (first == second).all()


def test_an_expert_has_the_bytes_that_the_model_has() -> None:
    sizes = {model.name: [tensor.nbytes for tensor in model.tensors] for model in MODELS}
    assert sizes["DeepSeek-V2-Lite"] == [2 * 2816 * 2048, 2 * 2048 * 1408]
    assert sizes["Qwen3-235B"] == [2 * 3072 * 4096, 2 * 4096 * 1536]
    assert sizes["DeepSeek-V3"] == [4096 * 7168, 7168 * 2048, 4 * 32 * 56, 4 * 56 * 16]
    for model in MODELS:
        for tensor in model.tensors:
            assert getattr(torch, tensor.dtype).itemsize == tensor.itemsize


def test_a_shape_is_a_model_or_bytes() -> None:
    assert parse_expert_sizes("deepseek-v3") is MODELS[2]
    assert SMALL.expert_bytes == 80
    assert [megabytes(size) for size in (17301504, 250_000, 80)] == [
        "17.3 MB",
        "0.25 MB",
        "0.08 kB",
    ]


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("gpt-7", "neither one of DeepSeek-V2-Lite"),
        ("64x2", "nor the bytes of an expert's tensors"),
        ("64+12", "every tensor has a multiple of 8 bytes"),
        ("0", "every tensor has a multiple of 8 bytes"),
    ],
)
def test_a_shape_that_cannot_be_is_refused(text: str, rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        parse_expert_sizes(text)


def test_the_floor_is_the_bytes_over_the_link_and_once_more_over_the_memory() -> None:
    assert Rates(peer=300e9, memory=1200e9).floor(600_000_000) == pytest.approx(0.0025)
    assert spread([1.0, 2.0, 3.0]) == {"p10": 1.2, "median": 2.0, "p90": 2.8}


def test_as_many_layers_are_held_as_the_memory_takes_beside_the_buffer() -> None:
    layer, row = 10 * SMALL.expert_bytes, SMALL.expert_bytes
    assert layers_that_fit(SMALL, 10, 4 * layer + 2 * row) == 3
    assert layers_that_fit(SMALL, 10, 1e9) == SMALL.layers
    with pytest.raises(BenchError, match="give fewer --slots"):
        layers_that_fit(SMALL, 10, 3 * layer)


def held() -> HeldWeights:
    weights = HeldWeights(SMALL, 2, 4, 1, torch.device("cpu"))
    weights.fill(first_placement(2, 4))
    return weights


def test_weights_are_what_the_placement_says() -> None:
    for layer in range(2):
        held().check(layer, first_placement(2, 4), "filled")


def test_a_row_of_another_expert_is_found() -> None:
    with pytest.raises(BenchError, match="slot 5 of layer 0 does not hold expert 6"):
        held().check(0, np.array([0, 1, 2, 3, 4, 6, 5, 7]), "moved")


def test_a_row_of_another_layer_is_found() -> None:
    weights = held()
    weights.layers[0][1][3] = weights.layers[1][1][3]
    with pytest.raises(BenchError, match=r"slot 7 .* hold expert 7 \(tensor 1\)"):
        weights.check(0, first_placement(2, 4), "moved")


@pytest.mark.parametrize("byte", [0, 63])
def test_a_row_that_is_not_whole_is_found(byte: int) -> None:
    weights = held()
    weights.layers[1][0][2, byte] += 1
    with pytest.raises(BenchError, match="slot 6 of layer 1"):
        weights.check(1, first_placement(2, 4), "moved")


def measured(way: str, seconds: float, share: str = "all") -> Measured:
    times = {"p10": seconds / 2, "median": seconds, "p90": seconds * 2}
    return Measured(
        *(SMALL.name, share, 40, 40, 40_000_000, way, 5),
        seconds=dict.fromkeys(TIMED, times),
    )


TASK = Task(
    ranks=2,
    device="cuda",
    gpus=2,
    port=1,
    shapes=(SMALL,),
    ways=("gloo", "nixl", "peers"),
    slots=40,
    layers=2,
    rounds=5,
    seconds=1.0,
    link_bytes=8,
)
ANSWER = Answer(
    ["H200 (cuda:0)", "H200 (cuda:1)"],
    Rates(300e9, 1200e9),
    [measured("gloo", 0.05), measured("peers", 0.0005)],
    {SMALL.name: 2},
    {SMALL.name: {"nixl": "not installed"}},
)


def shown(answer: Answer, task: Task) -> str:
    console = Console(width=190, file=io.StringIO(), record=True)
    for table in transfer_tables(answer, task):
        console.print(table)
    console.print(link_line(answer, task))
    return console.export_text()


def test_a_table_has_each_way_with_its_rate_its_floor_and_what_it_saves() -> None:
    text = shown(ANSWER, TASK)
    [peers] = [line for line in text.splitlines() if "peers" in line]
    cells = [cell.strip() for cell in peers.strip("│ ").split("│")]
    # 40 MB in 0.5 ms; the floor is 0.167 ms.
    assert cells == ["peers", "0.5 [0.25 to 1]", "80", "0.5", "0.5 [0.25 to 1]", "0.5", "3", "100"]
    assert "all (40 of 40, 40 MB)" in text
    assert "nixl: not installed" in text
    assert "300 GB/s from a peer" in text
    assert "share one GPU" not in text


def test_ranks_that_share_a_gpu_are_said_to() -> None:
    assert "All 2 ranks share one GPU" in shown(ANSWER, replace(TASK, gpus=1))


def test_json_has_the_floor_of_every_row() -> None:
    [gloo, peers] = ANSWER.as_dict()["rows"]
    assert peers["share_of_floor"] == pytest.approx(1 / 3)
    assert peers["floor_seconds"] == gloo["floor_seconds"] == pytest.approx(1 / 6000)
    assert peers["bytes_a_second"] == pytest.approx(80e9)


def test_a_plot_is_drawn(tmp_path: Path) -> None:
    plot_transfers(ANSWER, TASK, tmp_path / "transfer.png")
    assert (tmp_path / "transfer.png").read_bytes().startswith(b"\x89PNG")


def test_every_rank_answers_and_none_is_left() -> None:
    answers = run_ranks(rank_jobs.answer, "task", 2, LIMIT)
    assert [answer[:2] for answer in answers] == [["task", 0], ["task", 1]]
    assert not any(Path(f"/proc/{process}").exists() for _, _, process in answers)


def test_what_ranks_print_stays_out_of_the_table(capfd: pytest.CaptureFixture[str]) -> None:
    run_ranks(rank_jobs.print_and_answer, None, 2, LIMIT)
    assert "gloo" not in capfd.readouterr().out


def test_a_rank_that_fails_is_named_with_what_it_did() -> None:
    with pytest.raises(BenchError, match=r"rank 1 failed \(LookupError: nothing there\) in: look"):
        run_ranks(rank_jobs.fail_on_rank_1, None, 2, LIMIT)


def test_a_rank_that_dies_is_named_and_not_the_one_that_fails_because_of_it() -> None:
    event = multiprocessing.get_context("spawn").Event()
    with pytest.raises(BenchError, match=r"rank 1 ended with exit code -9 in: moving; rank 0 in"):
        run_ranks(rank_jobs.die_on_rank_1, event, 2, LIMIT)


def test_what_a_rank_has_found_is_told_and_not_what_fails_because_of_it() -> None:
    event = multiprocessing.get_context("spawn").Event()
    with pytest.raises(BenchError, match=r"rank 1 failed \(expert 3 is not there\)"):
        run_ranks(rank_jobs.find_something_on_rank_1, event, 2, LIMIT)


def test_a_rank_that_says_nothing_ends_all() -> None:
    with pytest.raises(BenchError, match=r"rank 1 has said nothing for 8 s in: waiting"):
        run_ranks(rank_jobs.wait_for_ever_on_rank_1, None, 2, 8.0)


def test_ranks_end_with_the_command_however_it_ends() -> None:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    command = context.Process(target=rank_jobs.run_ranks_that_wait, args=(theirs,))
    command.start()
    theirs.close()
    try:
        for _ in range(2):
            assert ours.poll(LIMIT)
            ours.recv()
    finally:
        command.kill()
        command.join()
    assert ours.poll(LIMIT)
    with pytest.raises(EOFError):  # nobody has the other end any more
        ours.recv()


def test_what_a_killed_rank_has_left_in_shared_memory_is_removed() -> None:
    name = f"torch_{os.getpid()}_1_0"
    left, other = (Path("/dev/shm") / one for one in (name, f"torch_{os.getpid()}1_1_0"))
    for file in (left, other):
        file.touch()
    try:
        processes._forget_memory_of(os.getpid())
        assert not left.exists()
        assert other.exists()
    finally:
        for file in (left, other):
            file.unlink(missing_ok=True)
