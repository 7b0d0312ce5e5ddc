# SPDX-License-Identifier: Apache-2.0
"""What is installed where the server runs: asked of ``vllm-eplb doctor`` beside its ``vllm``."""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, JsonValue, ValidationError

from eval.errors import InstallationError
from eval.interrupts import interrupts_raise
from eval.secrets import SECRETS
from eval.serving.kernel import die_with_the_parent

_TIMEOUT_SECONDS = 300


class Gpu(BaseModel):
    """One that the server would see."""

    name: str
    memory_gib: float
    free_gib: float


class Processor(BaseModel):
    """The one that a build for the CPU would serve on."""

    name: str
    features: tuple[str, ...]
    """Instructions that decide which kernels vLLM takes."""
    kernels: str | None
    """Those that it takes."""


class Installation(BaseModel):
    """Of what ``vllm-eplb doctor --json`` prints, what decides whether a server can run."""

    works: bool
    problems: list[str]
    installed: str | None
    """Release and distribution of vLLM."""
    on_cpu: bool
    """Whether that vLLM is built for the CPU."""
    processor: Processor | None = None
    """None: vLLM is built for GPUs."""
    gpus: list[Gpu]
    deep_ep: str | None
    """Why DeepEP cannot be used; none: it can."""
    deep_ep_v2: str | None = None
    """The same of its second interface."""


def find_doctor(executable: str) -> Path | None:
    """``vllm-eplb`` of the environment that ``executable``, a ``vllm``, is of."""
    beside = (Path(executable), Path(executable).resolve())
    doctors = (one.with_name("vllm-eplb") for one in beside)
    return next((one for one in doctors if one.exists()), None)


def examine(
    doctor: Path, environment: Mapping[str, str], settings: Sequence[Mapping[str, JsonValue]] = ()
) -> Installation:
    """Ask a ``vllm-eplb``; it imports vLLM, which takes seconds.

    Args:
        doctor: From `find_doctor`.
        environment: That the server will have besides this process's own.
        settings: Of the plugin, which the server's plugin has to know.

    Raises:
        InstallationError: It gives no answer; has the end of what it printed.
    """
    command = [str(doctor), "doctor", "--json"]
    given = [json.dumps({"eplb_plugin": dict(one)}) for one in settings]
    for text in dict.fromkeys(given):
        command += ["--additional-config", text]
    try:
        # An interrupt ends it, too.
        with interrupts_raise():
            done = subprocess.run(
                command,
                env={**os.environ, **environment},
                capture_output=True,
                text=True,
                timeout=_TIMEOUT_SECONDS,
                preexec_fn=die_with_the_parent,
            )
        return Installation.model_validate(json.loads(SECRETS.hide(done.stdout)))
    except subprocess.TimeoutExpired as error:
        raise InstallationError(
            f"`{doctor} doctor` has not ended within {_TIMEOUT_SECONDS} s"
        ) from error
    except OSError as error:
        raise InstallationError(f"{doctor} cannot be started: {error.strerror}") from error
    except (ValueError, ValidationError) as error:
        lines = (done.stderr or done.stdout).strip().splitlines()[-5:]
        raise InstallationError(
            f"`{doctor} doctor --json` has no answer that this harness can read (exit status "
            f"{done.returncode}). Install the plugin of this checkout there. It printed:\n"
            + "\n".join(lines)
        ) from error
