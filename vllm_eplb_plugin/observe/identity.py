# SPDX-License-Identifier: Apache-2.0
"""By what ranks and models are told apart in events."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Source:
    """A source is the rank whose events these are."""

    rank: int
    """EP rank; every pipeline stage has a rank 0."""
    global_rank: int
    """Rank in the whole server, which no other process has; it names the file."""
    stage: int
    """Pipeline stage, 0 without pipeline parallelism."""

    def __post_init__(self) -> None:
        if min(self.rank, self.global_rank, self.stage) < 0:
            raise ValueError(f"a rank or a stage below 0: {self}")

    @property
    def speaks_for_all(self) -> bool:
        """This rank tells what all EP ranks of its stage know."""
        return self.rank == 0


@dataclass(frozen=True)
class ModelId:
    """A model of an `EplbState`, among others."""

    model: str
    """The name that vLLM gives the model; before 0.32 a drafter has that of its target."""
    model_index: int
    """Its place in the `EplbState`: 0 is the model that is served, a drafter follows."""
