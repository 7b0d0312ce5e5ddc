# SPDX-License-Identifier: Apache-2.0
"""The whole throughput benchmark, with the stand-in for vLLM."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result as Done
from typer.testing import CliRunner

from eval.cli import app
from eval.commands import throughput_arms
from eval.commands.latency_model import WEIGHTS
from eval.results.folder import read_result
from eval.results.schema import ArmRun, Result
from eval.serving.served_arm import ServedArm
from tests.builders.harness import Harness

SMALL = ["--gpus", "0", "--moe-layers", "1", "--experts", "8", "--redundant", "2"]
QUICK = ["--completions", "4", "--streams", "2", "--tokens", "4", "--prompt-tokens", "32"]
DECODE = ["--traffic", "decode", "--load", "switching", "--turn", "1"]


def arm_options(*names: str) -> list[str]:
    return [option for name in names for option in ("--arm", name)]


@pytest.fixture
def command(
    harness: Harness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Done]:
    """The whole command with the stand-in, which answers as ``behaviour`` says."""

    def run(*options: str, **behaviour: Any) -> Done:
        for name, value in {**harness.environment, "FAKE_VLLM": json.dumps(behaviour)}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(throughput_arms, "DELIVERY_SECONDS", 0)
        monkeypatch.setattr(
            "eval.commands.throughput.find_executable", lambda _: str(harness.executable)
        )
        monkeypatch.chdir(tmp_path)
        done = CliRunner().invoke(app, ["throughput", *options])
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done

    return run


@pytest.fixture
def up(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Notes when servers start and which are asked."""
    noted: list[str] = []
    init, ask = ServedArm.__init__, throughput_arms.ThroughputRun._ask

    def starting(self: ServedArm, *told: Any, **more: Any) -> None:
        init(self, *told, **more)
        noted.append(f"+{self.arm.name}")

    def asking(self: Any, one: ServedArm, traffic: Any, number: int, group: int) -> Any:
        noted.append(f"{one.arm.name} {number}")
        return ask(self, one, traffic, number, group)

    monkeypatch.setattr(ServedArm, "__init__", starting)
    monkeypatch.setattr(throughput_arms.ThroughputRun, "_ask", asking)
    return noted


def verdicts(result: Result) -> dict[tuple[str, str], str]:
    return {(rule.arm or "", rule.rule): rule.verdict for rule in result.rules}


def arm_of(result: Result, name: str) -> ArmRun:
    return next(arm for arm in result.arms if arm.name == name)


def test_every_arm_is_asked_the_same_in_every_round(
    command: Callable[..., Done], tmp_path: Path
) -> None:
    names = ("off", "stock-async", "async-incremental", "warm")
    plot = ["--plot", str(tmp_path / "plot.png"), "--json", str(tmp_path / "copy.json")]
    options = [*SMALL, *QUICK, "--load", "drifting", *arm_options(*names)]
    done = command(*options, *plot, "--servers-at-once", "6")
    found = read_result(tmp_path / "runs/throughput")
    assert (found.kind, [arm.name for arm in found.arms]) == ("throughput", list(names))
    asked = found.throughput
    assert asked is not None and asked.recorded_by == "async-incremental"
    assert [one.name for one in asked.traffics] == ["decode-drifting", "prefill-drifting"]
    for arm in found.arms:
        groups = 2 if arm.name == "off" else 1
        assert len(arm.throughput) == 2 * 3 * groups
        assert {one.whole for one in arm.throughput} == {4}
        for one in arm.throughput:
            decodes = one.traffic == "decode-drifting"
            read_and_generated = (one.prompt_tokens, one.generated_tokens)
            assert read_and_generated == ((4 * 16, 4 * 4) if decodes else (4 * 32, 4 * 8))
            assert one.first_token is not None and one.between_tokens is not None
            assert one.front_end is not None and one.front_end >= 0
    incremental, stock = arm_of(found, "async-incremental"), arm_of(found, "stock-async")
    assert any(one.balancedness == 0.5 for one in incremental.throughput)
    assert sum(one.bytes_received or 0 for one in incremental.throughput) > 0
    assert {one.balancedness for one in stock.throughput} == {None}
    seen = verdicts(found)
    assert all(seen[name, "answered"] == "passed" for name in names)
    assert seen["off", "no_rearrangements"] == seen["warm", "no_rearrangements"] == "passed"
    assert seen["async-incremental", "rearrangements_began"] == "passed"
    assert ("async-incremental", "beats_stock") in seen
    assert ("async-incremental", "no_loss") not in seen, "traffic is not balanced"
    assert "times off" in done.output and "decode-drifting" in done.output
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((tmp_path / "copy.json").read_text())["kind"] == "throughput"
    text = (tmp_path / "runs/throughput/report.md").read_text()
    assert "| tokens a second |" in text and "python -m eval throughput --arm off" in text
    page = (tmp_path / "runs/throughput/report.html").read_text()
    assert "EPLB throughput run" in page and "weights received" in page
    model = tmp_path / "runs/throughput/model"
    assert [file.name for file in model.glob("*.json")] and not (model / WEIGHTS).exists()
    again = CliRunner().invoke(app, ["report", str(tmp_path / "runs/throughput")])
    assert "times off" in again.output


def test_off_stays_up_and_turns_are_rotated_and_what_records_ends_before_warm_starts(
    command: Callable[..., Done], up: list[str], tmp_path: Path
) -> None:
    options = [*SMALL, *QUICK, *DECODE, "--tokens", "64", *arm_options("off", "async", "warm")]
    command(*options, "--repeats", "2", "--servers-at-once", "3")
    first = ["+off", "off 0", "+async", "async 0", "async 1", "off 1", "off 2", "async 2"]
    second = ["+warm", "warm 0", "warm 1", "off 1", "off 2", "warm 2"]
    assert up == [*first, *second]
    off = arm_of(read_result(tmp_path / "runs/throughput"), "off")
    assert [(one.group, one.round) for one in off.throughput] == [(1, 1), (1, 2), (2, 1), (2, 2)]
    # Of completions of 64 tokens every other one is streamed.
    for one in off.throughput:
        assert one.generated_tokens == 4 * 64 and one.whole == 4
        assert one.first_token is not None and one.first_token.count == 2


def test_balanced_traffic_is_judged_by_the_loss_that_is_excluded(
    command: Callable[..., Done], tmp_path: Path
) -> None:
    options = [*SMALL, *QUICK, *DECODE, *arm_options("off", "async-incremental")]
    slow = {"async": {"seconds_per_request": 0.2}, "seconds_per_request": 0.05}
    done = command(*options, "--skew", "0", "--servers-at-once", "2", **slow)
    found = verdicts(read_result(tmp_path / "runs/throughput"))
    assert found["async-incremental", "no_loss"] == "failed"
    assert found["async-incremental", "beats_stock"] == "not tested"
    assert done.exit_code == 1


def test_a_trained_model_is_asked_texts_of_its_domains(
    command: Callable[..., Done], tmp_path: Path
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text('{"n_routed_experts": 64}')
    (tmp_path / "code.txt").write_text("def one():\nreturn 1\n")
    options = ["--gpus", "0", "--model", "model", "--prompts", "code=code.txt", *arm_options("off")]
    command(*options, *QUICK, "--load", "skewed", "--repeats", "1")
    found = read_result(tmp_path / "runs/throughput")
    asked = found.throughput
    assert asked is not None and (asked.shape, asked.skew, asked.domains) == (None, None, ["code"])
    decode, prefill = arm_of(found, "off").throughput
    assert decode.prompt_tokens < 4 * len("def one():") + 1
    assert prefill.prompt_tokens == 4 * 3 * 32
    assert not (tmp_path / "runs/throughput/model").exists()
    text = (tmp_path / "runs/throughput/report.md").read_text()
    assert "--model model --prompts code=FILE" in text


def test_a_server_that_dies_says_why_and_the_groups_before_it_are_kept(
    command: Callable[..., Done], tmp_path: Path
) -> None:
    options = [*SMALL, *QUICK, *DECODE, *arm_options("off", "async"), "--repeats", "1"]
    done = command(*options, **{"async": {"die_with": "ValueError: out of memory"}})
    found = read_result(tmp_path / "runs/throughput")
    assert (found.verdict, [arm.name for arm in found.arms]) == ("could not run", ["off"])
    assert "out of memory" in found.reasons[0]
    assert done.exit_code == 2


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        (["--arm", "warm", "--arm", "stock-async"], "--arm warm begins by loads"),
        (["--arm", "off", "--arm", "off"], "--arm off, off: each has one folder"),
        (["--experts", "8", "--redundant", "3"], "are 11 slots, which 2 ranks cannot share"),
        (["--streams", "3"], "--streams 3 cannot be shared evenly by 2 ranks"),
        (["--graphs"], "CUDA graphs cannot capture loopback's collectives"),
        (["--prompts", "code=code.txt"], "a random model has domains of its own"),
        (["--model", "nowhere"], "--model nowhere is no folder of a model"),
        (["--model", "nowhere", "--skew", "1"], "--skew belongs to a random model"),
        (["--model", "nowhere", "--shape", "wide"], "--shape belongs to a random model"),
        (["--prompt-tokens", "20000"], "up to 20008 tokens, and the model takes 16384"),
        (["--skew", "inf"], "--skew inf: give a number that is finite"),
        (["--plot", "plot.bmp"], "its name has to end with one of"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_starts(
    options: list[str], rule: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eval.commands.throughput.find_executable", lambda _: "vllm")
    monkeypatch.setattr(
        "eval.commands.throughput_run.ThroughputRun", lambda *_: pytest.fail("started")
    )
    folder = ["--folder", str(tmp_path / "throughput")]
    done = CliRunner().invoke(app, ["throughput", "--gpus", "0", *options, *folder])
    assert rule in str(done.exception)
    assert not list(tmp_path.iterdir())
