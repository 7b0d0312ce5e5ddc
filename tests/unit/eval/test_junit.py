# SPDX-License-Identifier: Apache-2.0
"""What a CI reads of a result."""

from pathlib import Path
from typing import Any
from xml.etree import ElementTree as Xml

import pytest
from lxml import etree  # type: ignore[import-untyped]

from eval.config.schema import Config
from eval.judging.verdict import reasons, verdict
from eval.load.questions import SEEDS
from eval.report.junit import write_junit, write_junit_of_no_run
from eval.results.machine import this_machine
from eval.results.schema import Result, RuleResult
from tests.builders.arms import VERSIONS
from tests.builders.harness import small_config

PASSED = RuleResult(
    rule="weights", arm="sync", verdict="passed", saw="0 of 9", limit="none", detectable="one"
)
FAILED = RuleResult(
    rule="paired_accuracy", arm="sync", task="gsm8k", verdict="failed", saw="40 < 60 & lost",
    limit="none", detectable="two points",
)  # fmt: skip
NOT_TESTED = RuleResult(
    rule="noise_floor", verdict="not tested", saw="no arm", limit="one arm", detectable="nothing"
)


def result(rules: list[RuleResult], **changes: Any) -> Result:
    config = Config.model_validate(small_config())
    values: dict[str, Any] = {
        "name": "small", "verdict": verdict(rules), "reasons": reasons(rules), "rules": rules,
        "started": "2026-01-02T03:04:05Z", "finished": "2026-01-02T03:04:05Z",
        "versions": VERSIONS, "machine": this_machine(), "seeds": SEEDS, "task_hashes": {},
        "config": config, "config_sha256": config.sha256(), "oracle": None, "arms": [],
    }  # fmt: skip
    return Result.model_validate({**values, **changes})


def suite(file: Path, rules: list[RuleResult], **changes: Any) -> Xml.Element:
    write_junit(result(rules, **changes), file)
    return Xml.parse(file).getroot()


def test_every_rule_is_a_test_case_and_what_is_not_tested_fails(tmp_path: Path) -> None:
    root = suite(tmp_path / "new" / "junit.xml", [PASSED, FAILED, NOT_TESTED])

    assert (root.tag, root.get("name")) == ("testsuite", "small")
    counts = {name: root.get(name) for name in ("tests", "failures", "errors", "timestamp")}
    assert counts == {
        "tests": "3", "failures": "2", "errors": "0", "timestamp": "2026-01-02T03:04:05Z"
    }  # fmt: skip
    assert [case.get("name") for case in root] == [
        "weights [sync]",
        "paired_accuracy [sync, gsm8k]",
        "noise_floor [whole run]",
    ]
    assert [[child.tag for child in case] for case in root] == [
        ["system-out"], ["failure"], ["failure"]
    ]  # fmt: skip
    failure = root[1][0]
    assert failure.get("message") == "failed: 40 < 60 & lost"
    assert "could have detected: two points" in (failure.text or "")


def test_in_a_folder_the_file_has_the_name_of_the_run(tmp_path: Path) -> None:
    folder_of_one, folder_of_none = tmp_path / "one", tmp_path / "none"
    folder_of_one.mkdir()
    folder_of_none.mkdir()
    write_junit(result([PASSED]), folder_of_one)
    write_junit_of_no_run("small", "no GPU", folder_of_none)

    assert Xml.parse(folder_of_one / "small.xml").getroot()[0].get("name") == "weights [sync]"
    assert Xml.parse(folder_of_none / "small.xml").getroot().get("errors") == "1"


def test_a_run_without_a_verdict_is_an_error(tmp_path: Path) -> None:
    why = "the server ended\n\x1b[31mred\x00"
    root = suite(tmp_path / "junit.xml", [], verdict="could not run", reasons=[why])

    assert (root.get("tests"), root.get("errors"), root.get("failures")) == ("1", "1", "0")
    error = root[0][0]
    assert error.get("message") == "could not run: the server ended"
    assert error.text == "the server ended\n\\x1b[31mred\\x00"


@pytest.mark.parametrize("parse", [Xml.parse, etree.parse])
def test_whatever_a_text_has_the_file_is_xml(tmp_path: Path, parse: Any) -> None:
    everything = "".join(
        map(chr, [*range(0x3000), *range(0xD7F0, 0xE010), *range(0xFFF0, 0x10010)])
    )
    rule = FAILED.model_copy(update={"rule": everything, "arm": everything, "saw": everything})
    passed = PASSED.model_copy(update={"saw": everything})
    changes = {"name": everything, "reasons": [everything], "left_out": {"gsm8k": everything}}
    write_junit(result([rule, passed], **changes, verdict="could not run"), tmp_path / "junit.xml")
    write_junit_of_no_run(everything, everything, tmp_path / "none.xml")

    for file in ("junit.xml", "none.xml"):
        assert "\\x00\\x01" in str(parse(str(tmp_path / file)).getroot().get("name"))


def test_a_name_of_a_kept_result_leads_to_no_other_folder(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    write_junit(result([PASSED], name="../x"), tmp_path / "folder")
    assert [path.name for path in tmp_path.rglob("*.xml")] == [".._x.xml"]


def test_no_rules_at_all_are_an_error(tmp_path: Path) -> None:
    assert suite(tmp_path / "junit.xml", []).get("errors") == "1"
