# SPDX-License-Identifier: Apache-2.0
"""Grade-school word problems in the form of GSM8K, made from templates and a seed.

Which combinations of a template and its numbers are for training and which are held out is fixed
by a checksum of the combination itself, so no seed can put one into both.

    python -m scripts.gsm_tiny_problems --split held_out --count 500 --seed 1 > test.jsonl
"""

import argparse
import functools
import itertools
import json
import random
import re
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple, get_args

from scripts.gsm_tiny_templates import TEMPLATES, WORDS, Template

Split = Literal["train", "held_out"]
Numbers = tuple[int, ...]

HELD_OUT_SHARE = 10
"""One combination in so many is held out."""
LARGEST_RESULT = 99_999

_STEP = re.compile(r"\{(\w+) ([-+*/]) (\w+) = (\w+)\}")
_FIELD = re.compile(r"\{(\w+)\}")


class ProblemsError(ValueError):
    """Problems that cannot be made; the message says what there is."""


class Problem(NamedTuple):
    """One problem; `question` and `answer` are as in a line of GSM8K."""

    question: str
    answer: str
    """The worked solution, then ``#### N``."""
    template: int
    """Index in `TEMPLATES`."""
    numbers: Numbers
    """In the order of the template's `numbers`."""


class _Step(NamedTuple):
    left: int
    operator: str
    right: int
    result: int


def problems(split: Split, seed: int) -> Iterator[Problem]:
    """Make problems without end; the same ones for the same split and seed, repeats possible."""
    generator = random.Random(f"{split} {seed}")
    while True:
        template = generator.randrange(len(TEMPLATES))
        numbers = generator.choice(combinations(template, split))
        yield _problem(template, numbers, generator)


def distinct_problems(split: Split, count: int, seed: int) -> list[Problem]:
    """The first ``count`` of `problems` that differ in template or numbers, not only in words.

    Raises:
        ProblemsError: There are not so many.
    """
    if count < 0:
        raise ProblemsError(f"count is 0 or more, not {count}")
    available = sum(len(combinations(one, split)) for one in range(len(TEMPLATES)))
    if count > available:
        raise ProblemsError(
            f"{count} distinct problems of split {split!r} were asked for, there are {available}: "
            "ask for fewer, or widen the numbers of scripts/gsm_tiny_templates.py"
        )
    found: dict[tuple[int, Numbers], Problem] = {}
    for problem in problems(split, seed):
        if len(found) == count:
            break
        found.setdefault((problem.template, problem.numbers), problem)
    return list(found.values())


@functools.cache
def combinations(template: int, split: Split) -> Sequence[Numbers]:
    """All numbers of a template that give a problem of ``split``.

    Every step's result is a whole number from 1 to `LARGEST_RESULT`.
    """
    wanted = split == "held_out"
    chosen = TEMPLATES[template]
    ranges = (range(low, high + 1) for low, high in chosen.numbers.values())
    return [
        numbers
        for numbers in itertools.product(*ranges)
        if _is_held_out(chosen, numbers) == wanted and _steps(chosen, numbers)
    ]


def _is_held_out(template: Template, numbers: Numbers) -> bool:
    return zlib.crc32(f"{template.question} {numbers}".encode()) % HELD_OUT_SHARE == 0


def _steps(template: Template, numbers: Numbers) -> list[_Step]:
    """The solution's steps; empty when a result is out of range or no whole number."""
    values = dict(zip(template.numbers, numbers, strict=True))
    steps = []
    for left_name, operator, right_name, name in _STEP.findall(template.solution):
        left, right = _value(left_name, values), _value(right_name, values)
        result = _apply(left, operator, right)
        if not 1 <= result <= LARGEST_RESULT:
            return []
        values[name] = result
        steps.append(_Step(left, operator, right, result))
    return steps


def _value(name: str, values: Mapping[str, int]) -> int:
    return int(name) if name.isdigit() else values[name]


def _apply(left: int, operator: str, right: int) -> int:
    """The result; 0, which is out of range, for a division with a remainder."""
    if operator == "+":
        return left + right
    if operator == "-":
        return left - right
    if operator == "*":
        return left * right
    return 0 if left % right else left // right


def _problem(template: int, numbers: Numbers, generator: random.Random) -> Problem:
    chosen = TEMPLATES[template]
    fields = {kind: generator.choice(words) for kind, words in WORDS.items()}
    fields["other"] = generator.choice([name for name in WORDS["name"] if name != fields["name"]])
    fields.update(zip(chosen.numbers, map(str, numbers), strict=True))
    steps = _steps(chosen, numbers)
    written = iter(steps)
    solution = _STEP.sub(lambda _: _write(next(written)), chosen.solution)
    return Problem(
        question=_fill(chosen.question, fields),
        answer=f"{_fill(solution, fields)}\n#### {steps[-1].result}",
        template=template,
        numbers=numbers,
    )


def _fill(text: str, fields: Mapping[str, str]) -> str:
    return _FIELD.sub(lambda field: fields[field[1]], text)


def _write(step: _Step) -> str:
    """A step with GSM8K's calculator annotation: ``3*4=<<3*4=12>>12``."""
    formula = f"{step.left}{step.operator}{step.right}"
    return f"{formula}=<<{formula}={step.result}>>{step.result}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print distinct problems as GSM8K's JSON lines; 2 when there are not so many."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--split", choices=get_args(Split), required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    chosen = parser.parse_args(arguments)
    try:
        made = distinct_problems(chosen.split, chosen.count, chosen.seed)
    except ProblemsError as error:
        print(f"scripts.gsm_tiny_problems: {error}", file=sys.stderr)
        return 2
    for problem in made:
        print(json.dumps({"question": problem.question, "answer": problem.answer}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
