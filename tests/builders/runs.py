# SPDX-License-Identifier: Apache-2.0
"""Writes the folder of a run that never was, as large as wanted.

``python -m tests.builders.runs FOLDER`` writes a large one, to time a report of it.
"""

import heapq
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np

from eval.activity.counts import read_activity
from tests.builders.harness import small_config

STARTED = 1_700_000_000.0
EXPERT_BYTES = 1 << 14
DIFFERENT_LOADS = 5
"""Load windows, which then come again."""


@dataclass(frozen=True)
class Shape:
    """What was made up."""

    questions: int = 40
    rearrangements: int = 12
    layers: int = 4
    experts: int = 16
    redundant: int = 4
    ranks: int = 2
    lost: int = 0
    """Answers that the async arm gets wrong although ``off`` has them right."""
    verdict: str = "passed"
    arms: tuple[str, ...] = ("off", "sync", "async")
    """One whose name ends with `-incremental` moves two experts of a layer at a time."""
    tells_moves: bool = True
    """False: as in events of earlier releases."""

    @property
    def slots(self) -> int:
        return self.experts + self.redundant


LARGE = Shape(questions=1319, rearrangements=1000, layers=58, experts=256, redundant=32, ranks=32)
"""Of the shape of DeepSeek-V3, in each of two arms."""


def write_run(folder: Path, shape: Shape = Shape(), **changes: Any) -> Path:
    """A folder that ``python -m eval report`` reads; ``changes`` are of its result."""
    arms = [_write_arm(folder, name, shape) for name in shape.arms]
    task = {"name": "gsm8k", "questions": shape.questions, "fewshot": 5}
    configured = [_arm(name) for name in shape.arms]
    config = small_config(name=folder.name, tasks=[task], model="someone/some-moe", arms=configured)
    started = datetime.fromtimestamp(STARTED, timezone.utc)
    result = {
        "schema": 4,
        "name": folder.name,
        "verdict": shape.verdict,
        "reasons": [] if shape.verdict == "passed" else [_rules(shape)[2]["saw"]],
        "rules": _rules(shape),
        "controls": _controls(),
        "started": started.isoformat(),
        "finished": (started + timedelta(minutes=9)).isoformat(),
        "versions": {
            "python": "3.11.9", "vllm_distribution": "vllm", "vllm": "0.32.0",
            "vllm_eplb_plugin": "0.1.0", "lm_eval": "0.4.13", "torch": "2.11.0",
            "transformers": "5.5.0",
        },
        "machine": {
            "processor": "A processor", "accelerators": [], "cores": 2, "memory_gib": 24.0,
        },
        "seeds": {"random": 0, "numpy": 1234, "torch": 1234, "fewshot": 1234, "request": 1234},
        "task_hashes": {"gsm8k": "0123456789abcdef"},
        "config": config,
        "config_sha256": "0" * 64,
        "oracle": {"prompts": 16, "identical": 16, "different": [], "seconds": 3.0},
        "arms": arms,
    }  # fmt: skip
    state = {
        "config_sha256": "0" * 64,
        "model_files": "0" * 64,
        "versions": result["versions"],
        "started": result["started"],
    }
    (folder / "run.json").write_text(json.dumps(state), encoding="utf-8")
    (folder / "result.json").write_text(json.dumps({**result, **changes}), encoding="utf-8")
    return folder


def _arm(name: str) -> dict[str, Any]:
    if name == "off":
        return {"name": name}
    eplb = {"window_size": 10, "step_interval": 10, "use_async": name.startswith("async")}
    plugin = {"planning": {"policy": "incremental"}} if name.endswith("incremental") else {}
    return {"name": name, "plugin": plugin, "eplb": eplb}


def _write_arm(folder: Path, name: str, shape: Shape) -> dict[str, Any]:
    here = folder / "arms" / name
    here.mkdir(parents=True)
    right = np.random.default_rng(0).random(shape.questions) < 0.4
    if name == "async":
        right[np.flatnonzero(right)[: shape.lost]] = False
    lines = (json.dumps(_sample(index, bool(one))) + "\n" for index, one in enumerate(right))
    (here / "samples.jsonl").write_text("".join(lines), encoding="utf-8")
    seconds = 0.2 * shape.rearrangements + 1
    done = shape.rearrangements if name != "off" else 0
    if done:
        (here / "events").mkdir()
        with (here / "events" / "rank0.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(_events(name, shape, seconds))
    return {
        "name": name,
        "tasks": [
            {
                "name": "gsm8k", "scored": True, "questions": shape.questions,
                "task_hash": "0123456789abcdef", "task_version": 3.0,
                "accuracy": float(right.mean()), "accuracy_stderr": 0.01,
                "accuracy_flexible": float(right.mean()), "accuracy_flexible_stderr": 0.01,
                "identical_to_off": shape.questions - (shape.lost if name == "async" else 0),
            }
        ],
        "rearrangements": done,
        "models": read_activity(here / "events", STARTED, STARTED + seconds).model_dump()["models"],
        "modes": [name.split("-")[0]] if done else [],
        "layers_committed": done * shape.layers,
        "slots_changed": [done * 3] * shape.layers if done else [],
        "weight_checks": done * shape.layers * shape.slots,
        "start_seconds": 20.5,
        "asked_from": STARTED,
        "asked_until": STARTED + seconds,
        "logged_rearrangements": done,
        "seconds": seconds,
        "tokens_per_second": 321.0,
        "command": [
            "/home/someone/eplb/.venv/bin/vllm", "serve", "someone/some-moe", "--port", "1234",
            "--additional-config", json.dumps({"eplb_plugin": {
                "events_dir": f"/home/someone/eplb/runs/{folder.name}/arms/{name}/events"}}),
        ],
        "log": f"runs/{folder.name}/arms/{name}/server.log",
    }  # fmt: skip


def _sample(index: int, right: bool) -> dict[str, Any]:
    return {
        "task": "gsm8k", "doc_id": index, "doc_hash": f"d{index}", "prompt_hash": f"p{index}",
        "target_hash": f"t{index}", "prompt": "Question: how many? Answer:" * 60,
        "stop": ["Question:"], "text": f" {index if right else -1}", "target": str(index),
        "strict_match": "", "strict_correct": right, "flexible_extract": "",
        "flexible_correct": right,
    }  # fmt: skip


def _events(mode: str, shape: Shape, seconds: float) -> Iterator[str]:
    generator = np.random.default_rng(1)
    popularity = generator.permuted(
        np.tile(1 / np.arange(1, shape.experts + 1) ** 0.6, (shape.layers, 1)), axis=1
    )
    placement = np.tile(np.arange(shape.slots) % shape.experts, (shape.layers, 1))
    yield _event(
        "placement", STARTED - 9, rearrangement=0, step=0, mode=None, num_ranks=shape.ranks,
        physical_to_logical_map=placement.tolist(), logical_load=None,
    )  # fmt: skip
    loads = [
        (9000 * popularity * generator.lognormal(0, 0.25, popularity.shape)).astype(int) + 1
        for _ in range(DIFFERENT_LOADS)
    ]
    incremental = mode.endswith("-incremental")
    plans = [_exchange(placement, n) if incremental else place(load, shape)
             for n, load in enumerate(loads)]  # fmt: skip
    mode = mode.split("-")[0]
    steps = [
        _step(load, plans[index - 1], plans[index], shape.ranks) for index, load in enumerate(loads)
    ]
    first_step = _step(loads[0], placement, plans[0], shape.ranks)
    for number in range(1, shape.rearrangements + 1):
        step = dict(steps[(number - 1) % DIFFERENT_LOADS] if number > 1 else first_step)
        moves = step.pop("moves")
        changed = step["slots_changed"]
        end = STARTED + number * (seconds - 0.5) / shape.rearrangements
        took = float(generator.gamma(6, 0.02))
        head = {"rearrangement": number, "step": 10 * number, "mode": mode}
        yield _event("rearrangement_started", end - took, **head)
        if shape.tells_moves:
            moves |= {"policy": "incremental" if incremental else "vllm"}
            yield _event("rearrangement_planned", end - took / 2, **head, **moves)
        for layer, count in enumerate(changed):
            late = 0.5 * took * (layer + 1 - shape.layers) / shape.layers if mode == "async" else 0
            yield _event("layer_committed", end + late, **head, layer=layer, slots_changed=count)
            yield _event("weights_checked", end, layer=layer, slots=9, mismatched_slots=[])
        yield _event(
            "rearrangement_finished",
            end,
            **head,
            **step,
            bytes_sent=sum(moves["bytes_received"]),
            seconds=took,
        )
        yield _event(
            "placement", end, **head, num_ranks=shape.ranks,
            physical_to_logical_map=plans[(number - 1) % DIFFERENT_LOADS].tolist(),
            logical_load=loads[(number - 1) % DIFFERENT_LOADS].tolist(),
        )  # fmt: skip


def _step(load: Any, old: Any, new: Any, ranks: int) -> dict[str, Any]:
    balancedness = {
        "balancedness_before": plain_balancedness(load, old, ranks),
        "balancedness_expected": plain_balancedness(load, new, ranks),
    }
    changed = (old != new).sum(axis=1).tolist()
    received = _received(old, new, ranks)
    moves = {
        **balancedness, "layers_changed": sum(map(bool, changed)), "seconds": 0.01, "steps": [],
        "trigger": "interval", "planning_seconds": 0.002, "layers_held_back": 0,
        "bytes_held_back": 0, "experts_received": received.sum(axis=1).tolist(),
        "bytes_received": (EXPERT_BYTES * received.sum(axis=0)).tolist(),
        "bytes_from_other_nodes": [0] * ranks,
    }  # fmt: skip
    return {**balancedness, "slots_changed": changed, "moves": moves}


def _received(old: Any, new: Any, ranks: int) -> Any:
    """``[layers, ranks]``, experts that a rank has now and had not."""
    pairs = [
        [zip(*(np.split(row, ranks) for row in rows), strict=True)]
        for rows in zip(old, new, strict=True)
    ]
    return np.array(
        [[len({*after} - {*before}) for before, after in one] for layer in pairs for one in layer]
    )


def _exchange(placement: Any, number: int) -> Any:
    """The first and the last slot of every layer change places, or go back."""
    changed = placement.copy()
    if number % 2 == 0:
        changed[:, [0, -1]] = changed[:, [-1, 0]]
    return changed


def place(load: Any, shape: Shape) -> Any:
    """As a policy does it: replicas for the most loaded, then always the least loaded rank."""
    return np.array([_place_layer(row, shape) for row in load.tolist()])


def _place_layer(load: list[int], shape: Shape) -> list[int]:
    replicas = [1] * len(load)
    queue = [(-tokens, expert) for expert, tokens in enumerate(load)]
    heapq.heapify(queue)
    for _ in range(shape.redundant):
        expert = queue[0][1]
        replicas[expert] += 1
        heapq.heapreplace(queue, (-load[expert] / replicas[expert], expert))
    slots = shape.slots // shape.ranks
    ranks: list[list[int]] = [[] for _ in range(shape.ranks)]
    free = [(0.0, rank) for rank in range(shape.ranks)]
    for share, expert in sorted(queue):
        for _ in range(replicas[expert]):
            tokens, rank = heapq.heappop(free)
            ranks[rank].append(expert)
            if len(ranks[rank]) < slots:
                heapq.heappush(free, (tokens - share, rank))
    return [expert for rank in ranks for expert in rank]


def plain_balancedness(load: Any, placement: Any, ranks: int) -> float:
    """As vLLM defines it, layer by layer in plain Python."""
    means = highest = 0.0
    for row, slots in zip(load.tolist(), placement.tolist(), strict=True):
        by_rank = [0.0] * ranks
        for slot, expert in enumerate(slots):
            by_rank[slot * ranks // len(slots)] += row[expert] / slots.count(expert)
        means += sum(by_rank) / ranks
        highest += max(by_rank)
    return means / highest


def _event(kind: str, time: float, **fields: Any) -> str:
    head = {"schema": 2, "event": kind, "time": time, "rank": 0, "global_rank": 0, "stage": 0}
    head |= {"model": "some-moe", "model_index": 0}
    return json.dumps(head | fields) + "\n"


def _rules(shape: Shape) -> list[dict[str, Any]]:
    failed = shape.verdict != "passed"
    rows = []
    for arm in ("sync", "async"):
        rows.append(
            {
                "rule": "paired_accuracy", "arm": arm, "task": "gsm8k",
                "verdict": "failed" if failed and arm == "async" else "passed",
                "saw": f"{shape.lost if arm == 'async' else 0} lost and 0 won of "
                f"{shape.questions} pairs; a loss of 1.9 points is not excluded at 95 %",
                "limit": "no loss at p < 0.01, and a loss of 3.0 points excluded at 95 %",
                "detectable": "a loss of 2.1 points with probability 0.8",
            }
        )  # fmt: skip
        rows.append(
            {
                "rule": "rearrangements", "arm": arm, "task": None, "verdict": "passed",
                "saw": f"{shape.rearrangements} rearrangements finished during the questions",
                "limit": "at least 5", "detectable": "experts that did not move",
            }
        )  # fmt: skip
    return rows


def _controls() -> list[dict[str, Any]]:
    return [
        {"name": "weights_not_moved", "caught": True, "caught_by": ["paired_accuracy", "weights"],
         "saw": ["154 lost and 0 won", "1200 of 4500 checked slots hold other weights"],
         "accuracy": 0.005},
        {"name": "no_rearrangement", "caught": True, "caught_by": ["rearrangements"],
         "saw": ["0 rearrangements finished during the questions"], "accuracy": 0.775},
    ]  # fmt: skip


if __name__ == "__main__":
    write_run(Path(sys.argv[1]), LARGE)
