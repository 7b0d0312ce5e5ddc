# SPDX-License-Identifier: Apache-2.0
"""A finished run as the harness keeps it, whose files fit together, small enough to judge often."""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from eval.activity.counts import read_activity
from eval.commands.stopping import decision
from eval.config.schema import BASELINE, Arm, Config
from eval.judging.comparison import arm_results
from eval.judging.planning import planned_by
from eval.judging.scoring import task_hash
from eval.judging.verdict import verdict
from eval.load.questions import SEEDS
from eval.results.decision import Decision
from eval.results.folder import RunFolder, open_run
from eval.results.machine import this_machine
from eval.results.oracle_result import OracleResult
from eval.results.oracle_texts import OracleAnswers, OracleRequest
from eval.results.samples import Sample
from eval.results.schema import ArmRun, Result, RuleResult, TaskRun
from tests.builders.arms import VERSIONS, sample
from tests.builders.harness import small_config

LAYERS = 4
RANKS = 2
REARRANGEMENTS = 6
ORACLE_PROMPTS = 3
_FIRST = 1_790_000_000.0
"""When the first arm of the first run was asked, in Unix seconds."""
_runs = 0


def answers(config: Config, lost: Sequence[int] = ()) -> list[Sample]:
    """To every question of every task; those of ``lost`` are wrong."""
    return [
        sample(doc_id, task=task.name, correct=doc_id not in lost)
        for task in config.tasks
        for doc_id in range(task.limit or 0)
    ]


def write_kept_run(
    runs: Path,
    name: str = "small",
    given: Mapping[str, Sequence[Sample]] = {},
    mismatched: Sequence[str] = (),
    left_out: Mapping[Any, str] = {},
    off: Callable[[Path, float], list[str]] | None = None,
    **changes: Any,
) -> Path:
    """A run that got to its end.

    Args:
        runs: The folder of its folder.
        name: Of the run.
        given: Answers of arms; the others answer all questions rightly.
        mismatched: Arms of which rank 1 finds a slot with other weights.
        left_out: Tasks that no arm is asked.
        off: Does something to the folder of arm ``off``, asked from a time on, before it is
            finished; gives further words of its command.
        changes: Of `small_config`.
    """
    global _runs
    _runs += 1
    began = _FIRST + 1000 * _runs
    config = Config.model_validate(
        small_config(name=name, **{"oracle": {"prompts": ORACLE_PROMPTS}, **changes})
    )
    asked = config.without_tasks(left_out)
    with open_run(runs, config, VERSIONS, fresh=False, left_out=left_out) as folder:
        samples = {}
        for number, arm in enumerate(config.arms):
            samples[arm.name] = [*given.get(arm.name, answers(asked))]
            _write_arm(
                folder,
                asked,
                arm,
                samples[arm.name],
                began + 100 * number,
                arm.name in mismatched,
                off if arm.name == BASELINE else None,
            )
        if asked.oracle.prompts:
            _write_oracle(folder, asked, samples["off"])
        kept = [folder.finished_arm(arm.name) for arm in config.arms]
        results = arm_results([arm for arm in kept if arm], samples)
        folder.finish(
            Result(
                name=name, verdict=verdict([NOTHING]), reasons=[], rules=[NOTHING],
                started=folder.state.started, finished=datetime.now(timezone.utc),
                versions=VERSIONS, machine=this_machine(), seeds=SEEDS,
                task_hashes={task.name: task.task_hash for task in results[0].tasks},
                config=config, config_sha256=config.sha256(), oracle=folder.oracle(),
                left_out={**left_out}, arms=results,
            )
        )  # fmt: skip
    return runs / name


NOTHING = RuleResult(rule="none", verdict="not tested", saw="", limit="", detectable="")


def as_schema_4(run: Path) -> Path:
    """The same run without what schema 5 brought: no digest and no identity."""
    for file in (run / "run.json", run / "result.json", *run.glob("arms/*/arm.json")):
        values = json.loads(file.read_text())
        for arm in (values, *values.get("arms", [])):
            for field in ("id", "run", "files", "log_asked", "notes"):
                arm.pop(field, None)
        if "schema" in values:
            values["schema"] = 4
        file.write_text(json.dumps(values, indent=2))
    return run


def _write_arm(
    folder: RunFolder,
    config: Config,
    arm: Arm,
    samples: Sequence[Sample],
    began: float,
    mismatched: bool,
    further: Callable[[Path, float], list[str]] | None,
) -> None:
    here = folder.new_arm_folder(arm.name)
    until = began + 10
    if arm.eplb:
        mode = "async" if arm.eplb.use_async else "sync"
        policy = planned_by(config.plugin_settings(arm)) or "vllm"
        write_events(here / "events", mode, began, mismatched, policy)
    log = f"INFO 01-01 00:00:00 [api_server.py:1] arm {arm.name} of process {began:.0f}\n"
    if arm.eplb:
        log += "INFO 01-01 00:00:01 [eplb.py:7] Rearranging experts (sync mode) ...\n" * 6
    (here / "server.log").write_text(log, encoding="utf-8")
    words = further(here, began) if further else []
    activity = read_activity(here / "events", began, until)
    off = samples if arm.name == BASELINE else folder.samples(BASELINE)
    folder.finish_arm(
        ArmRun(
            **activity.model_dump(), name=arm.name,
            tasks=[
                task_run(
                    task.name, [one for one in samples if one.task == task.name], task.scored,
                    decision(config, arm, task, off, samples),
                )
                for task in config.tasks_of(arm)
            ],
            start_seconds=20.25, asked_from=began, asked_until=until,
            logged_rearrangements=6 if arm.eplb else 0, log_asked=(0, len(log)),
            seconds=until - began, tokens_per_second=12.5, command=[*command(config, arm), *words],
            log=str(here / "server.log"),
        ),
        samples,
    )  # fmt: skip


def command(config: Config, arm: Arm) -> list[str]:
    """As the harness starts an arm's server."""
    settings = config.plugin_settings(arm)
    words = ["vllm", "serve", config.model, "--host", "127.0.0.1", "--port", "1234"]
    if settings is not None:
        events = f"/somewhere/runs/{config.name}/arms/{arm.name}/events"
        words += [
            "--additional-config",
            json.dumps({"eplb_plugin": settings | {"events_dir": events}}),
        ]
    if arm.eplb:
        eplb = arm.eplb.model_dump(exclude_none=True)
        words += ["--enable-eplb", "--eplb-config", json.dumps(eplb)]
    return words


def task_run(
    name: Any, samples: Sequence[Sample], scored: bool = True, decision: Decision | None = None
) -> TaskRun:
    """What lm-eval sums up."""
    count = max(1, len(samples))
    return TaskRun(
        name=name, scored=scored, questions=len(samples), task_hash=task_hash(samples),
        task_version=3.0, accuracy=sum(one.strict_correct for one in samples) / count,
        accuracy_stderr=0.01,
        accuracy_flexible=sum(one.flexible_correct for one in samples) / count,
        accuracy_flexible_stderr=0.01, decision=decision,
    )  # fmt: skip


def write_events(
    folder: Path, mode: str, began: float, mismatched: bool = False, policy: str = "vllm"
) -> None:
    """Rearrangements while the questions are asked, of all ranks alike."""
    folder.mkdir()
    for rank in range(RANKS):
        lines = []
        for number in range(1, REARRANGEMENTS + 1):
            for kind, fields in _rearrangement(number, mode, mismatched and rank == 1, policy):
                head = {"schema": 2, "event": kind, "time": began + number + rank / 100}
                source = {"rank": rank, "global_rank": rank, "stage": 0}
                model = {"model": "m", "model_index": 0}
                lines.append(json.dumps(head | source | model | fields) + "\n")
        (folder / f"rank{rank}.jsonl").write_text("".join(lines), encoding="utf-8")


def _rearrangement(
    number: int, mode: str, mismatched: bool, policy: str
) -> list[tuple[str, dict[str, Any]]]:
    size = 1000 if policy == "vllm" else 100
    common = {"rearrangement": number, "step": 10 * number, "mode": mode}
    slots = [7] if mismatched and number == REARRANGEMENTS else []
    balance = {"balancedness_before": 0.5, "balancedness_expected": 0.9}
    plan = {
        **balance, "layers_changed": LAYERS, "seconds": 0.05, "policy": policy, "steps": [],
        "trigger": "interval", "planning_seconds": 0.001, "experts_received": [1] * LAYERS,
        "bytes_received": [size] * RANKS, "bytes_from_other_nodes": [0] * RANKS,
        "layers_held_back": 0, "bytes_held_back": 0,
    }  # fmt: skip
    events: list[tuple[str, dict[str, Any]]] = [
        ("rearrangement_started", common),
        ("rearrangement_planned", {**common, **plan}),
    ]
    for layer in range(LAYERS):
        events += [
            ("layer_committed", {**common, "layer": layer, "slots_changed": 1}),
            ("weights_checked", {"layer": layer, "slots": 10, "mismatched_slots": slots}),
            ("maps_checked", {"layer": layer, "experts": 8, "mismatched_experts": []}),
        ]
    changed = {"slots_changed": [1] * LAYERS, "bytes_sent": size * RANKS, "seconds": 0.1}
    return [*events, ("rearrangement_finished", {**common, **balance, **changed})]


def _write_oracle(folder: RunFolder, config: Config, off: Sequence[Sample]) -> None:
    """Transformers answers as arm ``off`` does."""
    compared = off[: config.oracle.prompts]
    here = folder.path / "oracle"
    here.mkdir()
    request = OracleRequest(
        model=config.model, prompts=[one.prompt for one in compared], stop=compared[0].stop,
        max_tokens=config.tasks[0].max_tokens,
    )  # fmt: skip
    texts = OracleAnswers(texts=[one.text for one in compared])
    (here / "request.json").write_text(request.model_dump_json(), encoding="utf-8")
    (here / "answers.json").write_text(texts.model_dump_json(), encoding="utf-8")
    folder.finish_oracle(
        OracleResult(prompts=len(compared), identical=len(compared), different=[], seconds=1.5)
    )
