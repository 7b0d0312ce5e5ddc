# SPDX-License-Identifier: Apache-2.0
"""How servers are started: the key ``serve``."""

import math
from typing import Annotated

from pydantic import AfterValidator, Field, JsonValue, PositiveFloat, field_validator

from eval.config.section import Section
from eval.config.vllm_options import check_options, full_name


def _can_be_set(environment: dict[str, str]) -> dict[str, str]:
    for name in environment:
        if not name or "=" in name:
            raise ValueError(f"{name!r} is no name of an environment variable")
    return environment


Environment = Annotated[dict[str, str], AfterValidator(_can_be_set)]


class Serve(Section):
    """How a server is started, the same for every arm."""

    executable: str | None = None
    """None: the ``vllm`` beside this Python, else the one on PATH."""
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    """None: a free one."""
    start_timeout: PositiveFloat = 600
    """Seconds until the server has to be healthy."""
    gpu_memory_gib: PositiveFloat | None = None
    """Memory that each GPU must have; none: whatever is there is tried."""
    options: dict[str, JsonValue] = Field(default_factory=dict)
    """Of ``vllm serve``, without the leading dashes."""
    environment: Environment = Field(default_factory=dict)
    """Added to the environment of the server and of the oracle."""

    @field_validator("options")
    @classmethod
    def _options_mean_to_vllm_what_they_mean_here(
        cls, options: dict[str, JsonValue]
    ) -> dict[str, JsonValue]:
        check_options(options)
        return options

    def option(self, name: str) -> JsonValue:
        """An option's value, however its name is spelt; None: not given."""
        return {full_name(one): value for one, value in self.options.items()}.get(name)

    def degree(self, option: str) -> int:
        """The size of one parallel dimension, such as ``data-parallel-size``."""
        value = self.option(option)
        return value if isinstance(value, int) else 1

    @property
    def ranks(self) -> int:
        """Of expert parallelism."""
        sizes = ("data-parallel-size", "prefill-context-parallel-size", "tensor-parallel-size")
        return math.prod(map(self.degree, sizes))

    def gpus(self) -> int:
        """GPUs of this machine that a server takes."""
        local = "data-parallel-size-local"
        data = local if self.option(local) is not None else "data-parallel-size"
        others = ("prefill-context-", "tensor-", "pipeline-")
        return math.prod(map(self.degree, (data, *(f"{one}parallel-size" for one in others))))
