# SPDX-License-Identifier: Apache-2.0
"""The result's schema and its documentation."""

from collections.abc import Iterator
from typing import get_args

import pytest
from pydantic import BaseModel

from eval.config.loading import model_in
from eval.config.schema import Config
from eval.results.samples import Sample
from eval.results.schema import EXIT_CODES, Result, Verdict
from tests.builders.harness import REPOSITORY


def fields(model: type[BaseModel]) -> Iterator[str]:
    """Names as they stand in the JSON, of nested models too."""
    for name, field in model.model_fields.items():
        yield field.alias or name
        nested = model_in(field.annotation)
        if nested is not None and nested is not Config:
            yield from fields(nested)


@pytest.mark.parametrize("model", [Result, Sample])
def test_every_field_of_the_result_is_documented(model: type[BaseModel]) -> None:
    text = (REPOSITORY / "docs" / "result.md").read_text(encoding="utf-8")

    assert [name for name in fields(model) if f"`{name}`" not in text] == []


def test_every_key_of_the_configuration_is_documented() -> None:
    text = (REPOSITORY / "docs" / "evaluation.md").read_text(encoding="utf-8")
    sections: list[type[BaseModel]] = [Config, *_sections()]
    names = [name for section in sections for name in section.model_fields]

    assert [name for name in names if f"`{name}`" not in text] == []


def _sections() -> Iterator[type[BaseModel]]:
    for field in Config.model_fields.values():
        section = model_in(field.annotation)
        if section is not None:
            yield section


def test_every_verdict_has_an_exit_code_and_is_documented() -> None:
    text = (REPOSITORY / "docs" / "result.md").read_text(encoding="utf-8")

    assert set(get_args(Verdict)) == set(EXIT_CODES)
    assert [verdict for verdict in EXIT_CODES if f"`{verdict}`" not in text] == []
    assert [verdict for verdict, code in EXIT_CODES.items() if code == 0] == ["passed"]
