# SPDX-License-Identifier: Apache-2.0
"""What loading the plugin does to the installed vLLM, each time in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.releases.conftest import fetch
from vllm_eplb_plugin.releases import RELEASES, supported_releases

STATE = "from vllm.distributed.eplb import eplb_state; "
REGISTER = "import vllm_eplb_plugin; vllm_eplb_plugin.register(); "


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


def doctor(*options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "vllm_eplb_plugin.cli", "doctor", *options],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_loading_the_plugin_twice_is_the_same_as_once() -> None:
    code = REGISTER + STATE + "one = eplb_state.EplbState.__init__; " + REGISTER
    done = python(code + "print(one is eplb_state.EplbState.__init__, one.__wrapped__ is not one)")
    assert done.stdout.splitlines()[-1] == "True True", done.stderr


def test_turned_off_by_the_variable_nothing_is_bound_and_the_log_says_so() -> None:
    done = python(
        REGISTER + STATE + "print(hasattr(eplb_state.EplbState.__init__, '__wrapped__'))",
        EPLB_PLUGIN='{"enabled": false}',
    )
    assert done.stdout.splitlines()[-1] == "False", done.stderr
    assert "vllm-eplb-plugin is turned off by EPLB_PLUGIN" in done.stdout + done.stderr


def test_a_patched_vllm_stops_the_process_with_both_signatures() -> None:
    patch = "eplb_state._commit_eplb_maps = lambda model_state, new_map: None; "
    done = python(STATE + patch + REGISTER)
    assert done.returncode != 0
    assert (
        "_commit_eplb_maps has the parameters (model_state, new_map), "
        "expected (model_state, new_physical_to_logical_map)" in done.stderr
    )
    assert "vLLM 0.32.0 does not look as" in done.stderr
    assert "nothing was overridden" in done.stderr


@pytest.mark.parametrize(
    ("release", "message"),
    [("0.17.1", "vLLM 0.17.1 is not supported"), ("0.34.0", "is newer than every release")],
)
def test_a_release_that_the_table_does_not_have(release: str, message: str) -> None:
    done = python(f"import vllm.version; vllm.version.__version__ = {release!r}; " + REGISTER)
    assert message in done.stdout + done.stderr
    assert (done.returncode == 0) == (release == "0.34.0")


def test_the_doctor_is_content_with_this_environment() -> None:
    done = doctor()
    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines()[-1] == "works"
    assert "EplbState.add_model" in done.stdout


def test_loopback_names_the_releases_it_serves_with() -> None:
    arguments = (
        "model='eval/models/gsm-tiny', enforce_eager=True, "
        "additional_config={'eplb_plugin': {'loopback': True}}"
    )
    [release] = [release for release in RELEASES if release.version == "0.25.0"]
    done = python(
        REGISTER + "from vllm.engine.arg_utils import EngineArgs; "
        f"EngineArgs({arguments}).create_engine_config()",
        PYTHONPATH=str(fetch(release)),
    )
    assert (
        "loopback on a CPU cannot serve with vLLM 0.25.0: it does with releases <0.19"
        in done.stderr
    )


@pytest.mark.parametrize(("loopback", "methods"), [(True, "fork spawn"), (False, "spawn spawn")])
def test_only_loopbacks_coordinator_is_a_fork_and_its_ranks_are_not(
    loopback: bool, methods: str
) -> None:
    arguments = (
        "model='eval/models/gsm-tiny', enforce_eager=True, "
        f"additional_config={{'eplb_plugin': {{'loopback': {loopback}}}}}"
    )
    done = python(
        REGISTER + "from vllm.engine.arg_utils import EngineArgs; "
        f"EngineArgs({arguments}).create_engine_config(); "
        "from vllm.v1.engine import coordinator, utils; "
        "print(*(m.get_mp_context().get_start_method() for m in (coordinator, utils)))",
        VLLM_WORKER_MULTIPROC_METHOD="spawn",
    )
    assert done.stdout.splitlines()[-1] == methods, done.stderr


def test_the_doctor_prints_the_same_as_json_and_the_table_of_releases() -> None:
    done = doctor("--json")
    report = json.loads(done.stdout)
    assert report["works"]
    assert report["tested"]
    table = {release["version"]: release["served_on"] for release in report["releases"]}
    assert list(table) == supported_releases()
    assert table["0.18.1"] == ["cpu"]
    assert all(override["fits"] for override in report["overrides"])


def test_the_doctor_names_a_wrong_setting() -> None:
    done = doctor(EPLB_PLUGIN='{"enable": true}')
    assert done.returncode == 2
    assert "unknown setting 'enable', the nearest is 'enabled'" in done.stdout


def test_the_doctor_refuses_an_unsupported_release(tmp_path: Path) -> None:
    package = tmp_path / "vllm"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "version.py").write_text("__version__ = '0.17.1'\n")
    done = doctor(PYTHONPATH=str(tmp_path))
    assert done.returncode == 2
    assert "vLLM 0.17.1 is not supported" in done.stdout


def test_the_doctor_says_how_to_install_a_missing_vllm(tmp_path: Path) -> None:
    hide = (
        "import vllm_eplb_plugin.releases as releases; releases.DISTRIBUTION_NAMES = (); "
        "from vllm_eplb_plugin.cli.main import main; main(['doctor'])"
    )
    done = python(hide)
    assert done.returncode == 2
    assert "vLLM is not installed: for GPUs, pip install 'vllm==0.33.0'" in done.stdout
