# SPDX-License-Identifier: Apache-2.0
"""When a run is resumed, and that nothing is lost when it is not."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eval.config.schema import Config
from eval.errors import RunFolderError
from eval.load.questions import SEEDS
from eval.results.folder import open_run, read_result
from eval.results.machine import plugin_digest, this_machine
from eval.results.schema import Result, Verdict
from eval.results.surroundings import Versions
from tests.builders.arms import VERSIONS, arm, samples
from tests.builders.harness import gsm8k_task, small_config


def config(**changes: Any) -> Config:
    return Config.model_validate(small_config(**changes))


def start(runs: Path, verdict: Verdict | None) -> None:
    """A run that finished arm ``off`` and ended with ``verdict``, or was killed before one."""
    with open_run(runs, config(), VERSIONS, fresh=False) as folder:
        folder.new_arm_folder("off")
        folder.finish_arm(arm("off"), samples())
        if verdict is not None:
            folder.finish(
                Result(
                    name="small", verdict=verdict, reasons=[], started=folder.state.started,
                    finished=folder.state.started, versions=VERSIONS, machine=this_machine(),
                    seeds=SEEDS, task_hashes={}, config=config(),
                    config_sha256=config().sha256(), oracle=None, arms=[],
                )
            )  # fmt: skip


def resumed(runs: Path, again: Config, versions: Versions = VERSIONS, fresh: bool = False) -> bool:
    with open_run(runs, again, versions, fresh) as folder:
        return folder.finished_arm("off") is not None


def folders(runs: Path) -> int:
    return sum(path.is_dir() for path in runs.iterdir())


@pytest.mark.parametrize("verdict", [None, "interrupted", "could not run"])
def test_an_unfinished_run_is_resumed(tmp_path: Path, verdict: Verdict | None) -> None:
    start(tmp_path, verdict)

    assert resumed(tmp_path, config())
    assert folders(tmp_path) == 1


@pytest.mark.parametrize("verdict", ["passed", "failed", "not tested", "invalid"])
def test_a_complete_run_is_moved_aside(tmp_path: Path, verdict: Verdict) -> None:
    start(tmp_path, verdict)

    assert not resumed(tmp_path, config())
    [aside] = tmp_path.glob("small-*")
    assert read_result(aside).verdict == verdict
    assert (aside / "arms" / "off" / "arm.json").exists()


def test_a_run_of_another_configuration_is_moved_aside(tmp_path: Path) -> None:
    start(tmp_path, None)

    assert not resumed(tmp_path, config(tasks=[gsm8k_task(questions=5)]))
    assert folders(tmp_path) == 2


def test_a_run_of_a_model_that_was_written_again_is_moved_aside(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "model.safetensors").write_text("before")
    runs, same = tmp_path / "runs", config(model=str(model))
    with open_run(runs, same, VERSIONS, fresh=False) as folder:
        folder.new_arm_folder("off")
        folder.finish_arm(arm("off"), samples())

    assert resumed(runs, same)
    (model / "model.safetensors").write_text("after it was trained")
    assert not resumed(runs, same)


def test_a_run_with_another_release_is_moved_aside(tmp_path: Path) -> None:
    start(tmp_path, None)

    assert not resumed(tmp_path, config(), VERSIONS.model_copy(update={"vllm": "0.33.0"}))
    assert folders(tmp_path) == 2


def test_a_run_with_a_changed_plugin_is_moved_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(tmp_path, None)
    monkeypatch.setattr("eval.results.resuming.plugin_digest", lambda: "of other code")

    assert not resumed(tmp_path, config())
    assert folders(tmp_path) == 2


def test_the_digest_of_a_plugin_is_that_of_its_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = tmp_path / "vllm_eplb_plugin" / "state" / "commit.py"
    code.parent.mkdir(parents=True)
    (code.parents[1] / "__init__.py").touch()
    code.write_text("rows = 1")
    monkeypatch.delitem(sys.modules, "vllm_eplb_plugin", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    before = plugin_digest()

    code.write_text("rows = 2")
    changed = plugin_digest()
    code.write_text("rows = 1")

    assert changed != before
    assert plugin_digest() == before


def test_a_fresh_run_never_resumes(tmp_path: Path) -> None:
    start(tmp_path, None)

    assert not resumed(tmp_path, config(), fresh=True)
    assert folders(tmp_path) == 2


def test_a_folder_of_something_else_is_moved_aside(tmp_path: Path) -> None:
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "thesis.txt").write_text("years")

    assert not resumed(tmp_path, config())
    [aside] = tmp_path.glob("small-*")
    assert (aside / "thesis.txt").read_text() == "years"


def test_a_run_in_use_is_refused(tmp_path: Path) -> None:
    with (
        open_run(tmp_path, config(), VERSIONS, fresh=False),
        pytest.raises(RunFolderError, match="another evaluation is using"),
        open_run(tmp_path, config(), VERSIONS, fresh=False),
    ):
        pass


def test_what_an_unfinished_arm_left_is_kept(tmp_path: Path) -> None:
    with open_run(tmp_path, config(), VERSIONS, fresh=False) as folder:
        (folder.new_arm_folder("sync") / "server.log").write_text("it died")
        assert list(folder.new_arm_folder("sync").iterdir()) == []

    [aside] = (tmp_path / "small" / "arms").glob("sync.unfinished-*")
    assert (aside / "server.log").read_text() == "it died"


def test_samples_survive_lines_and_separators_in_answers(tmp_path: Path) -> None:
    answers = samples(q0="two\nlines", q1="line\u2028separator", q2='"quoted"\r')
    with open_run(tmp_path, config(), VERSIONS, fresh=False) as folder:
        folder.new_arm_folder("off")
        folder.finish_arm(arm("off"), answers)

        assert folder.samples("off") == answers


def test_a_missing_result_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="cannot read .*result.json"):
        read_result(tmp_path)


WHY = "Set GSM8K_DIR to a folder"


def test_an_unfinished_run_that_was_asked_more_than_can_be_asked_now_is_refused(
    tmp_path: Path,
) -> None:
    start(tmp_path, "could not run")

    with (
        pytest.raises(RunFolderError, match=rf"arms were asked gsm8k.*{WHY}.*--fresh"),
        open_run(tmp_path, config(), VERSIONS, fresh=False, left_out={"gsm8k": WHY}),
    ):
        pass
    with open_run(tmp_path, config(), VERSIONS, fresh=True, left_out={"gsm8k": WHY}) as folder:
        assert folder.state.left_out == {"gsm8k": WHY}


def test_a_resumed_run_leaves_out_what_its_finished_arms_were_not_asked(tmp_path: Path) -> None:
    with open_run(tmp_path, config(), VERSIONS, fresh=False, left_out={"gsm8k": WHY}) as folder:
        folder.new_arm_folder("off")
        folder.finish_arm(arm("off"), samples())
    with open_run(tmp_path, config(), VERSIONS, fresh=False) as folder:
        assert folder.finished_arm("off")
        assert folder.state.left_out == {"gsm8k": WHY}


def test_a_run_without_a_finished_arm_is_asked_what_can_be_asked_now(tmp_path: Path) -> None:
    for left_out in ({}, {"gsm8k": WHY}, {}):
        with open_run(tmp_path, config(), VERSIONS, False, left_out) as folder:  # type: ignore[arg-type]
            assert folder.state.left_out == left_out


def cut_samples(arm_folder: Path) -> None:
    file = arm_folder / "samples.jsonl"
    file.write_bytes(file.read_bytes()[:-40])


def other_answer(arm_folder: Path) -> None:
    file = arm_folder / "samples.jsonl"
    file.write_text(file.read_text().replace("same: 3", "soma: 3"))


def no_samples(arm_folder: Path) -> None:
    (arm_folder / "samples.jsonl").unlink()


def cut_log(arm_folder: Path) -> None:
    (arm_folder / "server.log").write_text("")


def unreadable_arm(arm_folder: Path) -> None:
    (arm_folder / "arm.json").write_bytes(b"\xff{")


def of_another_run(arm_folder: Path) -> None:
    file = arm_folder / "arm.json"
    kept = json.loads(file.read_text())
    file.write_text(json.dumps({**kept, "run": "another"}))


def of_another_arm(arm_folder: Path) -> None:
    file = arm_folder / "arm.json"
    kept = json.loads(file.read_text())
    file.write_text(json.dumps({**kept, "name": "sync"}))


def without_digests(arm_folder: Path) -> None:
    file = arm_folder / "arm.json"
    kept = json.loads(file.read_text())
    file.write_text(json.dumps({**kept, "files": {}}))


@pytest.mark.parametrize(
    "damage",
    [
        cut_samples, other_answer, no_samples, cut_log, unreadable_arm, of_another_run,
        of_another_arm, without_digests,
    ],
)  # fmt: skip
def test_a_damaged_arm_is_noticed_before_anything_is_asked(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    with open_run(tmp_path, config(), VERSIONS, fresh=False) as folder:
        (folder.new_arm_folder("off") / "server.log").write_text("INFO ready\n")
        folder.finish_arm(arm("off"), samples())
    off = tmp_path / "small/arms/off"
    with (off / "server.log").open("a") as log:
        log.write("INFO stopped\n")
    assert resumed(tmp_path, config())
    damage(off)

    message = "its finished arm off is damaged: .*Start again with --fresh, or remove .*arms/off"
    with pytest.raises(RunFolderError, match=message):
        resumed(tmp_path, config())
    assert not resumed(tmp_path, config(), fresh=True)


def test_an_arm_whose_folder_is_a_file_is_asked_again(tmp_path: Path) -> None:
    with open_run(tmp_path, config(), VERSIONS, fresh=False) as folder:
        (folder.path / "arms").mkdir()
        folder.arm_folder("off").write_text("no folder")
    with open_run(tmp_path, config(), VERSIONS, fresh=False) as folder:
        assert folder.finished_arm("off") is None
        assert folder.new_arm_folder("off").is_dir()


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    runs.symlink_to(runs)

    with (
        pytest.raises(RunFolderError, match="cannot use .*small: (Too many|File ex)"),
        open_run(runs, config(), VERSIONS, fresh=False),
    ):
        pass


def test_arms_that_are_a_file_are_named(tmp_path: Path) -> None:
    with open_run(tmp_path, config(), VERSIONS, fresh=False) as folder:
        (folder.path / "arms").write_text("no folder")
        with pytest.raises(RunFolderError, match=r"cannot use .*arms/off: .*--fresh"):
            folder.new_arm_folder("off")


@pytest.mark.parametrize(
    ("before", "after", "resumed"), [("a", "a", True), ("a", "b", False), ("", "b", True)]
)
def test_a_name_on_the_hub_that_has_another_revision_is_another_model(
    tmp_path: Path, before: str, after: str, resumed: bool
) -> None:
    with open_run(tmp_path, config(), VERSIONS, False, revision=before) as folder:
        folder.new_arm_folder("off")
        folder.finish_arm(arm("off"), samples())
    with open_run(tmp_path, config(), VERSIONS, False, revision=after) as folder:
        assert (folder.finished_arm("off") is not None) == resumed
