# SPDX-License-Identifier: Apache-2.0
"""The word problems: right, in GSM8K's form, and none both learned from and asked."""

import json
import operator
import re
from itertools import combinations as pairs
from itertools import islice
from pathlib import Path

import pytest
import yaml

from scripts import gsm_tiny_problems as module
from scripts.gsm_tiny_problems import (
    LARGEST_RESULT,
    Problem,
    ProblemsError,
    combinations,
    distinct_problems,
    main,
    problems,
)
from scripts.gsm_tiny_templates import TEMPLATES, WORDS

COMMITTED = Path(module.__file__).parents[1] / "eval" / "load" / "tasks" / "gsm_tiny"
OPERATORS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}
ANNOTATION = re.compile(r"(\d+)([-+*/])(\d+)=<<(\d+)([-+*/])(\d+)=(\d+)>>(\d+)")


def committed(split: str) -> list[dict[str, str]]:
    lines = (COMMITTED / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def training() -> list[Problem]:
    return list(islice(problems("train", 3), 20_000))


def check_form(answer: str, largest: int = LARGEST_RESULT) -> list[str]:
    """Check an answer by plain arithmetic; the operators that it uses."""
    *_, last = answer.splitlines()
    used = []
    result = None
    for left, sign, right, *annotated, written in ANNOTATION.findall(answer):
        result = OPERATORS[sign](int(left), int(right))
        assert annotated == [left, sign, right, str(int(result))], answer
        assert written == annotated[-1]
        assert result == int(result) and 1 <= result <= largest
        used.append(sign)
    assert last == f"#### {int(result or 0)}"
    assert 1 <= len(used) <= 3
    assert len(used) == answer.count("<<"), "an annotation in another form"
    return used


def test_there_are_enough_templates_and_numbers() -> None:
    assert len(TEMPLATES) >= 40
    for template in range(len(TEMPLATES)):
        assert len(combinations(template, "held_out")) >= 30
        assert len(combinations(template, "train")) >= 300


def test_no_numbers_of_a_template_are_in_both_splits() -> None:
    for template in range(len(TEMPLATES)):
        assert not {*combinations(template, "train")} & {*combinations(template, "held_out")}


def test_a_text_tells_its_template() -> None:
    """So a held-out question can only be a training question with the same numbers: none is."""
    field = r"\\\{\w+\\\}"
    words = {kind: "|".join(words) for kind, words in {**WORDS, "other": WORDS["name"]}.items()}
    patterns = []
    for template in TEMPLATES:
        pattern = re.escape(template.question)
        for kind, alternatives in words.items():
            pattern = pattern.replace(re.escape(f"{{{kind}}}"), f"(?:{alternatives})")
        patterns.append(re.compile(re.sub(field, r"\\d+", pattern)))
    shown = [
        next(p for p in problems("train", 0) if p.template == i) for i in range(len(TEMPLATES))
    ]
    assert all(patterns[one.template].fullmatch(one.question) for one in shown)
    for first, second in pairs(shown, 2):
        assert not patterns[first.template].fullmatch(second.question)
        assert not patterns[second.template].fullmatch(first.question)


def test_the_numbers_of_a_question_are_those_of_its_combination(training: list[Problem]) -> None:
    for problem in training[:2000]:
        names = re.findall(r"\{([a-d])\}", TEMPLATES[problem.template].question)
        by_name = dict(zip(TEMPLATES[problem.template].numbers, problem.numbers, strict=True))
        found = [int(number) for number in re.findall(r"\d+", problem.question)]
        assert found == [by_name[name] for name in names]
        assert set(names) == set(by_name)


def test_no_held_out_question_occurs_in_training(training: list[Problem]) -> None:
    held_out = {row["question"] for row in committed("test")}
    assert len(held_out) == 500
    assert held_out.isdisjoint(problem.question for problem in training)
    assert held_out.isdisjoint(row["question"] for row in committed("train"))


@pytest.mark.parametrize(
    ("split", "file", "count"), [("held_out", "test", 500), ("train", "train", 100)]
)
def test_the_committed_problems_are_those_that_the_command_prints(
    capsys: pytest.CaptureFixture[str], split: str, file: str, count: int
) -> None:
    assert main(["--split", split, "--count", str(count), "--seed", "1"]) == 0
    assert capsys.readouterr().out == (COMMITTED / f"{file}.jsonl").read_text(encoding="utf-8")


def test_every_solution_is_right_and_in_the_form_of_gsm8k(training: list[Problem]) -> None:
    used = [check_form(problem.answer) for problem in training]
    assert {sign for signs in used for sign in signs} == set(OPERATORS)
    assert {len(signs) for signs in used} == {1, 2, 3}


def test_the_filter_of_the_task_finds_the_answer(training: list[Problem]) -> None:
    task = yaml.safe_load((COMMITTED.parent / "gsm8k.yaml").read_text(encoding="utf-8"))
    strict = task["filter_list"][0]["filter"][0]["regex_pattern"]
    for problem in training[:1000]:
        assert re.findall(strict, problem.answer) == [problem.answer.split()[-1]]


def test_a_seed_gives_the_same_problems_again_and_another_one_others() -> None:
    first = list(islice(problems("train", 1), 50))
    assert first == list(islice(problems("train", 1), 50))
    assert first != list(islice(problems("train", 2), 50))


def test_distinct_problems_differ_in_template_or_numbers() -> None:
    made = distinct_problems("held_out", 3000, 5)
    assert len({(one.template, one.numbers) for one in made}) == len(made) == 3000


def test_more_problems_than_there_are_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    available = sum(len(combinations(one, "held_out")) for one in range(len(TEMPLATES)))
    with pytest.raises(ProblemsError, match=f"'held_out' were asked for, there are {available}:"):
        distinct_problems("held_out", available + 1, 0)
    with pytest.raises(ProblemsError, match="count is 0 or more, not -1"):
        distinct_problems("held_out", -1, 0)
    assert main(["--split", "held_out", "--count", str(available + 1), "--seed", "0"]) == 2
    assert "ask for fewer, or widen the numbers" in capsys.readouterr().err


def test_all_problems_that_there_are_can_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    small = TEMPLATES[6]
    monkeypatch.setattr(module, "TEMPLATES", (small,))
    combinations.cache_clear()
    try:
        available = combinations(0, "held_out")
        made = distinct_problems("held_out", len(available), 0)
        assert sorted(one.numbers for one in made) == sorted(available)
    finally:
        combinations.cache_clear()
