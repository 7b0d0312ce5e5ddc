# SPDX-License-Identifier: Apache-2.0
"""A result as JUnit XML, which every CI reads: one test case for each rule, arm and task."""

import re
from pathlib import Path
from xml.etree import ElementTree as Xml

from eval.report import wording
from eval.report.view import RunView
from eval.report.viewing import view_of_result
from eval.results.schema import Result, RuleResult
from eval.results.writing import is_folder, write_named
from eval.visible import visible

_UNJUDGED = ("interrupted", "could not run")


def write_junit(result: Result, file: Path) -> None:
    """Write one test suite; what was not tested counts as failed, never as skipped.

    Args:
        result: Whose rules are its test cases.
        file: Where to; in a folder the file is named after the run.
    """
    _write(junit(view_of_result(result)), file)


def write_junit_of_no_run(name: str, reason: str, file: Path) -> None:
    """Write one test suite for a run that found something missing and never started."""
    suite = Xml.Element("testsuite", name=name)
    _add_no_verdict(suite, name, "could not run", reason)
    _count(suite)
    _write(suite, file)


def _write(suite: Xml.Element, file: Path) -> None:
    if is_folder(file):
        # The name may be that of a kept result, whoever wrote it.
        file /= re.sub(r"[^\w.-]", "_", f"{suite.get('name')}.xml")
    _show(suite)
    Xml.indent(suite)
    text = Xml.tostring(suite, encoding="unicode")
    write_named(file, f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n')


def _show(suite: Xml.Element) -> None:
    """A name and a reason may have, from a server's log, what XML has not."""
    for element in suite.iter():
        element.attrib |= {name: visible(value) for name, value in element.attrib.items()}
        element.text = visible(element.text or "") or None


def junit(run: RunView) -> Xml.Element:
    """The test suite; a run that was not judged is one test case with an error."""
    suite = Xml.Element("testsuite", name=run.name, timestamp=f"{run.started:%FT%TZ}")
    for rule in run.rules:
        _add_rule(suite, run.name, rule)
    if run.verdict in _UNJUDGED or not run.rules:
        _add_no_verdict(suite, run.name, run.verdict, "\n".join(run.reasons))
    if notes := wording.notes(run):
        Xml.SubElement(suite, "system-out").text = "\n".join(notes)
    _count(suite)
    suite.set("time", f"{run.seconds:.1f}")
    return suite


def _add_no_verdict(suite: Xml.Element, run: str, why: str, text: str) -> None:
    # The first line, and what it announces: one line is what most programs show.
    first = text.replace(":\n", ": ").partition("\n")[0]
    case = Xml.SubElement(suite, "testcase", classname=run, name="evaluation")
    _add(case, "error", f"{why}: {first}" if first else why, text, why)


def _count(suite: Xml.Element) -> None:
    for attribute, tag in (("tests", "testcase"), ("failures", "failure"), ("errors", "error")):
        suite.set(attribute, str(len(list(suite.iter(tag)))))


def _add_rule(suite: Xml.Element, run: str, rule: RuleResult) -> None:
    about = ", ".join(part for part in (rule.arm, rule.task) if part) or "whole run"
    case = Xml.SubElement(suite, "testcase", classname=run, name=f"{rule.rule} [{about}]")
    details = f"saw: {rule.saw}\nlimit: {rule.limit}\ncould have detected: {rule.detectable}"
    if rule.verdict == "passed":
        Xml.SubElement(case, "system-out").text = details
    else:
        _add(case, "failure", f"{rule.verdict}: {rule.saw}", details, rule.verdict)


def _add(case: Xml.Element, tag: str, message: str, text: str, kind: str = "error") -> None:
    element = Xml.SubElement(case, tag, message=message, type=kind)
    element.text = text
