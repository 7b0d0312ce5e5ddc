# SPDX-License-Identifier: Apache-2.0
"""Every option of the plugin, where it is read from, and what a wrong value says."""

import difflib
import enum
import json
import os
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from vllm_eplb_plugin import ENVIRONMENT_VARIABLE
from vllm_eplb_plugin.fault_settings import BROKEN, Fault, FaultOptions
from vllm_eplb_plugin.observing_settings import MetricsOptions, RecordingOptions, WatchOptions
from vllm_eplb_plugin.option_values import Folder
from vllm_eplb_plugin.planning_settings import PlanningOptions
from vllm_eplb_plugin.wrong_values import describe

ADDITIONAL_CONFIG_KEY = "eplb_plugin"


Transfer = Literal["auto", "peer", "vllm"]


class Scope(enum.Enum):
    """Whether a setting has to be the same on all ranks of a server."""

    COMMON = "it changes which collectives a rank enters, or where experts are"
    OF_ONE_PROCESS = "it concerns nobody but the process that reads it"


COMMON, OF_ONE_PROCESS = Scope


class SettingsError(ValueError):
    """A setting is unknown or has a wrong value; the message names it and its source."""


class Settings(BaseModel):
    """The settings are the options of one server; ranks compare those that have to be alike."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    enabled: Annotated[bool, COMMON] = Field(True, strict=True)
    """Whether vLLM's EPLB state manager is overridden at all."""
    compiled_policy: Annotated[bool, OF_ONE_PROCESS] = Field(True, strict=True)
    """Plan with the compiled form of vLLM's default policy: the same placements, sooner."""
    switch_interval_ms: Annotated[float | None, OF_ONE_PROCESS] = Field(
        0.5, ge=0, allow_inf_nan=False, strict=True
    )
    """Async mode: how long at most one thread keeps Python's interpreter from another one; 0 or
    None: as long as without the plugin."""
    loopback: Annotated[bool, COMMON] = Field(False, strict=True)
    """Run DP+EP+EPLB without several GPUs: for development and CI only."""
    fault: Annotated[Fault | None, COMMON] = None
    """Break EPLB on purpose, to see that a check notices; only with `loopback`."""
    fault_when: Annotated[FaultOptions, COMMON] = FaultOptions()
    """Where and when a fault strikes that does once."""
    transfer_delay_ms: Annotated[float, OF_ONE_PROCESS] = Field(
        0.0, ge=0, allow_inf_nan=False, strict=True
    )
    """Async mode: make every layer's transfer so much longer; only with `loopback`."""
    check_weights: Annotated[bool, COMMON] = Field(False, strict=True)
    """After every commit, prove that each local slot holds the weights the map names, and that
    what the router reads is derived right."""
    exact_combine: Annotated[bool, COMMON] = Field(False, strict=True)
    """Add experts' outputs so that where experts live changes no bit, to test it (docs/exact.md);
    also without EPLB."""
    events_dir: Annotated[Folder | None, OF_ONE_PROCESS] = None
    """Folder for one file of JSON lines a rank (docs/events.md); none: no events."""
    recording: Annotated[RecordingOptions | None, OF_ONE_PROCESS] = None
    """Where loads and placements are recorded (docs/recording.md); None: nowhere."""
    step_times_dir: Annotated[Folder | None, OF_ONE_PROCESS] = None
    """Folder for the time that every step of the state manager takes; also when not enabled."""
    rank_timeout_s: Annotated[float, OF_ONE_PROCESS] = Field(
        120.0, gt=0, allow_inf_nan=False, strict=True
    )
    """How long a rank waits for the others where all have to come before it may go on."""
    watch: Annotated[WatchOptions, OF_ONE_PROCESS] = WatchOptions()
    """How long something may stand still before it is told, and before it is given up."""
    metrics: Annotated[MetricsOptions | None, OF_ONE_PROCESS] = MetricsOptions()
    """What stands on vLLM's /metrics (docs/metrics.md); None: nothing of the plugin."""
    control: Annotated[bool, COMMON] = Field(False, strict=True)
    """Let operators pause, resume and ask for a rearrangement over HTTP (docs/control.md)."""
    transfer: Annotated[Transfer, COMMON] = "auto"
    """How weights get to other ranks (docs/transfer.md): peer reads their memory, or refuses."""
    planning: Annotated[PlanningOptions | None, COMMON] = None
    """How placements are planned (docs/planning.md); None: as by vLLM, from what vLLM counts."""

    @model_validator(mode="after")
    def _harm_needs_loopback(self) -> "Settings":
        if self.fault is not None and not self.loopback:
            raise ValueError(f"fault={self.fault!r} breaks EPLB on purpose and needs loopback=true")
        if self.transfer_delay_ms and not self.loopback:
            raise ValueError(
                f"transfer_delay_ms={self.transfer_delay_ms:g} slows EPLB on purpose and needs "
                "loopback=true"
            )
        return self

    @model_validator(mode="after")
    def _fault_has_an_effect(self) -> "Settings":
        planning = self.planning
        if self.fault not in BROKEN and "fault_when" in self.model_fields_set:
            raise ValueError(f"fault_when is for the faults {', '.join(BROKEN)}")
        if planning is None:
            return self
        if self.fault == "invalid_placement" and planning.policy.name != "default":
            raise ValueError("fault='invalid_placement' breaks vLLM's policy only")
        if self.fault == "no_rearrangement" and planning.trigger is not None:
            raise ValueError("fault='no_rearrangement' stops vLLM's interval, not planning.trigger")
        return self


def common_settings(settings: Settings) -> dict[str, Any]:
    """Return, as JSON has them, the values that have to be the same on all ranks."""
    return settings.model_dump(mode="json", include=names_of(COMMON))


def names_of(scope: Scope) -> set[str]:
    """Find the settings that have this scope."""
    return {name for name, field in Settings.model_fields.items() if scope in field.metadata}


def load_settings(additional_config: object = None) -> Settings:
    """Read the settings of this process.

    Args:
        additional_config: The value of vLLM's ``--additional-config``, a mapping for whoever has
            settings in it. Its key ``eplb_plugin`` wins over the environment variable
            ``EPLB_PLUGIN``; the two are never mixed.

    Raises:
        SettingsError: Not a JSON object, an unknown key, one that stands twice, or a value of a
            wrong type.
    """
    if isinstance(additional_config, Mapping):
        _refuse_misspelt_key(additional_config)
        if ADDITIONAL_CONFIG_KEY in additional_config:
            source = f"--additional-config {ADDITIONAL_CONFIG_KEY}"
            return _parse(additional_config[ADDITIONAL_CONFIG_KEY], source)
    text = os.environ.get(ENVIRONMENT_VARIABLE)
    if not text:
        return Settings()
    source = f"the environment variable {ENVIRONMENT_VARIABLE}"
    return _parse(parse_json(text, source), source)


def with_settings_of_environment(additional_config: dict[str, Any]) -> dict[str, Any]:
    """Add what ``EPLB_PLUGIN`` says and vLLM hands to each worker, on whatever it runs.

    Workers on Ray get no variable of the server's but those with a prefix that vLLM knows.

    Returns:
        The same, if the variable says nothing, or nothing that counts beside the key that is there.

    Raises:
        SettingsError: See `load_settings`.
    """
    text = os.environ.get(ENVIRONMENT_VARIABLE)
    if not text:
        return additional_config
    if not load_settings().enabled:
        return {**additional_config, ADDITIONAL_CONFIG_KEY: {"enabled": False}}
    return {ADDITIONAL_CONFIG_KEY: json.loads(text), **additional_config}


def parse_json(text: str, source: str) -> Any:
    """Parse JSON in which no key stands twice.

    Raises:
        SettingsError: It is not JSON, or the last of two values would win without a word.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        for key in keys:
            if keys.count(key) > 1:
                raise SettingsError(f"{source}: the key {key!r} stands twice in {text!r}")
        return dict(pairs)

    try:
        return json.loads(text, object_pairs_hook=once)
    except json.JSONDecodeError as error:
        raise SettingsError(f"{source} is not JSON ({error}): {text!r}") from error


_of_this_process: Settings | None = None


def adopt_settings(additional_config: object) -> Settings:
    """Read the settings of the server that this process works for, and remember them.

    Raises:
        SettingsError: See `load_settings`.
    """
    global _of_this_process
    _of_this_process = load_settings(additional_config)
    return _of_this_process


def process_settings() -> Settings:
    """Return the settings that were adopted last, else those of the environment.

    Raises:
        SettingsError: See `load_settings`.
    """
    return load_settings() if _of_this_process is None else _of_this_process


def turned_off_by(additional_config: object = None) -> str | None:
    """Say what turns the plugin off; None: nothing does.

    ``EPLB_PLUGIN`` is asked first: where it says no, ``--additional-config`` is not even read.

    Raises:
        SettingsError: See `load_settings`.
    """
    if not load_settings().enabled:
        return ENVIRONMENT_VARIABLE
    if not load_settings(additional_config).enabled:
        return "its settings in --additional-config"
    return None


def _refuse_misspelt_key(additional_config: Mapping[Any, object]) -> None:
    for key in additional_config:
        if key != ADDITIONAL_CONFIG_KEY and difflib.get_close_matches(
            str(key).lower(), [ADDITIONAL_CONFIG_KEY], cutoff=0.85
        ):
            raise SettingsError(
                f"--additional-config: unknown key {key!r}, the settings of the plugin are read "
                f"from {ADDITIONAL_CONFIG_KEY!r}"
            )


def _parse(value: object, source: str) -> Settings:
    if not isinstance(value, Mapping):
        raise SettingsError(f"{source} must be a JSON object of settings, not {value!r}")
    try:
        return Settings.model_validate(dict(value))
    except ValidationError as error:
        problems = "; ".join(describe(dict(problem), Settings) for problem in error.errors())
        raise SettingsError(f"{source}: {problems}") from error
