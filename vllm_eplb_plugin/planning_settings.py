# SPDX-License-Identifier: Apache-2.0
"""The options of planning: from where on, with which policy, within which limits, and when."""

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from vllm_eplb_plugin.option_values import WHOLE


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NamedOptions(_Options):
    """A policy or a step by its name, with its own parameters."""

    name: str = Field(min_length=1)
    parameters: dict[str, Any] = {}


def _read_name(value: object) -> object:
    # A name alone, or {name: parameters}; or one that was read already.
    if isinstance(value, NamedOptions):
        return value
    if isinstance(value, str):
        return {"name": value}
    if isinstance(value, dict) and len(value) == 1:
        [(name, parameters)] = value.items()
        if isinstance(parameters, dict):
            return {"name": name, "parameters": parameters}
    raise ValueError('is neither a name nor {"NAME": {PARAMETER: VALUE, ...}}')


Named: TypeAlias = Annotated[NamedOptions, BeforeValidator(_read_name)]

_Share: TypeAlias = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False, strict=True)]
_Count: TypeAlias = Annotated[int, Field(ge=1, lt=2**63, strict=True)]
_Budget: TypeAlias = Annotated[int, Field(ge=0, lt=2**63, strict=True), WHOLE]


class LimitOptions(_Options):
    """The limits of one rearrangement of one model (`planning.problem.Limits`)."""

    max_bytes: _Budget | None = None
    max_bytes_per_rank: _Budget | None = None
    max_layers: _Budget | None = None
    min_gain: float = Field(0.0, ge=0, lt=1, allow_inf_nan=False, strict=True)
    other_node_cost: float = Field(1.0, ge=1, le=1000, allow_inf_nan=False, strict=True)


class SmoothingOptions(_Options):
    """Loads of earlier windows that count, too (`planning.smoothing`)."""

    weight: _Share = 0.5
    """What all earlier windows together weigh."""
    max_tokens: _Count = 50_000
    """A window with more tokens a layer is planned from as it is."""


class TriggerOptions(_Options):
    """When to plan between vLLM's intervals, and when not at one (`planning.triggers`)."""

    below: _Share | None = None
    """Plan when the balancedness of what was just served is below this."""
    changed: _Share | None = None
    """Plan at once when so great a part of the load is on other experts than it was."""
    check_steps: Annotated[int, Field(ge=5, lt=2**31, strict=True)] = 50
    """Engine steps between two looks."""
    min_steps: _Count = 200
    """For `below`: engine steps since a rearrangement."""

    @model_validator(mode="after")
    def _has_a_reason(self) -> "TriggerOptions":
        if self.below is None and self.changed is None:
            raise ValueError("needs below or changed: without them nothing triggers")
        return self


class InitialOptions(_Options):
    """Where experts are when the model begins to serve (`recording.initial`)."""

    path: str = Field(min_length=1)
    """A recording or a placement, read by EP rank 0: a file, or a recording's folder."""
    windows: _Count | None = None
    """So many of its last load windows are planned from; None: all."""
    any_name: bool = Field(False, strict=True)
    """Whether it may be of a model of another name, with as many layers and experts."""


def _read_path(value: object) -> object:
    # A path alone, or an object with more to say.
    return {"path": value} if isinstance(value, str) else value


class PlanningOptions(_Options):
    """How placements are planned."""

    policy: Named = NamedOptions(name="default")
    steps: list[Named] = []
    limits: Annotated[
        LimitOptions, BeforeValidator(lambda value: {} if value is None else value)
    ] = LimitOptions()
    expert_groups: bool = Field(True, strict=True)
    """Whether each expert group of the model stays on one node, where vLLM's policy keeps it."""
    smoothing: SmoothingOptions | None = None
    trigger: TriggerOptions | None = None
    initial: Annotated[InitialOptions | None, BeforeValidator(_read_path)] = None
    """None: vLLM's first placement."""
    rearrange: Literal["interval", "never"] = "interval"
    """When experts move afterwards: at vLLM's interval, or only where an operator orders it."""

    @model_validator(mode="after")
    def _never_moves_for_a_reason(self) -> "PlanningOptions":
        if self.rearrange == "interval":
            return self
        if self.initial is None:
            raise ValueError("rearrange='never' needs initial: no expert would ever move")
        for name in ("trigger", "smoothing"):
            if getattr(self, name) is not None:
                raise ValueError(f"rearrange='never' leaves nothing to {name}")
        return self
