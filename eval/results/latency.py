# SPDX-License-Identifier: Apache-2.0
"""What the latency benchmark asks and measures: parts of a result."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveInt

_PERCENTS = np.append(np.arange(0, 99, 1.0), np.arange(99, 100.01, 0.05)).round(2)


_DENSE_LAYERS = {"deepseek_v2": 1, "qwen3_moe": 0}
_LATENT_CHANNELS = 512 + 64
"""Of DeepSeek-V2's attention, as it is cached."""
_HEAD_CHANNELS = 128


class ModelShape(BaseModel):
    """The sizes of a DeepSeek-V2, or of a Qwen3 with experts.

    The default is thin and wide: many layers and experts, hardly any arithmetic. Its hidden sizes
    are the smallest that vLLM's CPU experts take; its attention heads have DeepSeek's own sizes,
    which GPU kernels want.
    """

    model_config = ConfigDict(frozen=True)

    architecture: Literal["deepseek_v2", "qwen3_moe"] = "deepseek_v2"
    moe_layers: PositiveInt = 58
    experts: PositiveInt = 256
    redundant: NonNegativeInt = 32
    experts_per_token: PositiveInt = 8
    hidden_size: PositiveInt = 64
    intermediate_size: PositiveInt = 64
    moe_intermediate_size: PositiveInt = 32
    shared_experts: NonNegativeInt = 1
    attention_heads: PositiveInt = 2
    key_value_heads: PositiveInt = 2
    """Of Qwen3; DeepSeek-V2 caches the same whatever it has."""
    vocabulary: PositiveInt = 1024
    max_positions: PositiveInt = 16384

    @property
    def dense_layers(self) -> int:
        """Before those with experts."""
        return _DENSE_LAYERS[self.architecture]

    @property
    def cache_bytes_a_token(self) -> int:
        """Of all layers' attention, in bfloat16."""
        channels = _LATENT_CHANNELS
        if self.architecture == "qwen3_moe":
            channels = 2 * self.key_value_heads * _HEAD_CHANNELS
        return 2 * channels * (self.dense_layers + self.moe_layers)


class Distribution(BaseModel):
    """Of times in milliseconds."""

    count: int
    """Of the times."""
    p50: float
    """Their median."""
    p99: float
    """What 99 of 100 stay below."""
    max: float
    """The longest."""
    curve: list[tuple[float, float]]
    """Percent of the times, and what they stay below."""

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "Distribution | None":
        """None of none."""
        if not seconds:
            return None
        milliseconds = np.array(seconds) * 1e3
        below = np.percentile(milliseconds, _PERCENTS).round(4)
        p50, p99, most = np.percentile(milliseconds, [50, 99, 100]).round(4)
        curve = list(zip(_PERCENTS.tolist(), below.tolist(), strict=True))
        return cls(count=len(milliseconds), p50=p50, p99=p99, max=most, curve=curve)


LoadName = Literal["steady", "switching"]
"""``steady``: one completion a stream, all of them alike; ``switching``: one after another, of
prompts whose domains take turns."""


class LatencyWorkload(BaseModel):
    """What was served and asked, besides what the configuration says."""

    shape: ModelShape
    """Of the random model."""
    streams: int
    """Completions at the same time."""
    tokens: int
    """Of each."""
    loopback: bool
    """Whether ranks shared what they ran on."""
    gpus: int
    """That the servers used; 0: they ran on the CPU."""
    servers_at_once: int
    """Started together; each was measured while the others had nothing to do."""
    load: LoadName = "steady"
    """What was asked."""
    completions: int | None = None
    """In all, at most; none: one a stream."""
    turn: int | None = None
    """Prompts of one domain before the first of the next; none: all prompts are alike."""
    most_seconds: float | None = None
    """After which an arm was asked for no further completion; none: until it had all."""
    ranks: int = 2
    """Of expert parallelism."""
    most_p99: float | None
    """So many times the p99 between tokens of arm ``off`` are allowed; none: any."""


class LatencyTimes(BaseModel):
    """Of one server, measured while all completions were streamed."""

    rearranging_steps: float
    """Share of the engine steps in which a rearrangement began or was under way."""
    state_manager: Distribution | None
    """For how long `EplbState.step` held the thread that runs the model, in these steps: in sync
    mode, the stall of a whole rearrangement."""
    between_tokens: Distribution | None
    """Between two tokens of one completion; none: no completion got that far."""
    rearrangement_ms: float | None = None
    """For how long one was under way, the mean: by the step times, which every arm has."""
    slow: float
    """Share of these that are more than twice the median."""
    gpu_memory_mib: int | None
    """In use at the end by the server, on all its GPUs together; None: not known."""
    completions: list[int] = []
    """Tokens of each completion, as the server says; results of schema 2 have none."""
