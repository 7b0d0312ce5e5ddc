# SPDX-License-Identifier: Apache-2.0
"""What a server's /metrics said at some times: the parts by which a run is judged. Pure functions.

They are kept in a file of the arm, a line a scrape, so that the run can be judged again.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families
from pydantic import BaseModel, ConfigDict, ValidationError

from eval.errors import EventsError

FILE = "metrics.jsonl"
"""In an arm's folder."""
_OF_EPLB = "vllm:eplb_"
_STARTED = "process_start_time_seconds"
_TOKENS = "vllm:generation_tokens_total"


class Series(BaseModel):
    """One value, with what tells it from others of its name."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: str
    labels: dict[str, str]
    value: float

    @property
    def key(self) -> tuple[str, ...]:
        """What stays the same from scrape to scrape."""
        return (self.name, *(f"{name}={self.labels[name]}" for name in sorted(self.labels)))


class Scrape(BaseModel):
    """What one look at /metrics gave."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    time: float
    """When it was asked for, in Unix seconds."""
    process_started: float | None
    """When the server's process did, in Unix seconds; none: it does not tell."""
    generated_tokens: float | None
    """Since then, all engines together; none: these are no metrics of vLLM."""
    names_eplb: bool
    """Whether the plugin's metrics are there, with values or, before the first step, without;
    false: EPLB is off, or the plugin is."""
    eplb: list[Series]
    """Their values."""

    def values(self, name: str) -> dict[tuple[str, ...], Series]:
        """The series of one metric of EPLB, given without its first words."""
        return {one.key: one for one in self.eplb if one.name == f"{_OF_EPLB}{name}"}

    def total(self, name: str) -> float:
        """Their sum; 0 when there is none."""
        return math.fsum(one.value for one in self.values(name).values())


def read_scrape(text: str, time: float) -> Scrape:
    """Take what is needed from Prometheus's text.

    Args:
        text: What /metrics answered.
        time: When, in Unix seconds.

    Raises:
        ValueError: It is no such text.
    """
    started: float | None = None
    tokens: list[float] = []
    eplb: list[Series] = []
    named = False
    for family in text_string_to_metric_families(text):
        named = named or family.name.startswith(_OF_EPLB)
        for sample in family.samples:
            if not math.isfinite(sample.value):
                continue
            if sample.name == _STARTED:
                started = sample.value
            elif sample.name == _TOKENS:
                tokens.append(sample.value)
            elif sample.name.startswith(_OF_EPLB):
                eplb.append(Series(name=sample.name, labels=sample.labels, value=sample.value))
    generated = math.fsum(tokens) if tokens else None
    return Scrape(
        time=time,
        process_started=started,
        generated_tokens=generated,
        names_eplb=named,
        eplb=eplb,
    )


def read_kept(folder: Path) -> list[Scrape]:
    """Those of an arm, in their order; there may be none.

    Raises:
        EventsError: A line is no scrape; names the file and the line.
    """
    file = folder / FILE
    if not file.exists():
        return []
    found = []
    for number, line in enumerate(file.read_bytes().splitlines(), start=1):
        try:
            found.append(Scrape.model_validate_json(line))
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]["msg"]
            raise EventsError(
                f"{file}, line {number}: not a scrape of /metrics: {problem}"
            ) from error
    return found


def another_process(scrapes: Sequence[Scrape]) -> str | None:
    """What shows that not all scrapes are of one server's life; None: nothing does."""
    return next((said for pair in pairwise(scrapes) for said in _differences(*pair)), None)


def _differences(before: Scrape, after: Scrape) -> Iterator[str]:
    if before.process_started != after.process_started:
        yield f"{_STARTED} was {before.process_started} and is {after.process_started}"
    tokens = before.generated_tokens, after.generated_tokens
    if tokens[0] is not None and (tokens[1] is None or tokens[1] < tokens[0]):
        yield f"{_TOKENS} was {tokens[0]:g} and is {_or_none(tokens[1])}"
    later = {one.key: one.value for one in after.eplb}
    for one in before.eplb:
        if one.name.endswith("_total") and later.get(one.key, -1.0) < one.value:
            yield f"{one.name} was {one.value:g} and is {_or_none(later.get(one.key))}"


def _or_none(value: float | None) -> str:
    return "not told" if value is None else f"{value:g}"
