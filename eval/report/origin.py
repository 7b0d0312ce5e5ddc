# SPDX-License-Identifier: Apache-2.0
"""Where a run was made and how to repeat it, without the folders of that machine."""

import re
import shlex
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path, PurePosixPath

from eval.config.control_arms import CONTROL_PREFIX, without_controls
from eval.config.find import PRESETS, preset_names
from eval.config.loading import ALL_ARMS, DEFAULT_ARMS, load_config
from eval.config.schema import Config
from eval.config.yaml_files import write_yaml
from eval.report.view import Repeat
from eval.results.schema import ArmRun, Result


def relative(text: str, result: Result) -> str:
    """Without the folders of the machine on which the run was made."""
    for root in _roots(result):
        text = text.replace(f"{root}/", "")
    text = re.sub(r"/[^\s'\"]*/(?=site-packages/)", "", text)
    # Of any other absolute path, only the last part.
    return re.sub(r"(?<![\w.:/])/(?:[\w.+@-]+/)+(?=[\w.+@-])", "", text)


def server_commands(result: Result) -> list[tuple[str, str]]:
    """Each arm's name and the command line of its server, one option a line; else its url."""
    return [(arm.name, relative(_server(arm), result)) for arm in result.arms]


def _server(arm: ArmRun) -> str:
    return f"(elsewhere, {arm.elsewhere.url})" if arm.elsewhere else _shell(arm.command)


def repeat(result: Result) -> Repeat:
    """How to make it again."""
    command, saved = repeat_command(result)
    return Repeat(command, saved, configuration(result), server_commands(result))


def repeat_command(result: Result) -> tuple[str, str | None]:
    """The command that repeats a run, and the configuration to save first if it is not ours."""
    config, controls = _controls_apart(result.config)
    options = "".join(f" --control {name}" for name in controls)
    if any(arm.elsewhere and arm.elsewhere.with_key for arm in result.arms):
        options += " --api-key-env NAME"
    for file, arms in product(_presets_of(config.model), (DEFAULT_ARMS, ALL_ARMS)):
        preset = load_config(file, arms=arms)
        renamed = preset.model_copy(update={"name": config.name})
        if renamed.sha256() == config.sha256():
            named = f" --name {config.name}" if preset.name != config.name else ""
            named += f" --arms {arms}" if arms != DEFAULT_ARMS else ""
            return f"python -m eval run eval/config/presets/{file.name}{named}{options}", None
    return f"python -m eval run {config.name}.yaml{options}", configuration(result)


def _presets_of(model: str) -> Iterator[Path]:
    """Those that may be of this model: to parse all of them takes a second."""
    for name in preset_names():
        file = PRESETS / f"{name}.yaml"
        if model in file.read_text(encoding="utf-8"):
            yield file


def configuration(result: Result) -> str:
    """The configuration, defaults included, as YAML; the arms of controls are left out."""
    config, _ = _controls_apart(result.config)
    values = config.model_dump(mode="json", exclude_none=True)
    return relative(write_yaml(values), result)


def _controls_apart(config: Config) -> tuple[Config, list[str]]:
    """The configuration that ``--control`` added arms to, and the names that it was given."""
    arms = without_controls(config.arms)
    names = [arm.name.removeprefix(CONTROL_PREFIX) for arm in config.arms if arm not in arms]
    return config.model_copy(update={"arms": arms}), names


def _roots(result: Result) -> list[str]:
    """Where ``runs/NAME`` was, as the servers' command lines tell."""
    found = re.findall(
        r'"events_dir": "([^"]+?)/runs/[^"/]+/arms/',
        " ".join(part for arm in result.arms for part in arm.command),
    )
    return sorted(set(found), key=len, reverse=True)


def _shell(command: Sequence[str]) -> str:
    program, *arguments = command
    words = [without_folder(program), *map(shlex.quote, arguments)]
    return re.sub(r" (?=--)", " \\\n    ", " ".join(words))


def without_folder(path: str) -> str:
    return PurePosixPath(path).name if path.startswith("/") else path


def environment(results: Sequence[Result]) -> Iterator[tuple[str, list[str]]]:
    """Rows of names and values, one for each run."""
    yield "vLLM", [_vllm(r) for r in results]
    yield "vllm-eplb-plugin", [_plugin(r) for r in results]
    for name in ("lm_eval", "torch", "transformers", "python"):
        yield name.replace("_", "-"), [getattr(r.versions, name) or "none" for r in results]
    yield "processor", [f"{r.machine.processor}, {r.machine.cores} cores" for r in results]
    yield "accelerators", [", ".join(r.machine.accelerators) or "none" for r in results]
    yield "memory", [f"{r.machine.memory_gib} GiB" for r in results]
    yield "model", [without_folder(r.config.model) for r in results]
    for task in results[0].config.tasks:
        hashes = [
            "left out"
            if task.name in r.left_out
            else r.task_hashes.get(task.name, "not asked")[:16]
            for r in results
        ]
        yield f"{task.name}, hash", hashes
    yield "seeds", [", ".join(f"{k} {v}" for k, v in r.seeds or ()) or "none" for r in results]
    yield "configuration, sha256", [r.config_sha256[:16] for r in results]
    yield "started", [f"{r.started:%Y-%m-%d %H:%M} UTC" for r in results]
    yield "took", [f"{(r.finished - r.started).total_seconds() / 60:.1f} min" for r in results]


def _vllm(result: Result) -> str:
    """What served: of the harness's servers, and of those elsewhere as they said it."""
    here = [_release(result.versions.vllm_distribution, result.versions.vllm)]
    found = [arm.elsewhere.release or "untold" for arm in result.arms if arm.elsewhere]
    elsewhere = [f"elsewhere {release}" for release in dict.fromkeys(found)]
    return ", ".join([*(here if result.config.starts_servers else []), *elsewhere]) or "elsewhere"


def _plugin(result: Result) -> str:
    nothing_here = "none" if result.config.starts_servers else "elsewhere"
    return result.versions.vllm_eplb_plugin or nothing_here


def _release(distribution: str | None, version: str | None) -> str:
    return f"{version} ({distribution})" if version else "not installed beside the harness"
