# SPDX-License-Identifier: Apache-2.0
"""Whole runs of ``python -m eval`` against a stand-in for vLLM."""

import re
import signal
import socket
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as Xml

import pytest

from tests.builders.harness import Harness, gsm8k_task, small_config


@pytest.fixture
def harness(forked_harness: Harness) -> Harness:
    """Its runs come to their end by themselves."""
    return forked_harness


def test_equal_answers_with_all_evidence_are_the_same(harness: Harness) -> None:
    ended = harness.run()

    assert ended.returncode == 0, ended.stdout + ended.stderr
    result = harness.result()
    assert (result["verdict"], result["reasons"]) == ("passed", [])
    assert (result["versions"]["vllm"], result["versions"]["vllm_distribution"]) == (
        "0.33.0",
        "vllm",
    )
    off, sync, async_ = result["arms"]
    assert [arm["name"] for arm in result["arms"]] == ["off", "sync", "async"]
    for arm in result["arms"]:
        [task] = arm["tasks"]
        assert task["questions"] == task["identical_to_off"] == 12
        # Sums are 3, 5, ... 25: the stand-in gets the multiples of five wrong.
        assert task["accuracy"] == pytest.approx(9 / 12)
        # 12 answers, and two engines that each count 5 tokens for an answer.
        assert arm["tokens_per_second"] * arm["seconds"] == pytest.approx(120)
    assert off["rearrangements"] == off["weight_checks"] == 0
    for arm in (sync, async_):
        # One more happens before the first question and must not be counted.
        assert arm["rearrangements"] == 6
        assert arm["layers_committed"] == 24
        assert arm["slots_changed"] == [6, 6, 6, 6]
        # What is wrong counts whenever it is, so what is checked does, too.
        assert arm["weight_checks"] == 2 * 28 * 10
        assert arm["balancedness_before"] == 0.5
        assert arm["balancedness_expected"] == 0.75
    assert (sync["modes"], async_["modes"]) == (["sync"], ["async"])
    assert harness.workers_alive() == []


@pytest.mark.parametrize(("rounded", "verdict"), [(0.0, "passed"), (2**-20, "failed")])
def test_where_every_bit_counts_a_text_that_is_the_same_is_not_enough(
    rounded: float, verdict: str, harness: Harness
) -> None:
    gate = {**small_config()["gate"], "exact": True}
    config = small_config(tasks=[gsm8k_task(logprobs=True)], gate=gate)
    harness.run(config=config, sync={"rounded": rounded})

    result = harness.result()
    assert result["verdict"] == verdict, result["reasons"]
    assert [arm["tasks"][0]["identical_to_off"] for arm in result["arms"]] == [12, 12, 12]
    found = {rule["arm"]: rule["verdict"] for rule in result["rules"] if "exact" in rule["rule"]}
    assert found == {"sync": verdict, "async": "passed"}


def arms_of_two_policies() -> list[dict[str, Any]]:
    off, sync, _ = small_config()["arms"]
    planning = {"plugin": {"planning": {"policy": "incremental"}}, "eplb": sync["eplb"]}
    return [off, sync, {"name": "sync-incremental", "default": False, **planning}]


def test_an_arm_of_another_policy_is_asked_with_all_and_has_to_move_less(harness: Harness) -> None:
    gate = {**small_config()["gate"], "share_of_bytes": 0.5, "experts_received": 20}
    config = small_config(arms=arms_of_two_policies(), gate=gate)

    ended = harness.run("--arms", "all", config=config)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    [rule] = [one for one in harness.result()["rules"] if one["rule"] == "fewer_bytes"]
    assert rule["saw"].endswith("a share of 0.125")

    ignored = harness.run("--arms", "all", config=config, ignores_planning=True)
    assert ignored.returncode == 1
    failed = {one["rule"] for one in harness.result()["rules"] if one["verdict"] == "failed"}
    assert failed == {"policy", "fewer_bytes"}

    harness.run("--fresh", config=config)
    assert [arm["name"] for arm in harness.result()["arms"]] == ["off", "sync"]


def accuracies(output: str) -> list[list[str]]:
    """Task and arm of each row of the table of accuracies."""
    rows = [[cell.strip() for cell in line.split("│")[1:3]] for line in output.splitlines()]
    return [row for row in rows if row[:1] in (["gsm8k"], ["gsm_tiny"])]


def test_the_report_has_a_table_of_accuracies_and_the_counts(harness: Harness) -> None:
    ended = harness.run("--only", "sync")

    assert accuracies(ended.stdout) == [["gsm8k", "off"], ["gsm8k", "sync"]]
    assert "rearrangements" in ended.stdout
    assert "slots changed, a layer" in ended.stdout
    assert "small: passed" in ended.stdout


def test_a_run_leaves_its_report(harness: Harness) -> None:
    run = harness.run("--only", "sync")
    folder = harness.folder / "runs" / "small"

    assert "report: runs/small/report.html" in run.stdout
    assert 'class="verdict passed"' in (folder / "report.html").read_text(encoding="utf-8")
    markdown = (folder / "report.md").read_text(encoding="utf-8")
    assert markdown.startswith("## EPLB evaluation small: passed")


def test_a_run_that_could_not_go_on_leaves_its_report(harness: Harness) -> None:
    harness.run(sync={"die": "no memory"})

    text = (harness.folder / "runs" / "small" / "report.md").read_text(encoding="utf-8")
    assert text.startswith("## EPLB evaluation small: could not run")
    assert "arms that were not finished: sync, async" in text
    assert str(harness.folder) not in text


def test_every_task_is_asked_and_one_that_is_not_scored_is_left_out_of_the_table(
    harness: Harness,
) -> None:
    tiny = gsm8k_task(name="gsm_tiny", questions=3, scored=False)
    config = small_config(tasks=[gsm8k_task(), tiny])
    ended = harness.run("--only", "sync", config=config, sync={"wrong_sums": [7]})

    assert ended.returncode == 1, ended.stdout + ended.stderr
    sync = harness.result()["arms"][1]
    assert [task["name"] for task in sync["tasks"]] == ["gsm8k", "gsm_tiny"]
    assert [task["questions"] for task in sync["tasks"]] == [12, 3]
    assert [task["identical_to_off"] for task in sync["tasks"]] == [11, 3]
    assert set(harness.result()["task_hashes"]) == {"gsm8k", "gsm_tiny"}
    # Two questions a rearrangement, of both tasks.
    assert sync["rearrangements"] == 7
    assert accuracies(ended.stdout) == [["gsm8k", "off"], ["gsm8k", "sync"]]
    assert "identical, gsm_tiny" in ended.stdout
    assert "arm sync: 15 questions in" in ended.stdout


def test_a_committed_task_needs_no_gsm8k(harness: Harness) -> None:
    harness.environment["GSM8K_DIR"] = str(harness.folder / "nowhere")
    config = small_config(tasks=[gsm8k_task(name="gsm_tiny")])
    ended = harness.run("--only", "sync", config=config)

    # The stand-in can only add, and so few right answers show no loss.
    assert ended.returncode == 3, ended.stdout + ended.stderr
    assert [arm["tasks"][0]["questions"] for arm in harness.result()["arms"]] == [12, 12]


def test_only_keeps_the_arm_and_off(harness: Harness) -> None:
    harness.run("--only", "async")

    assert [arm["name"] for arm in harness.result()["arms"]] == ["off", "async"]


def test_what_no_answer_can_mend_is_told_before_a_server_starts(harness: Harness) -> None:
    gate = {**small_config()["gate"], "identical": False}
    ended = harness.run("--only", "sync", config=small_config(gate=gate))

    assert ended.returncode == 3
    first, *_ = ended.stdout.splitlines()
    assert first.startswith("this run cannot pass: no arm repeats arm off; it takes one arm")
    assert harness.result()["reasons"] == ["noise_floor: no arm repeats arm off"]


def test_a_different_answer_is_found(harness: Harness) -> None:
    ended = harness.run(**{"async": {"wrong_sums": [7, 9]}})

    assert ended.returncode == 1
    result = harness.result()
    assert result["verdict"] == "failed"
    assert result["reasons"][0] == (
        "identical_answers, arm async, gsm8k: 2 of 12 answers differ from arm off"
    )
    tasks = [arm["tasks"][0] for arm in result["arms"]]
    assert [task["identical_to_off"] for task in tasks] == [12, 12, 10]


def test_equal_answers_with_too_few_rearrangements_prove_nothing(harness: Harness) -> None:
    ended = harness.run("--only", "sync", rearrangements=3)

    assert ended.returncode == 3
    assert harness.result()["verdict"] == "not tested"
    assert "sync: 2 rearrangements finished" in harness.result()["reasons"][0]


def test_a_server_that_dies_at_start_shows_the_end_of_its_log(harness: Harness) -> None:
    ended = harness.run(sync={"die": "out of luck"})

    assert ended.returncode == 2
    assert re.search(
        r"arm sync: the server ended while it was starting, after \d+ s \(exit status 7\)",
        ended.stdout,
    )
    assert "line 39: out of luck" in ended.stdout
    assert "line 10: out of luck" in ended.stdout
    assert "line 9: out of luck" not in ended.stdout
    assert "runs/small/arms/sync/server.log" in ended.stdout
    assert harness.result()["verdict"] == "could not run"
    assert [arm["name"] for arm in harness.result()["arms"]] == ["off"]


def test_a_server_that_lost_a_port_to_another_is_started_again(harness: Harness) -> None:
    died = ["name: EADDRINUSE", "address already in use"]
    ended = harness.run("--only", "sync", sync={"die": died})

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.count("arm sync: a port of the server was taken, starting it again") == 2
    assert harness.workers_alive() == []


def test_a_server_that_keeps_losing_ports_is_given_up(harness: Harness) -> None:
    ended = harness.run(sync={"die": "[Errno 98] Address already in use"})

    assert ended.returncode == 2
    assert ended.stdout.count("starting it again") == 2
    assert re.search(
        r"arm sync: the server ended while it was starting, after \d+ s \(exit status 7\)",
        ended.stdout,
    )


def test_a_server_that_lost_a_port_and_then_dies_of_something_else_is_given_up(
    harness: Harness,
) -> None:
    ended = harness.run(sync={"die": ["Address already in use", "out of luck"]})

    assert ended.returncode == 2
    assert ended.stdout.count("starting it again") == 1
    assert "line 39: out of luck" in ended.stdout


def test_a_server_that_never_gets_healthy_is_given_up(harness: Harness) -> None:
    ended = harness.run("--set", "serve.start_timeout=5", seconds_to_start=60)

    assert ended.returncode == 2
    assert "not healthy after serve.start_timeout, 5 s" in ended.stdout
    assert harness.workers_alive() == []


def test_a_server_that_hangs_keeps_earlier_arms(harness: Harness) -> None:
    ended = harness.run("--set", "tasks.gsm8k.request_timeout=5", sync={"hang_after": 5})

    assert ended.returncode == 2
    assert "arm sync: the server stopped answering" in ended.stdout
    assert re.search(r"gsm8k, question \d+: no answer within request_timeout, 5 s", ended.stdout)
    assert "Traceback" not in ended.stdout + ended.stderr
    assert [arm["name"] for arm in harness.result()["arms"]] == ["off"]
    assert harness.workers_alive() == []


def test_a_server_that_crashes_while_asked_shows_the_end_of_its_log(harness: Harness) -> None:
    ended = harness.run(sync={"exit_after": 5})

    assert ended.returncode == 2
    assert "arm sync: the server stopped answering" in ended.stdout
    assert "exit status 3" in ended.stdout
    assert "RuntimeError: the engine core died" in ended.stdout
    assert harness.workers_alive() == []


def test_one_question_at_a_time_hangs_no_longer_than_many(harness: Harness) -> None:
    hangs = {"hang_after": 2}
    limits = ["tasks.gsm8k.concurrency=1", "tasks.gsm8k.request_timeout=2"]
    ended = harness.run(*(part for one in limits for part in ("--set", one)), off=hangs)

    assert ended.returncode == 2
    assert "arm off: the server stopped answering" in ended.stdout


def test_a_taken_port_is_refused_before_anything_starts(harness: Harness) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ended = harness.run("--set", f"serve.port={port}")

    assert ended.returncode == 2
    assert f"serve.port {port}" in ended.stderr
    assert not (harness.folder / "runs").exists()


def test_missing_questions_say_where_to_get_them(harness: Harness) -> None:
    harness.environment["GSM8K_DIR"] = str(harness.folder / "nowhere")
    ended = harness.run()

    assert ended.returncode == 2
    assert "nowhere/train.jsonl" in ended.stderr
    assert "Set GSM8K_DIR to a folder" in ended.stderr


def test_an_arm_with_the_plugin_off_is_judged_by_vllm_s_log(harness: Harness) -> None:
    stock = {
        "name": "stock-async",
        "plugin": {"enabled": False, "check_weights": False},
        "eplb": {"window_size": 10, "step_interval": 10, "use_async": True},
    }
    ended = harness.run(config=small_config(arms=[{"name": "off"}, stock]))

    assert ended.returncode == 0, ended.stdout + ended.stderr
    arm = harness.result()["arms"][1]
    # One more began before the first question and must not be counted.
    assert (arm["logged_rearrangements"], arm["rearrangements"]) == (6, 0)


def test_a_run_that_lacks_something_says_so_in_junit(harness: Harness) -> None:
    harness.install(works=False, problems=["vLLM 0.17.1 is not supported"])
    ended = harness.run("--junit", "junit.xml")

    assert ended.returncode == 2
    suite = Xml.parse(harness.folder / "junit.xml").getroot()
    assert (suite.get("tests"), suite.get("errors")) == ("1", "1")
    error = suite.find("testcase/error")
    assert error is not None
    assert "vLLM 0.17.1 is not supported" in str(error.text)


def test_a_run_is_judged_again_and_written_as_junit(harness: Harness) -> None:
    ended = harness.run("--only", "sync", "--junit", "first.xml")
    assert ended.returncode == 0, ended.stdout + ended.stderr

    again = harness.evaluate("gate", "runs/small", "--junit", "again.xml")
    assert again.returncode == 0, again.stdout + again.stderr
    first, second = ((harness.folder / name).read_text() for name in ("first.xml", "again.xml"))
    assert first == second
    assert 'name="identical_answers [sync, gsm8k]"' in first

    (harness.folder / "strict.yaml").write_text("{identical: true, margin_points: 1}")
    strict = harness.evaluate("gate", "runs/small", "--gate", "strict.yaml", "--junit", "s.xml")
    assert strict.returncode == 3
    assert "small: not tested" in strict.stdout
    assert 'failures="1"' in (harness.folder / "s.xml").read_text()

    (harness.folder / "runs/small/arms/sync/arm.json").unlink()
    broken = harness.evaluate("gate", "runs/small")
    assert broken.returncode == 2
    assert "arm sync is missing" in broken.stderr


def test_what_the_paired_test_can_detect_is_printed(harness: Harness) -> None:
    ended = harness.evaluate("power", "--margin", "3", "--alpha", "0.005")

    assert ended.returncode == 0, ended.stderr
    [row] = [row for row in ended.stdout.splitlines() if row.startswith("| 1319 | 5% |")]
    assert row.split(" | ")[2:] == [
        "0.4 / 0.4", "14.2 / 14.3", "72.9 / 73.0", "99.3 / 99.3", "100.0 / 100.0",
        "100.0 / 100.0", "2.1 |",
    ]  # fmt: skip


def test_an_unknown_key_names_the_nearest(harness: Harness) -> None:
    config = small_config(gate={"rearangements": 5})
    ended = harness.run(config=config)

    assert ended.returncode == 2
    assert "gate.rearangements: unknown key, the nearest is 'rearrangements'" in ended.stderr


def test_a_missing_model_folder_says_how_to_make_it(harness: Harness) -> None:
    ended = harness.run("--set", "model=build/tiny-moe")

    assert ended.returncode == 2
    assert "scripts/make_tiny_moe.py --output build/tiny-moe" in ended.stderr


def test_answers_unlike_those_of_transformers_are_different(
    harness: Harness, tiny_llama: Path
) -> None:
    config = small_config(model=str(tiny_llama), oracle={"prompts": 2})
    ended = harness.run("--only", "sync", config=config)

    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert harness.result()["oracle"]["prompts"] == 2
    assert harness.result()["oracle"]["different"] == [0, 1]
    assert harness.result()["reasons"][0].startswith(
        "oracle_answers, arm off: 2 of 2 answers of arm off differ"
    )


def _interrupt_arm(harness: Harness, arm: str, signal_number: int) -> tuple[int, str]:
    """Start, send a signal once ``arm`` is being asked; exit code and output."""
    process = harness.start(**{arm: {"seconds_per_request": 1}})
    ask_log = harness.folder / "runs/small/arms" / arm / "ask.log"
    deadline = time.monotonic() + 60
    while not ask_log.exists():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal_number)
    output, errors = process.communicate(timeout=60)
    assert "Traceback" not in output + errors
    return process.returncode, output


@pytest.mark.usefixtures("default_signals")
@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_nothing_running_and_is_resumed(
    harness: Harness, signal_number: int
) -> None:
    code, output = _interrupt_arm(harness, "sync", signal_number)

    assert code == 2
    assert "interrupted during arm sync; the same command resumes there" in output
    assert harness.workers_alive() == []
    assert harness.result()["verdict"] == "interrupted"
    assert [arm["name"] for arm in harness.result()["arms"]] == ["off"]
    first_start = harness.result()["started"]

    resumed = harness.run()

    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert "arm off: finished before, not asked again" in resumed.stdout
    assert harness.result()["verdict"] == "passed"
    assert harness.result()["started"] == first_start
    assert [path.name for path in (harness.folder / "runs").glob("small*")] == ["small"]


def test_servers_that_start_together_give_the_same_result(harness: Harness) -> None:
    ended = harness.run("--servers-at-once", "2")

    assert ended.returncode == 0, ended.stdout + ended.stderr
    lines = [line for line in ended.stdout.splitlines() if line.startswith("arm ")]
    assert [line.split(":")[0] for line in lines] == [
        *["arm off"] * 2,
        *["arm sync"] * 2,
        *["arm async"] * 2,
    ]
    assert [arm["name"] for arm in harness.result()["arms"]] == ["off", "sync", "async"]


def test_nothing_is_asked_before_all_servers_that_start_together_are_ready(
    harness: Harness,
) -> None:
    harness.run("--servers-at-once", "3", sync={"die": "no memory"})

    assert harness.result()["arms"] == []


def test_servers_that_start_together_cannot_share_a_port(harness: Harness) -> None:
    config = small_config()
    config["serve"]["port"] = 4321
    ended = harness.run("--servers-at-once", "2", config=config)

    assert ended.returncode == 2
    assert "they cannot all listen on serve.port 4321" in ended.stderr


def test_a_task_that_cannot_be_asked_and_is_not_scored_is_left_out_everywhere(
    harness: Harness,
) -> None:
    questions = harness.environment["GSM8K_DIR"]
    harness.environment["GSM8K_DIR"] = str(harness.folder / "nowhere")
    # First, so that whatever looks at the first task would look at it.
    # The stand-in has no answer of gsm_tiny right, so no loss of accuracy could show.
    tasks = [gsm8k_task(scored=False), gsm8k_task(name="gsm_tiny", scored=False)]
    config = small_config(tasks=tasks, gate={**small_config()["gate"], "margin_points": None})
    ended = harness.run("--only", "sync", "--junit", "junit.xml", config=config)

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert re.match(
        "gsm8k: left out, it is not scored. cannot read questions from .*Set GSM8K_DIR.*Hub\n",
        ended.stdout,
    )
    assert re.search(r"identical, gsm8k\W+left out\W+left out", ended.stdout)
    result = harness.result()
    assert list(result["left_out"]) == ["gsm8k"]
    assert [task["name"] for task in result["arms"][1]["tasks"]] == ["gsm_tiny"]
    assert [task["name"] for task in result["config"]["tasks"]] == ["gsm8k", "gsm_tiny"]
    note = "gsm8k: left out, it is not scored. cannot read questions from"
    assert note in (harness.folder / "junit.xml").read_text()
    for report in ("report.md", "report.html"):
        text = (harness.folder / "runs/small" / report).read_text(encoding="utf-8")
        assert "gsm8k: left out, it is not scored." in text

    harness.environment["GSM8K_DIR"] = questions
    harness.run("--only", "sync", "--name", "whole", config=config)
    judged = harness.evaluate("gate", "runs/whole", "runs/small")
    assert "gsm8k: left out, it is not scored. run small left it out." in judged.stdout
    both = harness.evaluate("report", "runs/whole", "runs/small", "--markdown", "both.md")
    assert both.returncode == 0, both.stderr
    text = (harness.folder / "both.md").read_text(encoding="utf-8")
    assert "- small: gsm8k: left out, it is not scored." in text


def test_a_run_does_not_go_on_without_questions_that_its_first_arms_were_asked(
    harness: Harness,
) -> None:
    tasks = [gsm8k_task(name="gsm_tiny"), gsm8k_task(scored=False)]
    harness.run(config=small_config(tasks=tasks), sync={"die": "no memory"})
    harness.environment["GSM8K_DIR"] = str(harness.folder / "nowhere")
    ended = harness.run(config=small_config(tasks=tasks))

    assert ended.returncode == 2
    assert "its finished arms were asked gsm8k, and the others cannot be" in ended.stderr
    assert [path.name for path in (harness.folder / "runs").glob("small*")] == ["small"]


def test_why_a_server_died_is_in_all_reports(harness: Harness) -> None:
    words = f"x <module> {'long ' * 60}"
    log = (
        f"Traceback (most recent call last):\n"
        f'  File "/srv/site-packages/vllm/a.py", line 3, in __init__\n'
        f"    raise ValueError(x)\n"
        f"ValueError: {words}"
    )
    ended = harness.run("--junit", "junit.xml", sync={"die_with": log})

    told = f"ValueError: {words.strip()}, raised at vllm/a.py:3 in __init__"
    assert told in ended.stdout
    suite = Xml.parse(harness.folder / "junit.xml").getroot()
    error = suite.find("testcase/error")
    assert error is not None
    assert told in error.get("message", "")
    folder = harness.folder / "runs/small"
    markdown = (folder / "report.md").read_text(encoding="utf-8")
    assert "raised at vllm/a.py:3 in \\_\\_init\\_\\_" in markdown
    assert '  ```text\n  Its log: runs/small/arms/sync/server.log, line 4:\n    File "' in markdown
    html = (folder / "report.html").read_text(encoding="utf-8")
    assert "<pre>Its log: runs/small/arms/sync/server.log, line 4:\n  File" in html
