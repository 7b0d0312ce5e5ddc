# SPDX-License-Identifier: Apache-2.0
"""`vllm-eplb explain` tells of every override of a release, and of no other."""

import io
import json
import operator
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import pytest
import vllm.version
from rich.console import Console
from typer.testing import CliRunner

from vllm_eplb_plugin.cli.explain import MOMENTS, explain
from vllm_eplb_plugin.cli.explanation import show
from vllm_eplb_plugin.cli.main import main
from vllm_eplb_plugin.compatibility import support_for
from vllm_eplb_plugin.fault_settings import Fault
from vllm_eplb_plugin.overrides.catalogue import Overrides, overrides_for
from vllm_eplb_plugin.overrides.override import KINDS
from vllm_eplb_plugin.releases import supported_releases

ROOT = Path(__file__).parents[2]


def text_of(release: str | None, width: int, is_terminal: bool) -> str:
    file = io.StringIO()
    show(explain(release), Console(file=file, width=width, force_terminal=is_terminal))
    return re.sub(r"\x1b\[[0-9;]*m", "", file.getvalue())


def run(*arguments: str) -> Any:
    return CliRunner().invoke(main, ["explain", *arguments])


def in_one_line(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("release", supported_releases())
def test_it_tells_of_all_that_a_release_gets(release: str) -> None:
    explained = explain(release).overrides
    catalogue = overrides_for(release)
    bound = {override for f in fields(Overrides) for override in getattr(catalogue, f.name)}
    told = [one for one in explained if one.kind != "break"]
    key = operator.attrgetter("target", "kind", "releases", "fixes", "delete_when")
    assert sorted(map(key, told)) == sorted(map(key, bound))
    faults = {moment for one in explained if one.kind == "break" for moment in one.bound_when}
    assert faults == {
        *(f'a loopback worker starts with "fault": "{fault}"' for fault in get_args(Fault)),
        'a loopback worker starts with "transfer_delay_ms"',
    }


def test_every_moment_has_words_and_every_room_is_there() -> None:
    assert list(MOMENTS) == [field.name for field in fields(Overrides)]
    for one in explain(None).overrides:
        assert (ROOT / "vllm_eplb_plugin" / one.room).exists()


def test_what_is_bound_at_two_moments_is_told_once_with_both() -> None:
    found = [one for one in explain("0.26.0").overrides if one.target.endswith("get_mp_context")]
    assert [one.bound_when for one in found] == [
        ("loopback starts on a CPU", "loopback starts on a GPU")
    ]


def test_where_another_declaration_has_the_same_target_its_releases_are_told() -> None:
    for release, kind, elsewhere in (
        ("0.18.1", "replace", (">=0.19,<0.31", ">=0.31")),
        ("0.33.0", "hook", (">=0.19,<0.31", "<0.19")),
    ):
        (one,) = (o for o in explain(release).overrides if o.target.endswith("State.rearrange"))
        assert (one.kind, one.elsewhere) == (kind, elsewhere)


@pytest.mark.parametrize("release", supported_releases())
def test_on_a_terminal_each_line_fits(release: str) -> None:
    for width in (80, 140):
        lines = text_of(release, width, is_terminal=True).splitlines()
        assert max(map(len, lines)) <= width
        assert not any(line.endswith(" ") for line in lines)


def test_in_a_pipe_each_target_is_whole_with_its_kind_however_narrow_it_is() -> None:
    text = text_of("0.18.1", width=40, is_terminal=False)
    for one in explain("0.18.1").overrides:
        assert f"{one.kind:9}{one.target}\n" in text


def test_what_several_targets_have_in_common_is_told_once() -> None:
    text = text_of("0.33.0", width=100, is_terminal=False)
    alike = [one for one in explain("0.33.0").overrides if one.target.endswith("move_from_buffer")]
    first, second = (one for one in alike if one.kind == "replace")
    assert f"{first.target}\nreplace  {second.target}\n         in transfer/" in text


def test_only_one_kind_is_told_if_it_is_asked_for() -> None:
    everything = json.loads(run("--json").stdout)
    assert everything["tested"] and everything["installed"]
    for kind in KINDS:
        done = run("--json", "--kind", kind, "--release", everything["release"])
        expected = [one for one in everything["overrides"] if one["kind"] == kind]
        assert json.loads(done.stdout)["overrides"] == expected != []


@pytest.mark.parametrize("version", ["0.32.0+cu130", "v0.32", "0.32.0"])
def test_a_release_may_be_asked_for_in_every_build(version: str) -> None:
    assert "vLLM 0.32.0: " in run("--release", version).stdout


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Lets the installed vLLM call itself otherwise."""

    def call(version: str) -> None:
        monkeypatch.setattr(vllm.version, "__version__", version)

    support_for.cache_clear()
    yield call
    support_for.cache_clear()


def test_an_untested_build_is_told_of_as_one_with_what_it_gets(built: Any) -> None:
    build = "0.1.dev20175+gabc"
    tested = json.loads(run("--json", "--release", "0.33.0").stdout)
    built(build)
    assert json.loads(run("--json").stdout) == {**tested, "vllm": build, "tested": False}
    told = in_one_line(text_of(None, width=80, is_terminal=True))
    assert f"vLLM {build} was not tested; " in told
    assert f"looks as in 0.33.0, whose {len(tested['overrides'])} overrides it gets" in told


def test_a_build_like_no_release_is_refused_with_its_mismatches_and_the_option(built: Any) -> None:
    built("0.26.1")
    done = run()
    assert done.exit_code == 2
    assert "vLLM 0.26.1 is not supported" in done.stderr and "as 0.26.0: " in done.stderr
    assert "`vllm-eplb explain --release VERSION` tells of each" in done.stderr
    assert run("--release", "0.26.0").exit_code == 0


def test_the_excerpt_in_docs_is_what_it_prints() -> None:
    installed = re.compile(r" \(vllm\S* \S+ is installed\)")
    page = installed.sub("", (ROOT / "docs" / "overrides.md").read_text())
    ((excerpt, release),) = re.findall(r"```\n(vLLM (\S+):.*?)```", page, re.DOTALL)
    printed = installed.sub("", text_of(release, width=100, is_terminal=False))
    for part in excerpt.split("...\n"):
        assert part.strip() in printed
