# SPDX-License-Identifier: Apache-2.0
"""Which test runs a documented command, for those whose page does not say that they need GPUs."""

import re
from collections.abc import Sequence

from tests.builders.command_parsing import SHELL
from tests.builders.pages import REPOSITORY

HERE = "tests/unit/scripts/test_documented_runs.py::test_cheap_commands_of_a_page_work"

_BENCH = "tests/releases/test_bench.py::test_"
_E2E = "tests/e2e/test_"
_HARNESS = "tests/harness/test_"
_UNIT = "tests/unit/test_"

RUN_BY = {
    "vllm-eplb advise": HERE,
    "vllm-eplb bench commit": f"{_BENCH}a_commit_is_measured_for_both_and_written",
    "vllm-eplb bench plan": HERE,
    "vllm-eplb bench schedule": HERE,
    "vllm-eplb bench simulation": HERE,
    "vllm-eplb bench step": f"{_BENCH}a_step_is_measured_for_both_in_every_mode",
    "vllm-eplb bench transfer": f"{_BENCH}a_transfer_is_measured_by_every_way_that_there_is",
    "vllm-eplb convert": HERE,
    "vllm-eplb ctl": f"{_E2E}control.py::"
    "test_an_operator_acts_under_load_and_a_stopped_engine_is_named",
    "vllm-eplb doctor": f"{_UNIT}commands.py::"
    "test_doctor_checks_the_settings_that_servers_are_to_get",
    "vllm-eplb explain": "tests/releases/test_explain.py::"
    "test_only_one_kind_is_told_if_it_is_asked_for",
    "vllm-eplb recording": HERE,
    "vllm-eplb simulate": HERE,
    "vllm-eplb status": f"{_UNIT}control_command.py::"
    "test_status_says_in_about_ten_lines_how_a_well_server_is",
    'vllm serve ... "control":': f"{_E2E}control.py::"
    "test_an_operator_acts_under_load_and_a_stopped_engine_is_named",
    'vllm serve ... "metrics":': f"{_E2E}metrics.py::"
    "test_figures_are_on_the_page_and_go_up_as_experts_move",
    'vllm serve ... "recording":': f"{_E2E}recording.py::"
    "test_what_is_planned_again_was_served_and_the_next_server_begins_with_it",
    'vllm serve ... "initial":': f"{_E2E}recording.py::"
    "test_what_is_planned_again_was_served_and_the_next_server_begins_with_it",
    # In loopback, with gsm-tiny; the arms of the preset cpu have all of these options.
    "vllm serve": "ci/30-eval: scripts/eval-cpu --quick --arms all",
    "python -m eval check": f"{_HARNESS}preflight.py::"
    "test_check_prints_what_it_found_and_starts_nothing",
    "python -m eval faults": f"{_HARNESS}fault_table.py::"
    "test_faults_strike_one_after_another_and_are_tabulated",
    "python -m eval gate": HERE,
    "python -m eval latency ... --load switching": f"{_HARNESS}latency.py::"
    "test_arms_that_switch_are_checked_after_all_that_are_timed",
    "python -m eval latency": f"{_HARNESS}latency.py::"
    "test_a_run_in_which_experts_moved_where_they_should_passes",
    "python -m eval power": HERE,
    "python -m eval report": HERE,
    "python -m eval run ... --control": f"{_HARNESS}controlled_runs.py::"
    "test_a_run_with_controls_passes_only_if_all_are_caught",
    "python -m eval run ... exact-cpu": f"{_HARNESS}run.py::"
    "test_where_every_bit_counts_a_text_that_is_the_same_is_not_enough",
    "python -m eval run ... --api-key-env": f"{_HARNESS}elsewhere.py::"
    "test_a_run_over_url_only_passes_by_the_events_of_its_servers",
    "python -m eval run": "ci/30-eval: scripts/eval-cpu --quick --arms all",
    "python -m eval stress ... --soak": f"{_HARNESS}soak.py::"
    "test_requests_of_all_lengths_come_and_are_broken_off_and_things_happen",
    "python -m eval stress": f"{_HARNESS}stress.py::test_an_arm_under_load_passes",
    "python -m eval throughput": f"{_HARNESS}throughput.py::"
    "test_every_arm_is_asked_the_same_in_every_round",
    "python -m pytest": "ci/20-test: scripts/test",
    "python -m scripts.gsm_tiny_problems": "tests/unit/eval/test_problems.py::"
    "test_the_committed_problems_are_those_that_the_command_prints",
    "python -m tests.builders.runs": "tests/unit/eval/test_view.py::"
    "test_terminal_and_files_tell_the_same_accuracies",
    "python -m tests.releases.many_rearrangements": "tests/releases/test_counting.py::"
    "test_it_goes_on_with_the_releases_that_were_not_counted",
    "python scripts/ask_in_turns.py": f"{_UNIT}ask_in_turns.py::"
    "test_kinds_are_asked_in_turns_of_the_served_model",
    "python scripts/train_gsm_mid.py": f"{_UNIT}train_gsm_mid.py::"
    "test_a_training_that_is_out_of_time_goes_on_to_the_same_weights",
    "python scripts/train_tiny_moe.py": f"{_UNIT}train_tiny_moe.py::"
    "test_a_stopped_training_goes_on_to_the_same_weights",
    "python scripts/write_prompts.py": "tests/unit/scripts/test_write_prompts.py::"
    "test_what_is_written_is_read_as_prompts",
    "scripts/check-new-release": "tests/unit/scripts/test_new_release.py::"
    "test_each_new_release_has_a_report_and_the_worst_decides",
    "scripts/setup": "tests/unit/scripts/test_python.py::"
    "test_what_is_set_up_is_left_alone_and_keeps_its_python",
    "scripts/test-wheel": ".github/workflows/cpu.yml: scripts/test-wheel",
    "pip install": "scripts/test-wheel: uv pip install",
    "pip uninstall": "scripts/test-wheel: uv pip uninstall",
    "pip wheel": "scripts/test-wheel: uv build",
    "curl ... /metrics": f"{_E2E}metrics.py::"
    "test_figures_are_on_the_page_and_go_up_as_experts_move",
}
"""By the beginning of a command, and behind dots what else stands in it: ``FILE::TEST``, or
``FILE: TEXT`` for a step of a CI. The first that fits counts."""


def run_by(words: Sequence[str]) -> str | None:
    """What runs a command, such as a step in ``ci/``; None: nothing does.

    What every shell has needs nothing.
    """
    if words[0] in SHELL:
        return "every shell"
    line = " ".join(words)
    for command, by in RUN_BY.items():
        beginning, _, inside = command.partition(" ... ")
        if f"{line} ".startswith(f"{beginning} ") and inside in line:
            return by
    steps = sorted((REPOSITORY / "ci").glob("[0-9]*"))
    return next((one.name for one in steps if words[0] in one.read_text().split()), None)


def is_there(by: str) -> bool:
    """Whether there is the test, or the step with its text."""
    file, colons, test = by.partition("::")
    if colons:
        path = REPOSITORY / file
        return path.is_file() and bool(re.search(rf"^def {test}\b", path.read_text(), re.M))
    file, _, text = by.partition(": ")
    return (REPOSITORY / file).is_file() and text in (REPOSITORY / file).read_text()
