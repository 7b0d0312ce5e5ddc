# SPDX-License-Identifier: Apache-2.0
"""Whether servers that run elsewhere can be asked, and are what the configuration says of them."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
from rich.console import Console

from eval.activity.by_metrics import modes_between, state_of_eplb
from eval.activity.events import files_of_all_ranks
from eval.activity.scrapes import Scrape, read_scrape
from eval.config.schema import Arm, Config
from eval.errors import EvaluationError
from eval.preflight.fitness import Finding
from eval.serving.elsewhere import Elsewhere

_MOST_SECONDS_APART = 3.0
"""Of two clocks; what a server tells is in whole seconds."""

OF_AN_ARM = "arm "
"""Begins the subjects of what is found here."""

_WITHOUT_METRICS = (
    "so neither a restart in the middle nor tokens a second will be known: name the url of the "
    "server itself, where a router does not pass /metrics on"
)
_WITHOUT_ANYTHING = (
    "so nothing will show what EPLB does there, or a restart in the middle, and the gate will not "
    "pass: name the url of the server itself, where a router does not pass /metrics on"
)
_WITHOUT_EVENTS = (
    "no folder is named, so rules that need them are not tested, and the gate will not pass: mount "
    "the folder of its plugin's events_dir, and name it by events of the arm"
)
_WITHOUT_LOG = (
    "it is not here, and of vLLM's own EPLB nothing else tells, so the gate will not pass: start "
    "that server with the plugin, or leave the arm out"
)


def look_elsewhere(
    config: Config, arms: Sequence[Arm], key: str | None, console: Console
) -> list[Finding]:
    """Look at every server that was not started here; nothing is asked of a model.

    Args:
        config: Whose arms they are.
        arms: Those that are yet to be asked; of one that is started here nothing is found.
        key: For their servers.
        console: Shows that something is going on.
    """
    elsewhere = [arm for arm in arms if arm.url is not None]
    if not elsewhere:
        return []
    with console.status("looking at servers elsewhere"):
        return [finding for arm in elsewhere for finding in _look_at(config, arm, key)]


def _look_at(config: Config, arm: Arm, key: str | None) -> Iterator[Finding]:
    label = f"{OF_AN_ARM}{arm.name}"
    server = Elsewhere(config, arm, key)
    try:
        server.require_own_answers(label)
    except EvaluationError as error:
        yield Finding(label, "missing", str(error).removeprefix(f"{label}: "))
        return
    release = server.release()
    by = f"vLLM {release}" if release else "a server that does not tell its release"
    yield Finding(label, "found", f"{server.shown} serves {server.model_name}, by {by}")
    stock = config.is_stock(arm)
    events = [] if stock else list(_look_at_events(label, arm, server))
    scrape, unreadable = _scrape(server)
    any_events = any(one.status == "found" for one in events)
    contradiction = _contradiction(config, arm, scrape, any_events)
    yield from events
    if stock:
        yield Finding(f"{label}, log", "not checked", _WITHOUT_LOG)
    if contradiction is not None:
        yield Finding(label, "missing", f"{server.shown}/metrics {contradiction}")
    elif scrape is not None and scrape.generated_tokens is not None:
        yield Finding(f"{label}, metrics", "found", _told(scrape))
    else:
        why = unreadable or f"what {server.shown}/metrics tells is not of a vLLM"
        so = _WITHOUT_METRICS if any_events and arm.eplb is not None else _WITHOUT_ANYTHING
        yield Finding(f"{label}, metrics", "not checked", f"{why}, {so}")


def _look_at_events(label: str, arm: Arm, server: Elsewhere) -> Iterator[Finding]:
    if arm.events is not None:
        yield _look_into(Path(arm.events), f"{label}, events", server)
    elif arm.eplb is not None:
        yield Finding(f"{label}, events", "not checked", _WITHOUT_EVENTS)


def _look_into(folder: Path, subject: str, server: Elsewhere) -> Finding:
    if not folder.is_dir():
        return Finding(
            subject,
            "missing",
            f"there is no folder {folder}: mount the one that its plugin's events_dir names, or "
            "leave events out, and EPLB is judged by metrics",
        )
    try:
        files = files_of_all_ranks(folder)
        for file in files:
            with file.open("rb"):
                pass
    except OSError as error:
        return Finding(
            subject,
            "missing",
            f"{error.filename} cannot be read ({error.strerror}): make it readable, or leave "
            "events out, and EPLB is judged by metrics",
        )
    ahead = server.seconds_ahead()
    if ahead is not None and abs(ahead) > _MOST_SECONDS_APART:
        return Finding(
            subject,
            "missing",
            f"the server's clock is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} "
            "this machine's, and events are counted by their times: set the clocks by NTP, or "
            "leave events out, and EPLB is judged by metrics",
        )
    if not files:
        return Finding(subject, "not checked", f"no rank has written into {folder} yet")
    size = sum(file.stat().st_size for file in files) / 2**20
    return Finding(subject, "found", f"{len(files)} ranks, {size:.1f} MiB, in {folder}")


def _scrape(server: Elsewhere) -> tuple[Scrape | None, str]:
    """What its metrics say, or why they cannot be read."""
    asked = time.time()
    try:
        return read_scrape(server.metrics(), asked), ""
    except (httpx.HTTPError, ValueError) as error:
        return None, f"{server.shown}/metrics cannot be read ({type(error).__name__}: {error})"


def _told(scrape: Scrape) -> str:
    state = state_of_eplb(scrape)
    if not scrape.names_eplb:
        return "of vLLM, with nothing of EPLB"
    if not scrape.eplb:
        return "EPLB is there, and no rank has made a step"
    ended = int(scrape.total("rearrangements_total"))
    return f"EPLB is {state[0] if state else 'there'}; rearrangements that ended: {ended}"


def _contradiction(config: Config, arm: Arm, scrape: Scrape | None, any_events: bool) -> str | None:
    """What metrics say otherwise than the configuration; None: nothing."""
    if scrape is None or scrape.generated_tokens is None:
        return None
    return next(_contradictions(config, arm, scrape, any_events), None)


def _contradictions(config: Config, arm: Arm, scrape: Scrape, any_events: bool) -> Iterator[str]:
    if arm.eplb is None:
        if scrape.names_eplb:
            yield (
                "tells of EPLB, and the arm has none: name the url of a server without "
                "--enable-eplb, or give the arm its eplb"
            )
        return
    plugin = config.plugin_settings(arm) or {}
    if config.is_stock(arm):
        if scrape.names_eplb:
            yield (
                "tells of the plugin's EPLB, and the arm has vLLM's own: leave out "
                "plugin.enabled: false, or name another url"
            )
        return
    told = "metrics" not in plugin or plugin["metrics"] is not None
    if not scrape.names_eplb and told and not any_events:
        yield (
            "tells nothing of EPLB, and the arm has eplb: start that server with --enable-eplb and "
            "with the plugin, or leave eplb out"
        )
    yield from _other_eplb(config, arm, scrape)


def _other_eplb(config: Config, arm: Arm, scrape: Scrape) -> Iterator[str]:
    state = state_of_eplb(scrape)
    if state is not None and state[0] != "on":
        yield (
            f"tells that EPLB is {state[0]} ({state[1]}), so nothing would move: turn it on again, "
            "or start that server anew"
        )
    assert arm.eplb is not None
    if arm.eplb.use_async is not None:
        said = "async" if arm.eplb.use_async else "sync"
        other = [mode for mode in modes_between(None, scrape) if mode != said]
        if other:
            yield (
                f"tells of rearrangements in mode {', '.join(other)}, and eplb.use_async of the "
                f"arm says {said}: change one of the two"
            )
    ranks = {int(one.labels["rank"]) for one in scrape.values("rank_age_seconds").values()}
    if ranks and max(ranks) >= config.serve.ranks:
        yield (
            f"tells of EP rank {max(ranks)}, and by serve.options there are {config.serve.ranks}: "
            "give the sizes with which that server was started"
        )
