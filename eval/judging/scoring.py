# SPDX-License-Identifier: Apache-2.0
"""What an answer is worth, as lm-eval scores it: the filters and the metric of a task's YAML.

Answers are scored again whenever a run is judged, without lm-eval, which takes seconds to import.
"""

import hashlib
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from eval.config.schema import TaskName
from eval.config.yaml_files import read_yaml
from eval.results.samples import Sample

_TASKS = Path(__file__).parents[1] / "load" / "tasks"
STRICT, FLEXIBLE = "strict-match", "flexible-extract"
_NOTHING_FOUND = "[invalid]"


class _Filter(NamedTuple):
    """lm-eval's filter ``regex``, and then the first answer."""

    pattern: re.Pattern[str]
    which: int

    def find(self, text: str) -> str:
        """What the filter finds in an answer."""
        found = self.pattern.findall(text)
        if not found:
            return _NOTHING_FOUND
        match = found[self.which]
        if isinstance(match, tuple):
            match = next(filter(None, match), _NOTHING_FOUND)
        return str(match).strip()


class _Scoring(NamedTuple):
    """How one task is scored."""

    strict: _Filter
    flexible: _Filter
    ignored: tuple[str, ...]
    """Patterns that are taken out of what was found and of the right answer."""


class Score(NamedTuple):
    """What two filters found in an answer, and whether that is right."""

    strict_match: str
    strict_correct: bool
    flexible_extract: str
    flexible_correct: bool


def score(task: TaskName, text: str, target: str) -> Score:
    """Of one answer.

    Args:
        task: Whose filters and metric.
        text: The answer, as the server gave it.
        target: The right answer with its explanation.
    """
    scoring = _scoring(task)
    right = _compared(target, scoring.ignored)
    strict, flexible = scoring.strict.find(text), scoring.flexible.find(text)
    return Score(
        strict,
        _compared(strict, scoring.ignored) == right,
        flexible,
        _compared(flexible, scoring.ignored) == right,
    )


def digest(text: str) -> str:
    """lm-eval's hash of a prompt, of a target and of a whole task."""
    return hashlib.sha256(text.encode("utf-8", errors="surrogatepass")).hexdigest()


def task_hash(samples: Iterable[Sample]) -> str:
    """lm-eval's hash of a whole task, which counts every question once for each filter."""
    hashes = [one.doc_hash + one.prompt_hash + one.target_hash for one in samples]
    return digest("".join(hashes * 2))


def _compared(text: str, ignored: Iterable[str]) -> str:
    """What lm-eval's metric ``exact_match`` compares."""
    # It keeps them in arrays of numpy, which end a text before the NULs at its end, and whose lower
    # case has no more characters than the upper one.
    for pattern in ignored:
        text = re.sub(pattern, "", text).rstrip("\0")
    return text.lower()[: len(text)].rstrip("\0")


@cache
def _scoring(task: TaskName) -> _Scoring:
    definition = _definition(task)
    filters = {
        one["name"]: _Filter(
            re.compile(one["filter"][0]["regex_pattern"]), one["filter"][0].get("group_select", 0)
        )
        for one in definition["filter_list"]
    }
    return _Scoring(
        filters[STRICT],
        filters[FLEXIBLE],
        tuple(definition["metric_list"][0]["regexes_to_ignore"]),
    )


def _definition(task: str) -> dict[str, Any]:
    values: dict[str, Any] = read_yaml(_TASKS / f"{task}.yaml")
    included = values.pop("include", None)
    return {**_definition(included.removesuffix(".yaml")), **values} if included else values
