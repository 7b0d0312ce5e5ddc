# SPDX-License-Identifier: Apache-2.0
"""What loading the plugin does to the installed vLLM.

In this process where vLLM may have been imported before, since all of it can be taken back;
otherwise, and with other environments, in a process of its own.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import vllm.version
from vllm.distributed.eplb import eplb_state
from vllm.distributed.eplb.eplb_state import EplbState
from vllm.engine.arg_utils import EngineArgs

import vllm_eplb_plugin
from tests.builders.forked import run_forked
from tests.releases.conftest import fetch
from vllm_eplb_plugin.activation import deactivate
from vllm_eplb_plugin.cli.main import main
from vllm_eplb_plugin.compatibility import support_for
from vllm_eplb_plugin.front_end import engine_config
from vllm_eplb_plugin.overrides.binding import OverrideError, UnbindError, bind, unbind
from vllm_eplb_plugin.overrides.bound import held
from vllm_eplb_plugin.overrides.catalogue import overrides_at, places
from vllm_eplb_plugin.releases import RELEASES, UnsupportedReleaseError, supported_releases

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
    """What `vllm-eplb doctor` says where vLLM has been imported."""

    def command() -> None:
        support_for.cache_clear()
        sys.argv = ["vllm-eplb", "doctor", *options]
        main()

    return run_forked(command, **environment)


def forked(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """What code prints where vLLM has been imported."""
    return run_forked(lambda: exec(code, {"__name__": "__main__"}), **environment)


def doctor_anew(**environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "vllm_eplb_plugin.cli", "doctor"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture
def register() -> Iterator[Callable[[], None]]:
    """Loads the plugin in this process; all that it does is taken back."""
    caches = (support_for, engine_config._say_once)
    for cache in caches:
        cache.cache_clear()
    with mock.patch.dict(os.environ):
        yield vllm_eplb_plugin.register
    deactivate()
    unbind(place.override for place in places())
    for cache in caches:
        cache.cache_clear()


def test_loading_the_plugin_twice_is_the_same_as_once(register: Callable[[], None]) -> None:
    before = EplbState.__init__
    register()
    once = EplbState.__init__
    register()
    assert EplbState.__init__ is once
    assert once.__wrapped__ is before


def test_loading_imports_nothing_that_the_process_might_not_need() -> None:
    names = "'torch', 'pydantic', 'vllm', 'vllm.engine.arg_utils'"
    done = python("import sys; " + REGISTER + f"print([n for n in ({names}) if n in sys.modules])")
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


def test_an_error_in_the_variable_is_one_at_load() -> None:
    done = python(REGISTER, EPLB_PLUGIN='{"enable": true}')
    assert done.returncode != 0
    assert "unknown setting 'enable', the nearest is 'enabled'" in done.stderr


def test_loading_can_be_taken_back(register: Callable[[], None]) -> None:
    before = EngineArgs.create_engine_config, EplbState.__init__
    register()
    assert before[0] is not EngineArgs.create_engine_config
    deactivate()
    assert before == (EngineArgs.create_engine_config, EplbState.__init__)


def test_loading_is_taken_back_as_a_whole_or_not_at_all(
    register: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    register()
    bound = EplbState.__init__
    with monkeypatch.context() as patch:
        patch.setattr(EngineArgs, "create_engine_config", lambda self: None)
        with pytest.raises(UnbindError, match=r"EngineArgs.create_engine_config was replaced by"):
            deactivate()
        assert EplbState.__init__ is bound
    deactivate()
    assert EplbState.__init__ is not bound


def test_it_is_loaded_with_the_import_of_vllm_unless_it_was_taken_back_before() -> None:
    wrapped = "print(hasattr(eplb_state.EplbState.__init__, '__wrapped__')); "
    take_back = "from vllm_eplb_plugin.activation import deactivate; deactivate(); "
    done = python(REGISTER + take_back + STATE + wrapped)
    assert done.stdout.splitlines()[-1] == "False", done.stderr
    done = python(REGISTER + STATE + wrapped + take_back + wrapped)
    assert done.stdout.splitlines()[-2:] == ["True", "False"], done.stderr


def test_all_that_eplb_gets_when_it_starts_can_be_taken_back(
    register: Callable[[], None],
) -> None:
    release = support_for(vllm.version.__version__).release
    overrides = overrides_at(release, "entry", "state", "runner")

    def contents() -> list[object]:
        return [held(EplbState, name) for name in sorted(vars(EplbState))]

    before = contents()
    bind(overrides)
    assert contents() != before
    assert len(unbind(overrides)) == len(overrides)
    assert contents() == before


def test_a_worker_s_settings_hold_wherever_it_makes_its_state() -> None:
    done = forked(
        REGISTER + "from types import SimpleNamespace as S\n"
        "from vllm.v1.worker.worker_base import WorkerBase\n"
        "def work(eplb, **settings):\n"
        "    config = S(parallel_config=S(enable_eplb=eplb), "
        "additional_config={'eplb_plugin': settings})\n"
        "    try:\n"
        "        WorkerBase(config, 0, 0, '')\n"
        "    except AttributeError:\n"
        "        pass  # vLLM asks for more of its configuration\n"
        "work(True, compiled_policy=False)\n"
        "work(False, misspelt=True)\n"
        # As on elastic EP's new rank: no configuration is being set up.
        "from vllm_eplb_plugin.engine.current_settings import current_settings\n"
        "print(current_settings().compiled_policy)"
    )
    assert done.stdout.splitlines()[-1] == "False", done.stderr


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


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What the front end answers in this process."""
    made: dict[str, Callable[..., None]] = {}
    exec(ASK, made)

    def answer(eplb: bool, **settings: Any) -> str:
        made["ask"](eplb, **settings)
        return capsys.readouterr().out

    return answer


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the front end logs, whatever vLLM makes of its loggers meanwhile."""
    messages: list[str] = []
    logger = engine_config.logger
    monkeypatch.setattr(logger, "handle", lambda record: messages.append(record.getMessage()))
    return messages


def test_turned_off_by_the_variable_nothing_is_bound_and_the_log_says_so_if_eplb_is_asked_for(
    register: Callable[[], None],
    ask: Callable[..., str],
    told: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EPLB_PLUGIN", '{"enabled": false}')
    before = EplbState.__init__
    register()
    assert EplbState.__init__ is before
    assert "made VllmConfig" in ask(False)
    assert told == []
    # vLLM itself refuses EPLB on a CPU.
    assert "made VllmConfig" not in ask(True, misspelt=True) + ask(True)
    assert told == ["vllm-eplb-plugin is turned off by EPLB_PLUGIN: EPLB is vLLM's own."]


def test_settings_of_the_variable_go_where_vllm_hands_them_to_every_worker() -> None:
    done = forked(
        REGISTER + "from vllm.engine.arg_utils import EngineArgs\n"
        "class Own:\n"
        "    def compute_hash(self): return 'own'\n"
        "for eplb, given in ((True, {'x': 1}), (False, {'x': 1}), (True, Own())):\n"
        "    made = EngineArgs(model='eval/models/gsm-tiny', enforce_eager=True, "
        "enable_expert_parallel=True, enable_eplb=eplb, data_parallel_size=2 if eplb else 1, "
        "additional_config=given).create_engine_config().additional_config\n"
        "    print('made', made if isinstance(made, dict) else made is given)",
        EPLB_PLUGIN='{"loopback": true}',
    )
    assert [line for line in done.stdout.splitlines() if line.startswith("made ")] == [
        "made {'eplb_plugin': {'loopback': True}, 'x': 1}",
        "made {'x': 1}",
        "made True",
    ], done.stderr


def test_a_policy_that_is_none_is_refused_before_a_worker_starts_where_eplb_is_asked_for(
    register: Callable[[], None], ask: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    register()
    wrong = {"loopback": True, "planning": {"policy": "incremantal"}}
    said = "the setting planning: there is no policy 'incremantal', the nearest is 'incremental'"
    assert f"ValueError {said}" in ask(True, **wrong)
    assert "made VllmConfig" in ask(False, **wrong)
    assert "made VllmConfig" in ask(True, **(wrong | {"enabled": False}))
    monkeypatch.setenv("EPLB_PLUGIN", '{"enabled": false}')
    assert "no policy" not in ask(True, **wrong)
    monkeypatch.delenv("EPLB_PLUGIN")
    assert "made VllmConfig" in ask(True, loopback=True, planning={"policy": "incremental"})


def test_a_fault_of_the_worker_is_refused_where_there_is_none(
    register: Callable[[], None],
) -> None:
    register()
    config = {"eplb_plugin": {"loopback": True, "fault": "worker_hangs"}}
    arguments = EngineArgs(enable_eplb=True, additional_config=config)
    arguments.eplb_config.use_async = False
    with pytest.raises(ValueError, match="fault='worker_hangs' breaks the async worker"):
        arguments.create_engine_config()


def test_the_doctor_names_a_policy_that_is_none() -> None:
    planning = '{"planning": {"steps": ["keep_inplace"]}}'
    done = doctor(EPLB_PLUGIN=planning)
    assert "there is no step 'keep_inplace', the nearest is 'keep_in_place'" in done.stdout
    assert done.returncode == 2
    done = doctor("--additional-config", f'{{"eplb_plugin": {planning}}}')
    assert "there is no step 'keep_inplace'" in done.stdout
    policy = {"tests.unit.test_planning_steps:Answer": {"answer": 3}}
    done = doctor(EPLB_PLUGIN=json.dumps({"planning": {"policy": policy}}))
    assert "the policy function answers int, no array of integers" in done.stdout


def test_the_doctor_says_which_policy_it_let_plan() -> None:
    planning = {"policy": "incremental", "steps": ["keep_in_place"]}
    done = doctor("--additional-config", json.dumps({"eplb_plugin": {"planning": planning}}))
    assert "planning: incremental, keep_in_place; it has planned something small" in done.stdout
    assert "planning:" not in doctor().stdout


def test_turned_off_by_the_option_the_log_says_so(
    register: Callable[[], None], ask: Callable[..., str], told: list[str]
) -> None:
    register()
    assert "made VllmConfig" in ask(True, enabled=False, loopback=True)
    (message,) = told
    assert "vllm-eplb-plugin is turned off by its settings in --additional-config" in message


def test_a_patched_vllm_is_refused_with_both_signatures_where_eplb_is_asked_for(
    register: Callable[[], None], ask: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eplb_state, "_commit_eplb_maps", lambda model_state, new_map: None)
    register()
    signatures = (
        "_commit_eplb_maps has the parameters (model_state, new_map), "
        "expected (model_state, new_physical_to_logical_map)"
    )
    assert "made VllmConfig" in ask(False)
    assert signatures in ask(True, loopback=True)  # by the front end
    with pytest.raises(OverrideError) as error:  # by a worker
        EplbState(None, None)
    assert signatures in str(error.value)
    assert "vLLM 0.32.0 does not look as" in str(error.value)
    assert "nothing was overridden" in str(error.value)


@pytest.mark.parametrize("version", ["0.17.1", "0.26.0.post1", "0.26.1rc1.dev77"])
def test_a_build_that_looks_like_no_neighbour_is_refused_only_where_eplb_is_asked_for(
    version: str,
    register: Callable[[], None],
    ask: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(vllm.version, "__version__", version)
    register()
    assert "made VllmConfig" in ask(False)
    refused = ask(True, loopback=True)
    with pytest.raises(UnsupportedReleaseError) as error:
        EplbState(None, None)
    assert "UnsupportedReleaseError" in refused
    for text in (refused, str(error.value)):
        assert f"vLLM {version} is not supported" in text
        assert "--enable-eplb" in text


@pytest.mark.parametrize(
    ("version", "release"),
    [("0.33.0rc2", "0.32.0"), ("0.32.0a0+nv25.11", "0.32.0"), ("0.1.dev20175+gabc", "0.33.0")],
)
def test_a_build_that_looks_like_a_neighbour_is_used_and_called_untested_once(
    version: str,
    release: str,
    register: Callable[[], None],
    ask: Callable[..., str],
    told: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(vllm.version, "__version__", version)
    register()
    assert "made VllmConfig" in ask(False)
    assert told == []
    for _ in range(2):
        assert "made VllmConfig" in ask(True, loopback=True)
    (warning,) = told
    assert f"vLLM {version} is none of the releases" in warning
    assert f"looks as in {release}, so it is used" in warning


def test_the_doctor_is_content_with_this_environment() -> None:
    done = doctor_anew()
    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines()[-1] == "works"
    assert re.search(r"^bound when EPLB starts: (\d+) of \1 fit$", done.stdout, re.MULTILINE)


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


@pytest.mark.parametrize(("loopback", "methods"), [(True, "fork fork"), (False, "spawn spawn")])
def test_processes_are_forks_in_loopback_only(loopback: bool, methods: str) -> None:
    arguments = (
        "model='eval/models/gsm-tiny', enforce_eager=True, "
        f"additional_config={{'eplb_plugin': {{'loopback': {loopback}}}}}"
    )
    done = forked(
        REGISTER + "from vllm.engine.arg_utils import EngineArgs; "
        f"EngineArgs({arguments}).create_engine_config(); "
        "from vllm.v1.engine import coordinator, utils; "
        "print(*(m.get_mp_context().get_start_method() for m in (coordinator, utils)))",
        VLLM_WORKER_MULTIPROC_METHOD="spawn",
        OMP_NUM_THREADS="1",
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
    done = doctor_anew(PYTHONPATH=str(tmp_path))
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
