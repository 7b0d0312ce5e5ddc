# SPDX-License-Identifier: Apache-2.0
"""What the throughput benchmark asks and measures: parts of a result."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, PositiveInt

from eval.results.latency import ModelShape

KindName = Literal["decode", "prefill"]
"""``decode``: short prompts, many tokens; ``prefill``: long prompts, few tokens."""
TrafficLoad = Literal["skewed", "drifting", "switching"]
"""``skewed``: one domain all the time; ``drifting``: from each domain to the next little by
little; ``switching``: domains take turns."""


_TOKENS_STREAMED = 32
"""Of each completion, on average over those that are streamed and those that are not."""


class Percentiles(BaseModel):
    """Of times in milliseconds."""

    count: int
    """Of the times."""
    p50: float
    """Their median."""
    p99: float
    """What 99 of 100 stay below."""

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "Percentiles | None":
        """None of none."""
        if not seconds:
            return None
        p50, p99 = np.percentile(np.array(seconds) * 1e3, [50, 99]).round(4).tolist()
        return cls(count=len(seconds), p50=p50, p99=p99)


class Traffic(BaseModel):
    """One kind of traffic; every arm is asked the same."""

    model_config = ConfigDict(frozen=True)

    name: str
    """Such as ``decode-switching``."""
    kind: KindName
    """Whether reading prompts or generating takes most of the time."""
    load: TrafficLoad
    """In which domains follow each other."""
    prompt_tokens: PositiveInt
    """Of a prompt; of texts, about as many, and ``decode`` takes each text as it is."""
    tokens: PositiveInt
    """Generated of each completion."""

    @property
    def streamed(self) -> int:
        """One of so many completions: of long ones few say when tokens come."""
        return max(1, self.tokens // _TOKENS_STREAMED)


class ThroughputWorkload(BaseModel):
    """What was served and asked, besides what the configuration says."""

    shape: ModelShape | None
    """Of the random model; none: a model was given."""
    skew: float | None
    """Of its router: the deviation of a domain's bias of an expert, 0: balanced traffic; none: a
    model was given."""
    domains: list[str]
    """Whose prompts were asked, in this order."""
    traffics: list[Traffic]
    """What each arm was asked in each round."""
    completions: int
    """Of each traffic in a round."""
    streams: int
    """Completions at the same time."""
    turn: int
    """Prompts of one domain before the first of the next, where domains take turns."""
    repeats: int
    """Rounds that count; before them each arm was asked some of every traffic."""
    ranks: int
    """Of expert parallelism."""
    gpus: int
    """That the servers used; 0: they ran on the CPU."""
    loopback: bool
    """Whether ranks shared what they ran on."""
    servers_at_once: int
    """Up together and asked in turns, round by round; with two or more, arm ``off`` was always
    one of them."""
    recorded_by: str | None
    """Arm whose loads arm ``warm`` began by; none: those of a recording that was given, or there
    was no such arm."""
    most_loss: float
    """Of tokens a second against arm ``off``, on balanced traffic, that has to be excluded."""


class Measurement(BaseModel):
    """One traffic in one round of one arm."""

    traffic: str
    """Its name."""
    round: int
    """From 1; in a round every arm was asked the same."""
    group: int
    """Servers that were up together have the same; from 1."""
    asked_from: float
    """The first request was sent, in Unix seconds."""
    seconds: float
    """Until the last token."""
    prompt_tokens: int
    """Read, as the server says."""
    generated_tokens: int
    """Generated, as the server says."""
    completions: int
    """Asked."""
    whole: int
    """Of these, with all tokens."""
    first_token: Percentiles | None
    """From a request to its first token, of those completions that were streamed."""
    between_tokens: Percentiles | None
    """Between two tokens of one completion, of the same."""
    asking: float
    """Share of the time for which the harness itself kept a core busy; near 1, it was what was
    measured."""
    front_end: float | None = None
    """The same of the process of the server that takes requests and gives answers; none: not
    known."""
    logged_rearrangements: int
    """That began meanwhile, as vLLM's log tells."""
    balancedness: float | None = None
    """As served: under the placement in force, the mean over the windows that were planned from;
    none: no event tells."""
    experts_received: int | None = None
    """By ranks, of others, in rearrangements that finished meanwhile; none: no event tells."""
    bytes_received: int | None = None
    """Of weights, by all ranks together; none: no event tells."""

    @property
    def tokens_per_second(self) -> float:
        """Read and generated."""
        return (self.prompt_tokens + self.generated_tokens) / self.seconds
