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


def test_loading_imports_nothing_that_the_process_might_not_need() -> None:
    names = "'torch', 'pydantic', 'vllm', 'vllm.engine.arg_utils'"
    done = python("import sys; " + REGISTER + f"print([n for n in ({names}) if n in sys.modules])")
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


def test_an_error_in_the_variable_is_one_at_load() -> None:
    done = python(REGISTER, EPLB_PLUGIN='{"enable": true}')
    assert done.returncode != 0
    assert "unknown setting 'enable', the nearest is 'enabled'" in done.stderr


def test_loading_can_be_taken_back() -> None:
    code = (
        "from vllm.engine.arg_utils import EngineArgs; before = EngineArgs.create_engine_config; "
    )
    code += REGISTER + "bound = EngineArgs.create_engine_config; "
    code += "from vllm_eplb_plugin.activation import deactivate; deactivate(); " + STATE
    done = python(
        code + "print(bound is before, EngineArgs.create_engine_config is before, "
        "hasattr(eplb_state.EplbState.__init__, '__wrapped__'))"
    )
    assert done.stdout.splitlines()[-1] == "False True False", done.stderr


ASK = (
    "from vllm.engine.arg_utils import EngineArgs\n"
    "def ask(eplb, **settings):\n"
    "    arguments = EngineArgs(model='eval/models/gsm-tiny', enforce_eager=True, "
    "enable_expert_parallel=True, enable_eplb=eplb, data_parallel_size=2 if eplb else 1, "
    "additional_config={'eplb_plugin': settings})\n"
    "    try:\n"
    "        print('made', type(arguments.create_engine_config()).__name__)\n"
    "    except Exception as error:\n"
    "        print(type(error).__name__, error)\n"
)
"""What the front end does, without a server."""


def as_version(version: str) -> str:
    return f"import vllm.version; vllm.version.__version__ = {version!r}; "


def test_turned_off_by_the_variable_nothing_is_bound_and_the_log_says_so_if_eplb_is_asked_for() -> (
    None
):
    done = python(
        REGISTER
        + STATE
        + "print(hasattr(eplb_state.EplbState.__init__, '__wrapped__'))\n"
        + ASK
        # vLLM itself refuses EPLB on a CPU.
        + "ask(False); print('now'); ask(True, misspelt=True); ask(True)",
        EPLB_PLUGIN='{"enabled": false}',
    )
    first, second = done.stdout.split("now\n")
    assert first.splitlines()[0] == "False", done.stderr
    assert "made VllmConfig" in first
    assert "made VllmConfig" not in second
    log = done.stdout + done.stderr
    assert log.count("vllm-eplb-plugin is turned off by EPLB_PLUGIN: EPLB is vLLM's own.") == 1


def test_turned_off_by_the_option_the_log_says_so() -> None:
    done = python(REGISTER + ASK + "ask(True, enabled=False, loopback=True)")
    assert "made VllmConfig" in done.stdout, done.stderr
    log = done.stdout + done.stderr
    assert log.count("vllm-eplb-plugin is turned off by its settings in --additional-config") == 1


def test_a_patched_vllm_is_refused_with_both_signatures_where_eplb_is_asked_for() -> None:
    patch = "eplb_state._commit_eplb_maps = lambda model_state, new_map: None\n"
    done = python(
        STATE + patch + REGISTER + ASK + "ask(False); ask(True, loopback=True); "
        "eplb_state.EplbState(None, None)"
    )
    assert done.returncode != 0
    signatures = (
        "_commit_eplb_maps has the parameters (model_state, new_map), "
        "expected (model_state, new_physical_to_logical_map)"
    )
    assert "made VllmConfig" in done.stdout, done.stderr
    assert signatures in done.stdout  # by the front end
    assert signatures in done.stderr  # by a worker
    assert "vLLM 0.32.0 does not look as" in done.stderr
    assert "nothing was overridden" in done.stderr


@pytest.mark.parametrize("version", ["0.17.1", "0.26.0.post1", "0.26.1rc1.dev77"])
def test_a_build_that_looks_like_no_neighbour_is_refused_only_where_eplb_is_asked_for(
    version: str,
) -> None:
    done = python(
        as_version(version) + REGISTER + ASK + "ask(False); ask(True, loopback=True)\n"
        "from vllm.distributed.eplb.eplb_state import EplbState; EplbState(None, None)"
    )
    assert "made VllmConfig" in done.stdout, done.stderr
    for text in (done.stdout, done.stderr):
        assert "UnsupportedReleaseError" in text
        assert f"vLLM {version} is not supported" in text
        assert "--enable-eplb" in text


@pytest.mark.parametrize(
    ("version", "release"),
    [("0.33.0rc2", "0.32.0"), ("0.32.0a0+nv25.11", "0.32.0"), ("0.1.dev20175+gabc", "0.33.0")],
)
def test_a_build_that_looks_like_a_neighbour_is_used_and_called_untested_once(
    version: str, release: str
) -> None:
    done = python(
        as_version(version) + REGISTER + ASK + "ask(False); print('now'); "
        "ask(True, loopback=True); ask(True, loopback=True)"
    )
    assert done.stdout.count("made VllmConfig") == 3, done.stdout + done.stderr
    warning = f"vLLM {version} is none of the releases"
    log = done.stdout + done.stderr
    assert log.count(warning) == 1
    assert f"looks as in {release}, so it is used" in log


def test_the_doctor_is_content_with_this_environment() -> None:
    done = doctor()
    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines()[-1] == "works"
    assert "EplbState.add_model" in done.stdout


def test_the_doctor_names_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = doctor(VLLM_CACHE_ROOT=str(tmp_path / "file" / "vllm"))
    assert done.returncode == 0, done.stdout
    assert "note: vLLM cannot keep what torch.compile makes in" in done.stdout
    assert "Set VLLM_CACHE_ROOT to a folder" in done.stdout


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


def test_the_doctor_tells_what_keeps_the_plugin_and_its_settings_away() -> None:
    done = doctor(VLLM_PLUGINS="other", EPLB_PLUGIN="{}", COLUMNS="1000")
    assert done.returncode == 2
    assert "VLLM_PLUGINS='other' does not name eplb. Set VLLM_PLUGINS=other,eplb" in done.stdout
    assert "does not copy EPLB_PLUGIN to workers" in done.stdout


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
