# SPDX-License-Identifier: Apache-2.0
"""A result as JUnit XML, which every CI reads: one test case for each rule, arm and task."""

from pathlib import Path
from xml.etree import ElementTree as Xml

from eval.results.folder import write_atomically
from eval.results.schema import Result, RuleResult

# XML 1.0 has no other control characters, and a reason may quote a server's log.
_REMOVED = dict.fromkeys(code for code in range(32) if chr(code) not in "\t\n\r")

_UNJUDGED = ("interrupted", "could not run")


def write_junit(result: Result, file: Path) -> None:
    """Write one test suite; what was not tested counts as failed, never as skipped.

    Args:
        result: Whose rules are its test cases.
        file: Where to; in a folder the file is named after the run.
    """
    _write(junit(result), file)


def write_junit_of_no_run(name: str, reason: str, file: Path) -> None:
    """Write one test suite for a run that found something missing and never started."""
    suite = Xml.Element("testsuite", name=name)
    _add_no_verdict(suite, name, "could not run", reason)
    _count(suite)
    _write(suite, file)


def _write(suite: Xml.Element, file: Path) -> None:
    if file.is_dir():
        file /= f"{suite.get('name')}.xml"
    Xml.indent(suite)
    text = Xml.tostring(suite, encoding="unicode")
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n')


def junit(result: Result) -> Xml.Element:
    """The test suite; a run that was not judged is one test case with an error."""
    suite = Xml.Element("testsuite", name=result.name, timestamp=f"{result.started:%FT%TZ}")
    for rule in result.rules:
        _add_rule(suite, result.name, rule)
    if result.verdict in _UNJUDGED or not result.rules:
        _add_no_verdict(suite, result.name, result.verdict, "\n".join(result.reasons))
    if result.left_out:
        notes = [f"{task} left out: {why}" for task, why in result.left_out.items()]
        Xml.SubElement(suite, "system-out").text = "\n".join(notes).translate(_REMOVED)
    _count(suite)
    suite.set("time", f"{sum(arm.start_seconds + arm.seconds for arm in result.arms):.1f}")
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
        Xml.SubElement(case, "system-out").text = details.translate(_REMOVED)
    else:
        _add(case, "failure", f"{rule.verdict}: {rule.saw}", details, rule.verdict)


def _add(case: Xml.Element, tag: str, message: str, text: str, kind: str = "error") -> None:
    element = Xml.SubElement(case, tag, message=message.translate(_REMOVED), type=kind)
    element.text = text.translate(_REMOVED)
