# SPDX-License-Identifier: Apache-2.0
"""What a server says of itself over HTTP: its health, the names of its model, its metrics."""

import math
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

import httpx
from prometheus_client.parser import text_string_to_metric_families
from pydantic import BaseModel, ValidationError

_SECONDS = 5
_MOST_BYTES = 2**24


class ServedModel(BaseModel):
    """One of those that a server answers for."""

    id: str
    """By which it is asked."""
    root: str | None = None
    """What was loaded: a folder, or a name on the Hub; none: the server does not tell."""


class _Models(BaseModel):
    data: list[ServedModel]


class _Version(BaseModel):
    version: str


class Endpoints:
    """Those of one server. A proxy or a key of the environment is not for it."""

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        self._client = httpx.Client(
            base_url=url, headers=headers, timeout=_SECONDS, trust_env=False
        )

    def healthy(self) -> bool:
        """Whether it can be asked."""
        try:
            self._get("/health")
        except httpx.HTTPError:
            return False
        return True

    def names(self) -> list[str]:
        """Of its model.

        Raises:
            httpx.HTTPError: No answer, or an error.
            ValueError: The answer is not a list of models.
        """
        return [model.id for model in self.models()]

    def models(self) -> list[ServedModel]:
        """Its model, once for each name.

        Raises:
            httpx.HTTPError: No answer, or an error.
            ValueError: The answer is not a list of models.
        """
        body = self._get("/v1/models")
        try:
            return _Models.model_validate_json(body).data
        except ValidationError as error:
            raise ValueError(error.errors()[0]["msg"]) from error

    def release(self) -> str | None:
        """Of its vLLM; None: it does not tell."""
        try:
            return _Version.model_validate_json(self._get("/version")).version
        except (httpx.HTTPError, ValidationError):
            return None

    def seconds_ahead(self) -> float | None:
        """Of its clock, of this machine's; None: it does not tell, or not in words of HTTP."""
        asked = time.time()
        try:
            with self._client.stream("GET", "/version") as response:
                told = parsedate_to_datetime(response.headers.get("Date", "")).timestamp()
        except (httpx.HTTPError, ValueError):
            return None
        # It tells whole seconds.
        return told + 0.5 - (asked + time.time()) / 2

    def metrics(self) -> str:
        """Prometheus's text, as far as it is one.

        Raises:
            httpx.HTTPError: No answer, or an error.
            ValueError: The answer is not text.
        """
        return self._get("/metrics").decode()

    def sum_of_metric(self, name: str) -> float:
        """See `sum_of_metric`.

        Raises:
            httpx.HTTPError: No answer, or an error.
            ValueError: The answer is not Prometheus's text.
        """
        return sum_of_metric(self.metrics(), name)

    def _get(self, path: str) -> bytes:
        body, deadline = bytearray(), time.monotonic() + _SECONDS
        with self._client.stream("GET", path) as response:
            response.raise_for_status()
            for chunk in response.iter_bytes():
                body += chunk
                if len(body) > _MOST_BYTES or time.monotonic() > deadline:
                    raise httpx.ReadTimeout(f"no end after {len(body)} bytes")
        return bytes(body)


def sum_of_metric(exposition: str, name: str) -> float:
    """Sum one metric of a Prometheus text over all its labels; 0 when it is not there.

    Raises:
        ValueError: It is no such text, or a value is not a number.
    """
    found = [
        sample.value
        for family in text_string_to_metric_families(exposition)
        for sample in family.samples
        if sample.name == name
    ]
    total = math.fsum(found)
    if not math.isfinite(total):
        raise ValueError(f"{name} is {total}")
    return total
