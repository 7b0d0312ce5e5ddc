# SPDX-License-Identifier: Apache-2.0
"""What an evaluation needs is looked for before anything starts, and all that is missing named."""

import json
import socket
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from eval.config.schema import Config
from eval.preflight.fitness import Finding
from eval.preflight.preparation import preflight
from tests.builders.harness import INSTALLATION, Harness, gsm8k_task, small_config

ANSWER = f"echo '{json.dumps(INSTALLATION)}'\n"
DEEPEP = {"data-parallel-size": 2, "all2all-backend": "deepep_low_latency"}


class Looking:
    """`preflight` with the stand-ins of a `Harness`."""

    def __init__(self, harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
        self.harness = harness
        for name, value in harness.environment.items():
            monkeypatch.setenv(name, value)

    def __call__(self, **changes: Any) -> list[Finding]:
        values = small_config(**changes)
        values["serve"] = {"executable": str(self.harness.executable), **values["serve"]}
        return preflight(Config.model_validate(values), Console(quiet=True)).findings

    def missing(self, **changes: Any) -> dict[str, str]:
        findings = self(**changes)
        return {one.subject: one.message for one in findings if one.status == "missing"}


@pytest.fixture
def look(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> Looking:
    return Looking(harness, monkeypatch)


def test_nothing_is_missing_where_all_is_there(look: Looking) -> None:
    findings = look()

    assert {one.status for one in findings} == {"found"}
    assert [one.subject for one in findings] == [
        "server",
        "plugin",
        "GPUs",
        "model",
        "questions",
        "port",
    ]


def test_all_that_is_missing_is_said_at_once_and_nothing_is_started(harness: Harness) -> None:
    harness.install(gpus=[], works=False, problems=["vLLM 0.17.1 is not supported"])
    harness.environment |= {"GSM8K_DIR": "nowhere", "HF_HUB_OFFLINE": "1"}
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        serve = {"options": DEEPEP, "port": taken.getsockname()[1]}
        config = small_config(model="someone/other-moe", serve=serve)
        ended = harness.run(config=config)

    assert ended.returncode == 2
    assert [line.split(":")[0] for line in ended.stderr.splitlines() if line[:2] == "- "] == [
        "- plugin",
        "- GPUs",
        "- DeepEP",
        "- model",
        "- questions",
        "- port",
    ]
    assert "vLLM 0.17.1 is not supported" in ended.stderr
    assert not (harness.folder / "runs").exists()


def test_check_prints_what_it_found_and_starts_nothing(harness: Harness) -> None:
    found = harness.run(config=small_config(), command="check")
    harness.install(gpus=[], works=False, problems=["vLLM is missing: pip install .[vllm]"])
    missing = harness.run(config=small_config(), command="check")

    assert (found.returncode, missing.returncode) == (0, 2)
    begun = "looking at the server's environment: vllm-eplb doctor imports its vLLM"
    assert found.stderr.splitlines() == missing.stderr.splitlines() == [begun]
    assert "fits vLLM 0.33.0 (vllm)" in found.stdout
    assert "2 are needed" in missing.stdout
    assert "pip install .[vllm]" in missing.stdout
    assert not (harness.folder / "runs").exists()


@pytest.mark.parametrize(
    ("gpu", "subject", "message"),
    [
        ({"memory_gib": 23.6}, "GPU memory", "GPU 0 has 23.6 GiB, serve.gpu_memory_gib says 24"),
        ({"free_gib": 30.5}, "GPU memory", "GPU 0 has 30.5 of 79.2 GiB free, and vLLM takes 0.9"),
    ],
)
def test_a_gpu_must_have_the_memory(
    look: Looking, gpu: dict[str, float], subject: str, message: str
) -> None:
    good = {"name": "GPU", "memory_gib": 79.2, "free_gib": 79.0}
    look.harness.install(gpus=[{**good, "free_gib": 23.5, **gpu}, good])

    serve = {"gpu_memory_gib": 24, "options": {"data-parallel-size": 2}}
    if "free_gib" in gpu:
        assert message in look.missing(serve=serve)[subject]
        serve["options"] = {"data-parallel-size": 2, "gpu-memory-utilization": 0.3}
        assert look.missing(serve=serve) == {}
    else:
        assert look.missing(serve=serve) == {subject: message}


def test_gpus_are_counted_for_this_machine(look: Looking) -> None:
    options = {"data-parallel-size": 8, "tensor_parallel_size": 2}

    message = look.missing(serve={"options": options})["GPUs"]
    assert message.startswith("16 are needed") and "the server would see 2: GPU, GPU" in message
    assert look.missing(serve={"options": {**options, "data-parallel-size-local": 1}}) == {}
    look.harness.install(gpus=[{"name": "GPU", "memory_gib": 79.2, "free_gib": 79.0}])
    assert list(look.missing()) == ["GPUs"]


def test_deep_ep_is_asked_for_by_the_backends_that_need_it(look: Looking) -> None:
    message = look.missing(serve={"options": DEEPEP})["DeepEP"]
    assert "deep_ep is not installed; and serve.options.all2all-backend is deepep_low_l" in message
    assert "docs/gpu-evaluation.md says which package fits which torch" in message
    assert "--set serve.options.all2all-backend=allgather_reducescatter" in message

    without = {**DEEPEP, "all2all-backend": "allgather_reducescatter"}
    assert look.missing(serve={"options": without}) == {}
    look.harness.install(deep_ep=None)
    assert look.missing(serve={"options": DEEPEP}) == {}

    second = {**DEEPEP, "all2all-backend": "deepep_v2"}
    look.harness.install(deep_ep=None, deep_ep_v2="no class ElasticBuffer")
    assert "no class ElasticBuffer; and" in look.missing(serve={"options": second})["DeepEP"]
    look.harness.install(deep_ep="no class Buffer")
    assert look.missing(serve={"options": second}) == {}


def test_a_backend_in_the_environment_would_be_ignored(look: Looking) -> None:
    environment = {"VLLM_ALL2ALL_BACKEND": "deepep_low_latency"}
    serve = {"options": {"data-parallel-size": 2}, "environment": environment}

    assert "set serve.options.all2all-backend" in look.missing(serve=serve)["all2all"]


def test_a_build_for_the_cpu_serves_in_loopback_only(look: Looking) -> None:
    look.harness.install(on_cpu=True)

    assert look.missing(plugin={"loopback": True}) == {}
    missing = look.missing(plugin={"loopback": False})
    assert list(missing) == ["platform"]
    assert "where EPLB runs in loopback only" in missing["platform"]


def test_in_loopback_one_gpu_is_enough_for_all_ranks(look: Looking) -> None:
    one = {"name": "H100", "memory_gib": 79.2, "free_gib": 60.0}
    look.harness.install(gpus=[one])
    options = {"data-parallel-size": 4}

    assert "4 are needed" in look.missing(serve={"options": options})["GPUs"]
    loopback = {"plugin": {"loopback": True}, "serve": {"options": options}}
    found = {finding.subject: finding for finding in look(**loopback)}
    assert found["GPUs"] == Finding("GPUs", "found", "H100 for 4 ranks, in loopback")
    assert look.missing(**loopback) == {}
    loopback["serve"]["gpu_memory_gib"] = 80
    assert "GPU 0 has 79.2 GiB" in look.missing(**loopback)["GPU memory"]


def test_loopback_without_a_gpu_needs_the_cpu_s_build(look: Looking) -> None:
    look.harness.install(gpus=[])

    missing = look.missing(plugin={"loopback": True})
    assert list(missing) == ["GPUs"]
    assert "the server would see none" in missing["GPUs"]


def test_a_server_without_the_plugin_would_ignore_its_settings(look: Looking) -> None:
    (look.harness.folder / "vllm-eplb").unlink()

    assert "the plugin is not installed there" in look.missing()["plugin"]
    assert Finding("plugin", "not checked", "") in [
        one._replace(message="") for one in look(plugin=None)
    ]


def test_a_doctor_that_cannot_answer_shows_what_it_printed(look: Looking) -> None:
    doctor = look.harness.folder / "vllm-eplb"
    doctor.write_text("#!/bin/sh\necho 'No such command doctor' >&2; exit 3\n")

    message = look.missing()["plugin"]
    assert "exit status 3" in message and "No such command doctor" in message


@pytest.mark.parametrize("offline", [True, False])
def test_a_model_is_in_the_cache_whole_or_has_to_come_from_the_hub(
    look: Looking, monkeypatch: pytest.MonkeyPatch, offline: bool
) -> None:
    # Nobody listens there.
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HUB_OFFLINE", str(int(offline)))
    weights = next(Path(look.harness.folder, "huggingface").rglob("model.bin"))
    weights.unlink()

    message = look.missing()["model"]
    assert "has no weights" in message
    assert ("HF_HUB_OFFLINE forbids" if offline else "the Hub does not give it") in message
    assert "is not in the cache" in look.missing(model="someone/other-moe")["model"]
    assert "is neither a folder nor a name" in look.missing(model="one/two/three")["model"]


TASKS = [gsm8k_task(scored=False), gsm8k_task(name="gsm_tiny")]


def test_questions_of_a_task_that_is_not_scored_are_not_required(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness.environment["GSM8K_DIR"] = "nowhere"
    look = Looking(harness, monkeypatch)
    told = [one for one in look(tasks=TASKS) if one.subject == "questions"]

    assert [one.status for one in told] == ["found", "left out"]
    assert told[0].message == "gsm_tiny"
    assert told[1].message.startswith("gsm8k, which is not scored: cannot read questions from")
    assert "Set GSM8K_DIR" in told[1].message


@pytest.mark.parametrize("tasks", [[gsm8k_task(), TASKS[1]], [TASKS[0]]])
def test_questions_of_a_scored_task_and_of_the_only_one_are_required(
    tasks: list[dict[str, Any]], harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness.environment["GSM8K_DIR"] = "nowhere"
    assert "Set GSM8K_DIR" in Looking(harness, monkeypatch).missing(tasks=tasks)["questions"]


def test_check_shows_what_is_left_out_and_misses_nothing(harness: Harness) -> None:
    harness.environment["GSM8K_DIR"] = "nowhere"
    found = harness.run(config=small_config(tasks=TASKS), command="check")

    assert found.returncode == 0, found.stdout
    assert "left out" in found.stdout
    assert "missing" not in found.stdout


def test_more_questions_or_shots_than_there_are_are_told(look: Looking) -> None:
    # The stand-in for GSM8K has 20 of each.
    tasks = [gsm8k_task(questions=21, fewshot=20)]
    assert look.missing(tasks=tasks) == {
        "questions": "tasks.gsm8k.questions is 21, and there are 20: set it to null for all"
    }
    tasks = [gsm8k_task(questions=None, fewshot=21)]
    assert "fewshot is 21, and there are 20" in look.missing(tasks=tasks)["questions"]
    assert look.missing(tasks=[gsm8k_task(questions=20, fewshot=20)]) == {}


def test_a_cache_that_questions_of_the_hub_need_is_tried(
    look: Looking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", Path("/proc/nowhere"))
    assert look.missing() == {}

    monkeypatch.setattr("eval.preflight.questions.find_questions", lambda _: {"gsm8k": None})
    counts = {"train": 7473, "test": 1319}
    monkeypatch.setattr("eval.preflight.questions.count_questions", lambda _: counts)
    message = look.missing()["questions"]
    assert message.startswith("the cache of the library datasets, /proc/nowhere, cannot be written")
    assert "set HF_DATASETS_CACHE" in message


def test_the_server_s_plugin_is_asked_about_the_settings_of_every_arm(look: Looking) -> None:
    doctor = look.harness.folder / "vllm-eplb"
    doctor.write_text(f'#!/bin/sh\necho "$@" > {look.harness.folder}/asked\n{ANSWER}')
    arms = [{"name": "off"}, {"name": "stock", "plugin": {"enabled": False}}]
    look(arms=arms)

    assert (look.harness.folder / "asked").read_text().strip() == (
        'doctor --json --additional-config {"eplb_plugin": {"check_weights": true}} '
        '--additional-config {"eplb_plugin": {"check_weights": true, "enabled": false}}'
    )


def test_a_backend_that_cannot_take_the_model_is_told(look: Looking) -> None:
    look.harness.install(deep_ep=None)
    model = next(Path(look.harness.folder, "huggingface").rglob("config.json"))
    model.write_text('{"hidden_size": 192}')

    assert "has 192" in look.missing(serve={"options": DEEPEP})["all2all"]
    dtype = {**DEEPEP, "dtype": "float32"}
    assert "moves bfloat16 only" in look.missing(serve={"options": dtype})["all2all"]
