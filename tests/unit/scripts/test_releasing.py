# SPDX-License-Identifier: Apache-2.0
"""What is built of the package, and what is refused when a version is tagged."""

import re
import shutil
import subprocess
import tarfile
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest
import tomllib
from packaging.requirements import Requirement
from packaging.version import Version

from tests.unit.scripts.checkout import REPOSITORY, Checkout, write_executable
from vllm_eplb_plugin import __version__
from vllm_eplb_plugin.releases import RELEASES, newest_for

_BROUGHT = REPOSITORY / "build" / "tools" / "bin" / "uv"
UV = str(_BROUGHT) if _BROUGHT.exists() else shutil.which("uv")


@pytest.fixture
def releasing(checkout: Checkout) -> Checkout:
    """A checkout of this version, whose uv builds nothing."""
    (checkout.folder / "vllm_eplb_plugin").mkdir()
    version = '"""Text."""\n\n__version__ = "1.2.0"\n'
    (checkout.folder / "vllm_eplb_plugin/__init__.py").write_text(version)
    write_changelog(checkout, "- A [thing](docs/a.md).\n")
    write_executable(checkout.bin / "python3", "#!/bin/sh\nexec /usr/bin/env cat\n")
    for tool in ("cat", "ls", "sed"):
        if not (checkout.bin / tool).exists():
            (checkout.bin / tool).symlink_to(str(shutil.which(tool)))
    write_executable(
        checkout.uv, '#!/bin/sh\necho "$@" >> "$NOTES"\nmkdir -p dist; : > dist/a.whl\n'
    )
    return checkout


def write_changelog(checkout: Checkout, text: str, version: str = "1.2.0") -> None:
    changelog = f"# Changelog\n\n## {version}\n\n{text}\n## 1.1.0\n\n- Older.\n"
    (checkout.folder / "CHANGELOG.md").write_text(changelog)


def test_a_tag_of_the_version_is_built_with_its_part_of_the_changelog(releasing: Checkout) -> None:
    left = releasing.folder / "dist" / "vllm_eplb_plugin-1.1.0.tar.gz"
    left.parent.mkdir()
    left.touch()
    done = releasing.run("build-release", "v1.2.0")
    assert (done.returncode, done.stderr) == (0, "")
    assert releasing.called() == ["build --quiet --out-dir dist ."]
    assert done.stdout == "a.whl\n"
    notes = (releasing.folder / "build/notes.md").read_text()
    assert notes.strip() == "- A [thing](docs/a.md)."


@pytest.mark.parametrize("tag", ["v1.2.1", "1.2.0", "v1.2.0rc1"])
def test_a_tag_of_another_version_is_refused(releasing: Checkout, tag: str) -> None:
    done = releasing.run("build-release", tag)
    assert done.returncode == 1
    assert f"{tag} is no tag of version 1.2.0: change __version__" in done.stderr
    assert releasing.called() == []


def test_a_version_that_the_changelog_lacks_or_calls_unreleased_is_refused(
    releasing: Checkout,
) -> None:
    write_changelog(releasing, "- A thing.\n", version="1.3.0")
    assert "CHANGELOG.md has nothing of 1.2.0" in releasing.run("build-release", "v1.2.0").stderr
    write_changelog(releasing, "Unreleased. Of today.\n")
    assert "calls 1.2.0 unreleased" in releasing.run("build-release", "v1.2.0").stderr
    assert releasing.called() == []
    assert releasing.run("build-release").returncode == 0


def test_the_changelog_begins_with_this_version() -> None:
    first = re.search(r"^## (.*)$", (REPOSITORY / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert first is not None and first[1] == __version__


@pytest.mark.skipif(UV is None, reason="scripts/setup has brought no uv")
def test_wheel_and_sdist_say_the_same_and_have_no_link_that_an_index_cannot_resolve(
    tmp_path: Path,
) -> None:
    command = [str(UV), "build", "--quiet", "--out-dir", str(tmp_path), str(REPOSITORY)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    [wheel], [sdist] = tmp_path.glob("*.whl"), tmp_path.glob("*.tar.gz")
    assert wheel.name == f"vllm_eplb_plugin-{__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as opened:
        [name] = [one for one in opened.namelist() if one.endswith(".dist-info/METADATA")]
        built = opened.read(name)
    with tarfile.open(sdist) as opened:
        member = opened.extractfile(f"vllm_eplb_plugin-{__version__}/PKG-INFO")
        assert member is not None and member.read() == built
    description = message_from_bytes(built).get_payload()
    assert isinstance(description, str) and description.startswith("# vllm-eplb-plugin")
    without_code = re.sub(r"```.*?```", "", description, flags=re.DOTALL)
    assert re.findall(r"\]\((?!https?:)[^)]*\)|(?:src|href)=\"(?!https?:)", without_code) == []


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12", "3.13", "3.14"])
def test_the_extra_vllm_gives_each_python_what_the_table_says(python: str) -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    needed = [Requirement(one) for one in project["optional-dependencies"]["vllm"]]
    [bounds] = [
        one.specifier
        for one in needed
        if one.marker is None or one.marker.evaluate({"python_version": python})
    ]
    newest = newest_for(f"{python}.1")
    assert newest is not None
    taken = [one.version for one in RELEASES if bounds.contains(one.version)]
    assert taken[0] == RELEASES[0].version and taken[-1] == newest.version
    assert not bounds.contains(str(Version(f"{newest.version}.1")))


def test_what_is_run_beside_the_wheel_is_there() -> None:
    named = re.findall(r"test_\w+\.py", (REPOSITORY / "scripts/test-wheel").read_text())
    assert len(named) > 10
    assert [name for name in named if not (REPOSITORY / "tests/unit" / name).is_file()] == []
