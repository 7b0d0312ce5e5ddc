# SPDX-License-Identifier: Apache-2.0
"""What a running server is asked over HTTP."""

import http.client
import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

_SECONDS = 15.0
"""For an answer: longer than a server waits for its engines."""


class ServerError(RuntimeError):
    """A server does not answer, or not as it should; the message names the next step."""


@dataclass(frozen=True)
class Answer:
    """What a server answered."""

    status: int
    text: str

    def json(self) -> Any:
        """Read it.

        Raises:
            ServerError: It is no JSON.
        """
        try:
            return json.loads(self.text)
        except ValueError as error:
            raise ServerError(f"this is no answer of vLLM's: {self.text[:200]!r}") from error

    @property
    def reason(self) -> str:
        """Why it is no success, as vLLM says it."""
        try:
            told = json.loads(self.text)
            error = told.get("error", told.get("detail"))
            return str(error.get("message") if isinstance(error, dict) else error)
        except (ValueError, AttributeError):
            return self.text[:200] or f"HTTP {self.status}"


@dataclass(frozen=True)
class ServerClient:
    """A server, and the key that it asks for."""

    url: str
    key: str | None = None

    def __call__(self, path: str, method: str = "GET") -> Answer:
        """Ask it.

        Raises:
            ServerError: It does not answer.
        """
        headers = {} if self.key is None else {"Authorization": f"Bearer {self.key}"}
        request = urllib.request.Request(
            f"{self.url.rstrip('/')}{path}", headers=headers, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=_SECONDS) as response:
                return Answer(response.status, response.read().decode(errors="replace"))
        except urllib.error.HTTPError as error:
            return Answer(error.code, error.read().decode(errors="replace"))
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise ServerError(f"{self.url} does not answer: {error}") from error
