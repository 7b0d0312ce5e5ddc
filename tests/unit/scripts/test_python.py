# SPDX-License-Identifier: Apache-2.0
"""Which Python ``scripts/setup`` takes, and when it makes an environment anew."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.scripts.checkout import REPOSITORY, SHIM, Checkout, write_executable


@pytest.mark.parametrize(
    ("on_path", "taken"),
    [
        ({"python3.11": "3.11.9", "python3.12": "3.12.1", "python3": "3.13.0"}, "python3.11"),
        ({"python3.13": "3.13.0", "python3.14": "3.14.2"}, "python3.13"),
        ({"python3.14": "3.14.2"}, "python3.14"),
        ({"python3": "3.12.1"}, "python3"),
        ({"python3.11": "shim", "python3.12": "shim", "python3": "3.13.0"}, "python3"),
    ],
)
def test_the_first_on_path_that_runs_and_fits_is_taken(
    checkout: Checkout, on_path: dict[str, str], taken: str
) -> None:
    for name, version in on_path.items():
        if version == "shim":
            write_executable(checkout.bin / name, SHIM)
        else:
            checkout.python(name, version)
    printed = checkout.set_up()

    assert f"Setting up .venv with Python {on_path[taken]} ({checkout.bin / taken}) ..." in printed
    assert checkout.called()[0] == f"venv --quiet --python {checkout.bin / taken} .venv"


def test_python_names_the_one_to_take(checkout: Checkout, tmp_path: Path) -> None:
    checkout.python("python3.11", "3.11.9")
    other = shutil.move(checkout.python("python", "3.12.1"), tmp_path / "other")

    assert f"with Python 3.12.1 ({other})" in checkout.set_up(PYTHON=str(other))


@pytest.mark.parametrize(
    ("version", "said"),
    [
        ("3.10.13", "Python 3.10.13"),
        ("3.15.0", "Python 3.15.0"),
        ("2.7.18", "Python 2.7.18"),
        ("shim", "pyenv: named: command not found"),
        (None, "command not found"),
    ],
)
def test_one_that_python_names_and_does_not_fit_is_refused(
    checkout: Checkout, version: str | None, said: str
) -> None:
    checkout.python("python3.11", "3.11.9")
    if version == "shim":
        write_executable(checkout.bin / "named", SHIM)
    elif version:
        checkout.python("named", version)
    refused = checkout.run("setup", PYTHON="named")

    assert refused.returncode == 2
    assert f"PYTHON is 'named' ({said}): Python 3.11 to 3.14 is needed" in refused.stderr
    assert checkout.called() == []


def test_each_environment_has_its_own_range(checkout: Checkout) -> None:
    checkout.python("python3.14", "3.14.2")
    checkout.python("python3", "3.13.0")

    assert "Setting up .venv with Python 3.14.2" in checkout.set_up()
    assert "Setting up .venv-0.18.1 with Python 3.13.0" in checkout.set_up("0.18.1")


def test_without_one_uv_brings_it(checkout: Checkout, tmp_path: Path) -> None:
    checkout.python("python3", "3.10.2")
    brought = shutil.move(checkout.python("python", "3.11.9"), tmp_path / "brought")

    assert f"with Python 3.11.9 ({brought})" in checkout.set_up(PYTHON_OF_UV=str(brought))
    assert checkout.called()[0] == "python install --quiet --no-bin 3.11"


def test_where_uv_cannot_bring_one_the_versions_are_named(checkout: Checkout) -> None:
    refused = checkout.run("setup")

    assert refused.returncode == 2
    assert "error: no network" in refused.stderr
    assert "Install one of Python 3.11 to 3.14" in refused.stderr
    assert "or set PYTHON to the path of one" in refused.stderr


def test_what_is_set_up_is_left_alone_and_keeps_its_python(checkout: Checkout) -> None:
    checkout.python("python3.12", "3.12.1")
    checkout.set_up()
    called = checkout.called()
    checkout.python("python3.11", "3.11.9")

    assert checkout.set_up() == ""
    assert checkout.called() == called


def test_another_python_makes_the_environment_anew_and_says_so(checkout: Checkout) -> None:
    checkout.python("python3.11", "3.11.9")
    checkout.python("python3.12", "3.12.1")
    checkout.set_up()
    left = checkout.folder / ".venv" / "left"
    left.touch()
    printed = checkout.set_up(PYTHON="python3.12")

    assert f".venv is made anew: it has Python 3.11.9 ({checkout.bin / 'python3.11'})" in printed
    assert "Setting up .venv with Python 3.12.1" in printed
    assert not left.exists()
    assert checkout.set_up(PYTHON="python3.12") == ""


def test_an_environment_whose_python_is_gone_is_made_anew(checkout: Checkout) -> None:
    gone = checkout.python("python3.11", "3.11.9")
    checkout.set_up()
    gone.unlink()
    checkout.python("python3.12", "3.12.1")
    printed = checkout.set_up()

    assert ".venv is made anew: it has no Python that works" in printed
    assert "Setting up .venv with Python 3.12.1" in printed


@pytest.mark.parametrize("changed", ["pyproject.toml", "scripts/locks/cpu.txt"])
def test_what_it_is_made_from_sets_it_up_again_in_place(checkout: Checkout, changed: str) -> None:
    checkout.python("python3.11", "3.11.9")
    checkout.set_up()
    with (checkout.folder / changed).open("a") as file:
        file.write("\n")
    printed = checkout.set_up()

    assert "made anew" not in printed
    assert "Setting up .venv" in printed


def test_a_copy_of_a_checkout_gets_an_environment_of_its_own_package(checkout: Checkout) -> None:
    checkout.python("python3.11", "3.11.9")
    checkout.set_up()
    checkout.folder = checkout.folder.rename(checkout.folder.with_name("copy"))

    assert "Setting up .venv" in checkout.set_up()


def test_a_shim_or_an_environment_is_the_python_behind_it(tmp_path: Path) -> None:
    behind = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    shim = write_executable(tmp_path / "shim", f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    script = f"source {REPOSITORY}/scripts/python.sh; identify {shim}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True)

    version = ".".join(map(str, sys.version_info[:3]))
    assert done.stdout == f"{version} {behind}\n"
