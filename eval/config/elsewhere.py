# SPDX-License-Identifier: Apache-2.0
"""Arms whose servers run elsewhere: what their keys may say, and what cannot be applied to them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator

if TYPE_CHECKING:
    from eval.config.schema import Arm
    from eval.config.serve_section import Serve


def _checked_url(url: str) -> str:
    """As it was, but for a slash at its end."""
    try:
        parts = urlsplit(url)
        host = re.fullmatch(r"[\w.-]+|[\da-f:.]+", parts.hostname or "", re.ASCII)
        usable = parts.scheme in ("http", "https") and host is not None and parts.port != 0
    except ValueError:
        usable = False
    if not usable or re.search(r"[\s\x00-\x1f\x7f]", url):
        raise ValueError("must be the address of a server, such as http://127.0.0.1:8000")
    if parts.query or parts.fragment:
        raise ValueError("must end before ? and #: paths such as /v1/completions are added to it")
    if parts.path.rstrip("/").endswith("/v1"):
        raise ValueError("must end before /v1, because /metrics and /version stand beside that")
    return url.rstrip("/")


ServerUrl = Annotated[str, AfterValidator(_checked_url)]
"""Of a server, without the paths that are asked."""


def same_server(one: str, other: str) -> bool:
    """Whether two addresses are one, whoever asks it."""
    return _place(one) == _place(other)


def _place(url: str) -> tuple[str, str | None, int | None, str]:
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    return parts.scheme, parts.hostname, port, parts.path


def problem_of_arms(arms: Sequence[Arm], serve: Serve) -> str | None:
    """Why servers that run elsewhere cannot be what is said of them; None: they can."""
    return next(_problems(arms, serve), None)


def _problems(arms: Sequence[Arm], serve: Serve) -> Iterator[str]:
    for arm in arms:
        yield from _of_one(arm)
    for one, other in combinations([arm for arm in arms if arm.url is not None], 2):
        yield from _of_two(one, other)
    if any(arm.url is None for arm in arms):
        return
    for key in ("executable", "port", "gpu_memory_gib"):
        if getattr(serve, key) is not None:
            yield (
                f"serve.{key} is of servers that the harness starts, and every arm has a url: "
                "leave it out"
            )


def _of_one(arm: Arm) -> Iterator[str]:
    if arm.url is None:
        for key in ("served_model", "events"):
            if getattr(arm, key) is not None:
                yield (
                    f"arm {arm.name}: {key} is of a server that runs elsewhere: give its url, too, "
                    f"or leave {key} out"
                )
        return
    if arm.environment:
        yield (
            f"arm {arm.name}: environment ({', '.join(arm.environment)}) cannot reach a server "
            "that runs elsewhere, at its url: set it where that is started, and leave it out here"
        )
    if "fault" in arm.plugin:
        yield (
            f"arm {arm.name}: plugin.fault is put into a server when the harness starts it, and "
            "this one runs elsewhere, at its url: leave one of the two out"
        )


def _of_two(one: Arm, other: Arm) -> Iterator[str]:
    assert one.url is not None and other.url is not None
    if same_server(one.url, other.url) and (one.eplb, one.plugin) != (other.eplb, other.plugin):
        yield (
            f"arms {one.name} and {other.name} have one url, and eplb or plugin of them differ: "
            "a server is one of the two. Name another url"
        )
    if one.events is not None and one.events == other.events:
        yield (
            f"arms {one.name} and {other.name} have one folder of events, {one.events}: each "
            "server writes into a folder of its own (events_dir)"
        )
