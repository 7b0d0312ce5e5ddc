# SPDX-License-Identifier: Apache-2.0
"""A server that runs elsewhere, on other machines or behind a router: asked, never started."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import PurePath
from urllib.parse import urlsplit

import httpx

from eval.config.schema import Arm, Config
from eval.errors import ConfigError, ServerError
from eval.secrets import SECRETS
from eval.serving.endpoints import Endpoints
from eval.serving.failure.refusals import status_in_words
from eval.serving.server import headers_for

_POLL_SECONDS = 0.5
_SECONDS_TO_ANSWER_AGAIN = 10.0


class Elsewhere:
    """One of them, as `eval.serving.server.Server` where both are asked the same."""

    def __init__(self, config: Config, arm: Arm, key: str | None) -> None:
        """Prepare, without asking anything.

        Args:
            config: Whose arm it is.
            arm: With a url.
            key: Shown to the server with every request; a url with a user in it takes none.
        """
        assert arm.url is not None
        self.url = arm.url
        self.model_name = arm.served_model or config.model
        """By which it is asked."""
        self.headers = {} if urlsplit(arm.url).username else headers_for(key)
        """Of every request to it."""
        self._model = config.model
        self._label = f"arm {arm.name}"
        self._endpoints = Endpoints(arm.url, self.headers)

    @property
    def shown(self) -> str:
        """Its address without a user and a password."""
        return SECRETS.hide(self.url)

    def release(self) -> str | None:
        """Of its vLLM; None: it does not tell."""
        return self._endpoints.release()

    def seconds_ahead(self) -> float | None:
        """Of its clock, of this machine's; None: it does not tell."""
        return self._endpoints.seconds_ahead()

    def metrics(self) -> str:
        """What its /metrics answers.

        Raises:
            httpx.HTTPError: No answer, or an error.
            ValueError: It is not text.
        """
        return self._endpoints.metrics()

    def require_own_answers(self, label: str) -> None:
        """Refuse a server that does not serve the run's model.

        Raises:
            ServerError: It serves another one, or there is no answer; says what ``label`` is.
        """
        with self._told_of(label, "/v1/models"):
            models = self._endpoints.models()
        found = [one for one in models if one.id == self.model_name]
        if not found:
            names = ", ".join(one.id for one in models) or "none"
            raise ServerError(
                f"{label}: the server at {self.url} serves {names}, not {self.model_name}: name "
                "another url, or, where that is the run's model under another name, set "
                "served_model of the arm to it"
            )
        root = found[0].root
        if root is not None and _last(root) not in (_last(self._model), self._model):
            raise ServerError(
                f"{label}: the server at {self.url} has loaded {root} and calls it "
                f"{self.model_name}, and the run's model is {self._model}: all arms have to serve "
                "the same. Name another url, or set model to what they serve"
            )

    def failure(self, message: str) -> ServerError:
        """An error that says ``message`` and where the rest is to be found."""
        return ServerError(f"{message}. It runs elsewhere, at {self.url}, and so its log is there")

    def stopped_answering(self, message: str, request: str) -> ServerError:
        """The same after a request failed.

        Args:
            message: What happened.
            request: What became of the request.
        """
        return self.failure(f"{message}: {request} ({self._answers_again()})")

    def _answers_again(self) -> str:
        began = time.monotonic()
        while (seconds := time.monotonic() - began) < _SECONDS_TO_ANSWER_AGAIN:
            try:
                self._endpoints.models()
            except (httpx.HTTPError, ValueError):
                time.sleep(_POLL_SECONDS)
            else:
                return f"it answers /v1/models {seconds:.0f} s later"
        return f"nothing answers there {_SECONDS_TO_ANSWER_AGAIN:g} s later"

    @contextmanager
    def _told_of(self, label: str, path: str) -> Iterator[None]:
        url = self.url + path
        try:
            yield
        except httpx.HTTPStatusError as error:
            status = error.response.status_code
            why = _refused(status, bool(self.headers))
            raise ServerError(
                f"{label}: {why} ({url} answered {status_in_words(status)})"
            ) from error
        except httpx.HTTPError as error:
            raise ServerError(
                f"{label}: no answer from {url} ({type(error).__name__}: {error}): start that "
                "server, make it reachable from here, or name another url"
            ) from error
        except ValueError as error:
            raise ServerError(
                f"{label}: what {url} answers cannot be read ({error}): name the url of a server "
                "of vLLM, to which paths such as /v1/models are added"
            ) from error


def key_of(config: Config, variable: str | None) -> str | None:
    """The key that ``--api-key-env`` names, which nothing shows or keeps from then on.

    Args:
        config: Has the arms that it is for.
        variable: Of the environment; None: no key is sent.

    Raises:
        ConfigError: There is no such variable, no arm that it is for, or no request can have what
            is in it.
    """
    if variable is None:
        return None
    if all(arm.url is None for arm in config.arms):
        raise ConfigError(
            f"--api-key-env {variable} is for arms with a url, and none has one: leave it out. A "
            "server that the harness starts takes its key from VLLM_API_KEY"
        )
    key = os.environ.get(variable, "")
    if not key:
        raise ConfigError(
            f"--api-key-env {variable}: there is no environment variable of this name, or it is "
            f"empty: export {variable}=KEY before, or name another"
        )
    SECRETS.learn({"api_key": key})
    if not key.isascii() or not key.isprintable() or key != key.strip():
        raise ConfigError(
            f"--api-key-env {variable}: its value has characters that no header of a request can "
            "have, such as the end of a line: export it without them"
        )
    return key


def _refused(status: int, has_key: bool) -> str:
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        if has_key:
            return "the server refuses the key that --api-key-env names: put the right one there"
        return (
            "the server wants an API key: put it into an environment variable, and name that by "
            "--api-key-env"
        )
    if status == HTTPStatus.NOT_FOUND:
        return "the server has no such path: url has to end where /v1/models and /metrics are added"
    return "the server does not answer as it should: look at its log, or name another url"


def _last(model: str) -> str:
    """What a model is called, wherever its folder is: also of one in the Hub's cache."""
    path = PurePath(model)
    for part in path.parts:
        if part.startswith("models--"):
            return part.rpartition("--")[2]
    return path.name
