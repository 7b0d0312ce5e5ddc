# SPDX-License-Identifier: Apache-2.0
"""The policies that are compared, by name."""

import json
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import vllm_eplb_plugin
from vllm_eplb_plugin.bench.result import BenchError
from vllm_eplb_plugin.bench.rivals.biased import biased
from vllm_eplb_plugin.bench.rivals.swift import swift
from vllm_eplb_plugin.planning.pipeline import Pipeline
from vllm_eplb_plugin.planning.problem import Integers, Policy, Problem
from vllm_eplb_plugin.planning.registry import find_policy, find_step

_PACKAGE = Path(vllm_eplb_plugin.__file__).parent


def still(problem: Problem) -> Integers:
    """Move nothing."""
    placement: Integers = problem.old.copy()
    return placement


RIVALS: Mapping[str, Policy] = {"none": still, "swift": swift, "biased": biased}
"""Policies that are here to be compared with only."""


@dataclass(frozen=True)
class Contestant:
    """A contestant is a pipeline and what it was called."""

    name: str
    pipeline: Pipeline

    def plan(self, problem: Problem, what: str) -> Integers:
        """Plan ``[layers, slots]``.

        Args:
            problem: To be planned.
            what: Names it to people.

        Raises:
            BenchError: The policy or a step raised something, or answered no placement.
        """
        try:
            return self.pipeline(problem).placement
        except Exception as error:  # foreign code, which may fail in any way
            raise BenchError(
                f"the policy {self.name!r} failed on {what}: {_describe(error)}"
            ) from error


def parse_contestant(text: str) -> Contestant:
    """Read ``POLICY[,PARAMETER=VALUE...][+STEP[,PARAMETER=VALUE...]...]``.

    A policy is one of `RIVALS`, or what `planning.registry.find_policy` finds; a value is JSON.

    Raises:
        ValueError: There is no such policy or step, or it takes no such parameters.
    """
    first, *others = text.split("+")
    name, parameters = _named(first)
    if name in RIVALS:
        if parameters:
            raise ValueError(f"{name} has no parameters")
        policy = RIVALS[name]
    else:
        policy = find_policy(name, parameters)
    steps = tuple(_call(find_step, other) for other in others)
    return Contestant(text, Pipeline(policy, steps))


def _call(find: Callable[[str, Mapping[str, Any]], Any], text: str) -> Any:
    return find(*_named(text))


def _named(text: str) -> tuple[str, dict[str, Any]]:
    name, *pairs = text.split(",")
    parameters = {}
    for pair in pairs:
        parameter, _, value = pair.partition("=")
        try:
            parameters[parameter] = json.loads(value)
        except ValueError:
            raise ValueError(
                f"{pair!r} in {text!r} is no PARAMETER=VALUE with a value in JSON"
            ) from None
    return name, parameters


def _describe(error: Exception) -> str:
    """What was raised, in a line, and the innermost line of the policy's own that it went through;
    of the package's where the answer was found wrong."""
    message = " ".join(str(error).split())
    told = f"{type(error).__name__}: {message}" if message else type(error).__name__
    frames = traceback.extract_tb(error.__traceback__)
    foreign = [frame for frame in frames if not Path(frame.filename).is_relative_to(_PACKAGE)]
    # A policy's own files are beside the first; behind them may be numpy's.
    folder = Path(foreign[0].filename).parent if foreign else None
    frame = [one for one in foreign or frames if folder in (None, Path(one.filename).parent)][-1]
    return f"{told} ({Path(frame.filename).name}:{frame.lineno})"
