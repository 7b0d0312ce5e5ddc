# SPDX-License-Identifier: Apache-2.0
"""Whether a model with a name on the Hugging Face Hub is there for the server to load."""

from collections.abc import Callable, Mapping
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread

import huggingface_hub
from huggingface_hub import constants
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from eval.errors import ConfigError
from eval.preflight.model_files import problem_with

HUB_SECONDS = 10
"""For its answer, whatever it is asked."""

_YES = ("1", "ON", "YES", "TRUE")
# The others are those of its HTTP client, which is another one from release to release.
HUB_ERRORS: tuple[type[Exception], ...] = (
    OSError,
    *(base for base in HfHubHTTPError.__bases__ if issubclass(base, Exception)),
)


def find_on_hub(model: str, environment: Mapping[str, str]) -> str:
    """Look in the Hub's cache, then ask the Hub.

    Args:
        model: Its name, ``owner/name``.
        environment: That the server will have: it decides where the cache is and whether the Hub
            may be asked at all.

    Returns:
        Where it is, for the person.

    Raises:
        ConfigError: It is neither in the cache, whole, nor on a Hub that can be reached.
    """
    cache = _cache(environment)
    try:
        problem = problem_with(_snapshot(model, environment))
    except HFValidationError as error:
        raise ConfigError(f"model {model!r} is neither a folder nor a name: {error}") from error
    except OSError:
        problem = f"it is not in the cache {cache}"
    if problem is None:
        return f"{model}, in the cache {cache}"
    if environment.get("HF_HUB_OFFLINE", "").upper() in _YES:
        raise ConfigError(
            f"model {model}: {problem}, and HF_HUB_OFFLINE forbids to ask the Hub. Get it with "
            f"`hf download {model}` where the Hub can be reached, or set model to a folder"
        )
    api = huggingface_hub.HfApi(endpoint=environment.get("HF_ENDPOINT"))
    token = environment.get("HF_TOKEN")
    refusal = problem_of_hub(lambda: api.model_info(model, timeout=HUB_SECONDS, token=token))
    if refusal is not None:
        raise ConfigError(
            f"model {model}: {problem}, and the Hub does not give it ({refusal}). Set "
            "model to a folder, or let this machine reach the Hub"
        )
    return f"{model}, on the Hub: the first server downloads it"


def folder_in_cache(model: str, environment: Mapping[str, str]) -> Path | None:
    """What the Hub's cache has of a model; None: nothing."""
    try:
        return _snapshot(model, environment)
    except (OSError, HFValidationError):
        return None


def _snapshot(model: str, environment: Mapping[str, str]) -> Path:
    cache = _cache(environment)
    return Path(huggingface_hub.snapshot_download(model, cache_dir=cache, local_files_only=True))


def problem_of_hub(ask: Callable[[], object]) -> str | None:
    """Why the Hub does not give something; None: it does.

    Args:
        ask: Asks it; raises one of `HUB_ERRORS`.
    """
    answer: SimpleQueue[str | None] = SimpleQueue()

    def put_answer() -> None:
        try:
            ask()
        except HUB_ERRORS as error:
            answer.put(first_line(error))
        else:
            answer.put(None)

    # In a thread that nobody waits for: looking up a name has no timeout of its own.
    Thread(target=put_answer, daemon=True).start()
    try:
        return answer.get(timeout=HUB_SECONDS)
    except Empty:
        return f"no answer within {HUB_SECONDS} s"


def first_line(error: BaseException) -> str:
    """Of its message, which may have many."""
    text = str(error).strip()
    return text.splitlines()[0] if text else repr(error)


def _cache(environment: Mapping[str, str]) -> Path:
    """As huggingface_hub finds it."""
    if "HF_HUB_CACHE" in environment:
        return Path(environment["HF_HUB_CACHE"]).expanduser()
    if "HF_HOME" in environment:
        return Path(environment["HF_HOME"]).expanduser() / "hub"
    return Path(constants.HF_HUB_CACHE)
