# SPDX-License-Identifier: Apache-2.0
"""What an evaluation is told to do, typed (docs/evaluation.md)."""

import hashlib
import json
from collections.abc import Collection, Sequence
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    Field,
    JsonValue,
    NonNegativeInt,
    PositiveInt,
    field_validator,
    model_validator,
)

from eval.config.control_arms import is_control
from eval.config.elsewhere import ServerUrl, problem_of_arms
from eval.config.further_sections import Controls, Oracle
from eval.config.gate_section import Gate
from eval.config.questions import ENOUGH, WHOLE_TEST_SET, Questions
from eval.config.section import Name, Section
from eval.config.serve_section import Environment, Serve
from eval.secrets import SECRETS

TaskName = Literal["gsm8k", "gsm_tiny"]

BASELINE = "off"


class Task(Section):
    """Questions and how they are asked."""

    name: TaskName
    questions: Questions = None
    """The first so many of the test set; none: all of them; ``enough``: until a loss of
    ``gate.margin_points`` is decided (docs/gates.md)."""
    fewshot: NonNegativeInt = 5
    max_tokens: PositiveInt = 256
    concurrency: PositiveInt = 8
    request_timeout: PositiveInt = 120
    """Seconds for one answer."""
    logprobs: bool = False
    """Ask for every token and its log-probability, too, which ``gate.exact`` compares."""
    scored: bool = True
    """False: the model was not made for it, so answers are compared as text only."""

    @property
    def until_decided(self) -> bool:
        """Whether an arm is asked no more once its comparison with ``off`` is decided."""
        return self.questions == ENOUGH

    @property
    def limit(self) -> int | None:
        """The most that are asked; none: as many as there are."""
        return WHOLE_TEST_SET[self.name] if self.questions == ENOUGH else self.questions


class Eplb(Section):
    """vLLM's ``--eplb-config``; what is not given is left to vLLM."""

    window_size: PositiveInt | None = None
    step_interval: PositiveInt | None = None
    num_redundant_experts: NonNegativeInt | None = None
    use_async: bool | None = None
    policy: str | None = None
    communicator: str | None = None
    log_balancedness: bool | None = None
    log_balancedness_interval: PositiveInt | None = None
    enable_migration_batching: bool | None = None


def _without_events_folder(plugin: dict[str, JsonValue]) -> dict[str, JsonValue]:
    if "events_dir" in plugin:
        raise ValueError("'events_dir' is set by the harness, to a folder of the run")
    return plugin


PluginSettings = Annotated[dict[str, JsonValue], AfterValidator(_without_events_folder)]


class Arm(Section):
    """One server that is asked all the questions."""

    name: Name
    eplb: Eplb | None = None
    """None: without EPLB."""
    plugin: PluginSettings = Field(default_factory=dict)
    """Settings of the plugin that differ from the run's."""
    environment: Environment = Field(default_factory=dict)
    """Added to that of its server alone."""
    url: ServerUrl | None = None
    """Of a server that runs elsewhere; none: the harness starts it."""
    served_model: Annotated[str, Field(min_length=1)] | None = None
    """What the server at ``url`` calls the model; none: as ``model`` does."""
    events: Annotated[str, Field(min_length=1)] | None = None
    """The folder, as seen from here, of the events of the server at ``url``."""
    default: bool = True
    """False: only asked where it is named, or all arms are wanted."""


def _require_different(what: str, names: Sequence[str]) -> None:
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated:
        raise ValueError(f"two {what} are named {repeated!r}: names must differ")


class Config(Section):
    """One evaluation."""

    name: Name
    model: str
    """A folder or a name on the Hub."""

    @field_validator("model")
    @classmethod
    def _model_is_no_option(cls, model: str) -> str:
        if not model or model.startswith("-"):
            raise ValueError("must be a folder or a name on the Hub")
        return model

    tasks: list[Task]
    """What every arm is asked; none: latency and stress make up what they ask."""
    serve: Serve = Serve()
    plugin: PluginSettings | None = Field(default_factory=dict)
    """Settings of the plugin; the events folder is added. None: nothing is passed."""
    arms: Annotated[list[Arm], Field(min_length=1)]
    gate: Gate = Gate()
    controls: Controls = Controls()
    oracle: Oracle = Oracle()

    @field_validator("tasks")
    @classmethod
    def _tasks_differ(cls, tasks: list[Task]) -> list[Task]:
        _require_different("tasks", [task.name for task in tasks])
        return tasks

    @field_validator("arms")
    @classmethod
    def _arms_start_with_the_baseline(cls, arms: list[Arm]) -> list[Arm]:
        _require_different("arms", [arm.name for arm in arms])
        if arms[0].name != BASELINE or arms[0].eplb is not None:
            raise ValueError(
                f"the first arm must be named {BASELINE!r} and have no eplb: "
                "the others are compared with it"
            )
        return arms

    @model_validator(mode="after")
    def _eplb_needs_ranks(self) -> "Config":
        if all(arm.eplb is None for arm in self.arms):
            return self
        if self.serve.ranks < 2:
            data = self.serve.degree("data-parallel-size")
            tensor = self.serve.degree("tensor-parallel-size")
            raise ValueError(
                "EPLB moves experts between ranks and there is only one: serve.options has "
                f"data-parallel-size {data} x tensor-parallel-size {tensor}, make it 2 or more"
            )
        return self

    @model_validator(mode="after")
    def _servers_elsewhere_are_possible(self) -> "Config":
        problem = problem_of_arms(self.arms, self.serve)
        if problem is not None:
            raise ValueError(problem)
        return self

    @model_validator(mode="after")
    def _tokens_are_asked_for(self) -> "Config":
        without = next((task.name for task in self.tasks if not task.logprobs), None)
        if self.gate.exact and without is not None:
            raise ValueError(
                f"gate.exact compares tokens, which task {without} does not ask for: set its "
                "logprobs to true"
            )
        return self

    @model_validator(mode="after")
    def _enough_is_of_a_margin(self) -> "Config":
        for task in self.tasks:
            if task.until_decided and (not task.scored or self.gate.margin_points is None):
                missing = "gate.margin_points" if task.scored else "scored: true"
                raise ValueError(
                    f"task {task.name} has questions: {ENOUGH}, which asks until a loss of "
                    f"accuracy is decided, and not {missing}: add it, or give a number"
                )
        return self

    @model_validator(mode="after")
    def _plugin_settings_arrive(self) -> "Config":
        told = {"serve": self.serve.environment, **{one.name: one.environment for one in self.arms}}
        found = next((name for name, one in told.items() if "EPLB_PLUGIN" in one), None)
        if self.plugin is not None and found is not None:
            raise ValueError(
                f"{found}.environment.EPLB_PLUGIN would be overruled by what plugin passes, or "
                "turn the plugin off: write the settings into plugin"
            )
        return self

    def plugin_settings(self, arm: Arm) -> dict[str, JsonValue] | None:
        """Settings of the plugin in ``arm``; None: nothing is passed."""
        return None if self.plugin is None else {**self.plugin, **arm.plugin}

    def is_stock(self, arm: Arm) -> bool:
        """EPLB of vLLM alone: the plugin is turned off, or told nothing, and writes no events."""
        plugin = self.plugin_settings(arm)
        return arm.eplb is not None and (plugin is None or plugin.get("enabled") is False)

    @property
    def starts_servers(self) -> bool:
        """Whether any arm's server is started by the harness."""
        return any(arm.url is None for arm in self.arms)

    def tasks_of(self, arm: Arm) -> list[Task]:
        """What an arm is asked."""
        return self.control_tasks() if is_control(arm.name) else self.tasks

    def control_tasks(self) -> list[Task]:
        """What an arm with a fault is asked."""
        most = self.controls.questions
        return [
            task.model_copy(
                update={"questions": min(filter(None, (most, task.limit)), default=None)}
            )
            for task in self.tasks
        ]

    def without_tasks(self, names: Collection[str]) -> "Config":
        """The same, with the tasks that are left."""
        tasks = [task for task in self.tasks if task.name not in names]
        return self.model_copy(update={"tasks": tasks})

    def sha256(self) -> str:
        """Digest of every value, defaults included.

        Secrets do not count: another key is the same evaluation, and a short one could be guessed
        from a digest. Known ones are hidden wherever they stand, as in what is kept.
        """
        text = json.dumps(SECRETS.hide_in(self.model_dump(mode="json")), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()
