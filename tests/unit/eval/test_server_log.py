# SPDX-License-Identifier: Apache-2.0
"""Which lines of vLLM's log tell of a rearrangement."""

from pathlib import Path

from eval.activity.vllm_log import LogTail, count_rearrangements

# As 0.18.0 to 0.33.0 print them.
BEFORE = (
    "(EngineCore_DP0 pid=7) INFO 11-25 07:52:01 [eplb_state.py:786] "
    "Rearranging experts sync mode (profile)...\n"
    "INFO [eplb_state.py:958] Rearranged experts  (profile)  in 0.00 s.\n"
    "INFO [eplb_state.py:786] Rearranging experts sync mode ...\n"
)
AFTER = (
    "INFO [eplb_state.py:786] Rearranging experts sync mode ...\n"
    "INFO [eplb_state.py:958] Rearranged experts   in 0.12 s.\n"
    "INFO [eplb_state.py:786] Rearranging experts (async mode) ...\n"
    "INFO 127.0.0.1 - POST /v1/completions\n"
)


def test_beginnings_after_a_position_count_and_profiling_does_not(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    log.write_text(BEFORE + AFTER)

    assert count_rearrangements(log) == 3
    assert count_rearrangements(log, len(BEFORE)) == 2


def test_a_log_that_is_being_written_is_counted_line_by_line(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    log.write_text(BEFORE)
    tail = LogTail(log, log.stat().st_size)
    assert tail.rearrangements() == 0

    for piece, count in ((AFTER[:70], 1), (AFTER[70:150], 1), (AFTER[150:], 2), ("", 2)):
        with log.open("a") as file:
            file.write(piece)
        assert tail.rearrangements() == count
