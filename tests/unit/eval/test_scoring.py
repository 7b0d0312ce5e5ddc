# SPDX-License-Identifier: Apache-2.0
"""Answers are scored as lm-eval scores them, without lm-eval."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.config.schema import Task, TaskName
from eval.judging.scoring import Score, digest, score, task_hash
from tests.builders.arms import samples

_PARTS = st.sampled_from(
    ["#### ", "####", "12", "-7", "1,234", "$5", "3.", ".", ",", "\n", " ", "[invalid]", "İ", "\0"]
)
_LmEval = tuple[TaskName, Callable[[str, str], Score]]
_TEXTS = st.lists(_PARTS | st.text(max_size=4), max_size=8).map("".join)


@pytest.fixture(scope="module", params=["gsm8k", "gsm_tiny"])
def lm_eval_task(request: pytest.FixtureRequest) -> _LmEval:
    from lm_eval.api.metrics import exact_match_hf_evaluate
    from lm_eval.filters.extraction import RegexFilter

    from eval.load.lm_eval_tasks import task_definition, task_manager

    definition = task_definition(task_manager(), Task(name=request.param), None)
    [metric] = definition["metric_list"]
    options = {
        name: metric[name] for name in ("regexes_to_ignore", "ignore_case", "ignore_punctuation")
    }
    filters = {}
    for one in definition["filter_list"]:
        settings = {name: value for name, value in one["filter"][0].items() if name != "function"}
        filters[one["name"]] = RegexFilter(**settings)

    def one(name: str, text: str, target: str) -> tuple[str, bool]:
        [[found]] = filters[name].apply([[text]], [{}])
        return found, bool(exact_match_hf_evaluate([found], [target], **options)["exact_match"])

    def expected(text: str, target: str) -> Score:
        return Score(*one("strict-match", text, target), *one("flexible-extract", text, target))

    return request.param, expected


@settings(max_examples=400)
@given(text=_TEXTS, target=_TEXTS)
def test_answers_are_scored_as_by_lm_eval(lm_eval_task: _LmEval, text: str, target: str) -> None:
    task, expected = lm_eval_task
    assert score(task, text, target) == expected(text, target)
    assert score(task, target, target) == expected(target, target)


def test_hashes_are_those_of_lm_eval() -> None:
    from lm_eval.utils import hash_string

    asked = samples()
    once = "".join(one.doc_hash + one.prompt_hash + one.target_hash for one in asked)
    assert task_hash(asked) == hash_string(once + once)
    assert digest("İ\n") == hash_string("İ\n")
