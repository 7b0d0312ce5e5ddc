# SPDX-License-Identifier: Apache-2.0
"""Whatever is edited in a kept run: none passes that did not, and none that passed passes still."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from eval.config.schema import Config
from eval.errors import EvaluationError
from eval.judging.kept import judge_kept
from tests.builders.edits import edit_run, renew_digests
from tests.builders.harness import small_config
from tests.builders.kept import answers, as_schema_4, write_events, write_kept_run
from tests.builders.run_to_judge import gate

EDITS = 200


def verdict(run: Path) -> str:
    """In a word; what has none is refused with a message."""
    try:
        return judge_kept([run]).verdict
    except EvaluationError:
        return "none"


def lost_answers(runs: Path) -> Path:
    lost = answers(Config.model_validate(small_config()), lost=[3, 4, 5])
    return write_kept_run(runs, given={"async": lost})


def wrong_weights(runs: Path) -> Path:
    return write_kept_run(runs, mismatched=["sync"])


def too_few_rearrangements(runs: Path) -> Path:
    return write_kept_run(runs, gate=gate(rearrangements=7))


def eplb_in_off(runs: Path) -> Path:
    """The command, the log and the events of ``off`` all tell of it."""

    def turn_on(here: Path, began: float) -> list[str]:
        log = here / "server.log"
        log.write_text(log.read_text() + "INFO Rearranging experts (sync mode) ...\n" * 6)
        write_events(here / "events", "sync", began)
        return ["--enable-epl"]

    return write_kept_run(runs, off=turn_on)


FAULTS = (lost_answers, wrong_weights, too_few_rearrangements, eplb_in_off)


@pytest.mark.parametrize("schema", [4, 5])
@pytest.mark.parametrize("write", FAULTS)
@pytest.mark.parametrize("renew", [False, True])
def test_no_edit_makes_a_run_pass_that_does_not(
    tmp_path: Path, write: Callable[[Path], Path], schema: int, renew: bool
) -> None:
    run = write(tmp_path)
    if schema == 4:
        as_schema_4(run)
    assert verdict(run) in ("failed", "not tested")
    for seed in range(EDITS // len(FAULTS)):
        edited = tmp_path / f"edited{seed}"
        shutil.copytree(run, edited)
        done = edit_run(edited, seed)
        if renew:
            renew_digests(edited)
        assert verdict(edited) != "passed", f"seed {seed}: {done}"
        shutil.rmtree(edited)


def test_no_edit_of_a_run_that_passed_leaves_it_passed(tmp_path: Path) -> None:
    run = write_kept_run(tmp_path)
    assert verdict(run) == "passed"
    for seed in range(EDITS):
        edited = tmp_path / f"edited{seed}"
        shutil.copytree(run, edited)
        done = edit_run(edited, seed)
        assert verdict(edited) != "passed", f"seed {seed}: {done}"
        shutil.rmtree(edited)


def test_a_copy_with_renewed_digests_is_whole(tmp_path: Path) -> None:
    run = write_kept_run(tmp_path)
    log = run / "arms/sync/server.log"
    log.write_text(log.read_text() + "INFO one line more\n")
    assert verdict(run) == "none"
    renew_digests(run)

    assert verdict(run) == "passed"
    assert json.loads((run / "result.json").read_text())["verdict"] == "not tested"
