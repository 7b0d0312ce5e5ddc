# SPDX-License-Identifier: Apache-2.0
"""Whether a model with a name on the Hugging Face Hub is there for the server to load."""

from collections.abc import Mapping
from pathlib import Path

import huggingface_hub
from huggingface_hub import constants
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from eval.errors import ConfigError
from eval.preflight.model_files import problem_with

_TIMEOUT_SECONDS = 15
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
        snapshot = huggingface_hub.snapshot_download(model, cache_dir=cache, local_files_only=True)
        problem = problem_with(Path(snapshot))
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
    try:
        huggingface_hub.HfApi(endpoint=environment.get("HF_ENDPOINT")).model_info(
            model, timeout=_TIMEOUT_SECONDS, token=environment.get("HF_TOKEN")
        )
    except HUB_ERRORS as error:
        raise ConfigError(
            f"model {model}: {problem}, and the Hub does not give it ({first_line(error)}). Set "
            "model to a folder, or let this machine reach the Hub"
        ) from error
    return f"{model}, on the Hub: the first server downloads it"


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
