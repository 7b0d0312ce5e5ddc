# SPDX-License-Identifier: Apache-2.0
"""The result's schema and its documentation."""

from collections.abc import Iterator
from typing import get_args

import pytest
from pydantic import BaseModel

from eval.config.loading import model_in
from eval.config.schema import Config
from eval.results.schema import EXIT_CODES, Result, Verdict
from scripts import result_document
from tests.builders.harness import REPOSITORY


def test_the_tables_of_fields_are_made_from_the_models(monkeypatch: pytest.MonkeyPatch) -> None:
    written = result_document.PAGE.read_text(encoding="utf-8")
    assert result_document.document(written) == written, "run scripts/result_document.py"
    assert result_document.main(["--check"]) == 0

    class Other(Result):
        added: int = 0

    monkeypatch.setitem(result_document.MODELS, "Result", Other)
    with pytest.raises(ValueError, match=r"Other.added has no docstring"):
        result_document.document(written)


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
