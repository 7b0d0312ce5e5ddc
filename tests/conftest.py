# SPDX-License-Identifier: Apache-2.0
"""What all tests share: signals and environment, groups, and a summary of what did not run."""

import os
import re
import signal
import tempfile
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings

LONGER = (
    "Only longer runs show accuracy, broken EPLB that is noticed, what minutes under load do, and\n"
    "each test of vLLM's releases on every one: scripts/eval-cpu, scripts/eval-controls,\n"
    "python -m eval stress (docs/stress.md), and scripts/test --every-release"
)

# Terminals and their colours, as rich and typer read them; the plugin's switch; a user's caches.
_ENVIRONMENT = (
    *("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"),
    *("EPLB_PLUGIN", "HF_DATASETS_CACHE", "HF_HUB_CACHE"),
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let tests of vLLM's releases run on all of them."""
    parser.addoption(
        "--every-release",
        action="store_true",
        help="run every test of tests/releases on every release, not on one of each kind",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Name the mark of tests that run on every release always; no example has a time limit."""
    config.addinivalue_line("markers", "every_release: also without --every-release")
    settings.register_profile("any_machine", deadline=None)
    settings.load_profile("any_machine")


def pytest_sessionstart(session: pytest.Session) -> None:
    """Nothing depends on the user's terminal, settings or home, which may not be there."""
    for name in _ENVIRONMENT:
        os.environ.pop(name, None)
    # `datasets` reads it when it is imported.
    cache = tempfile.TemporaryDirectory(prefix="huggingface-")
    session.config.add_cleanup(cache.cleanup)
    os.environ["HF_HOME"] = cache.name
    # A socket's path is limited to 107 bytes, and TMPDIR may be longer.
    os.environ.setdefault("VLLM_RPC_BASE_PATH", "/tmp")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With several processes, what shares something slow to start runs in one of them."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return _group(nodeid)

    return Scheduling(config, log)


def _group(test: str) -> str:
    """Of one file, of the ranks of one release, or of real servers: one at a time."""
    file, _, name = test.partition("::")
    if file.startswith("tests/e2e/"):
        return "tests/e2e"
    release = re.search(r"\[0\.\d+\.\d+(?=[-\]])", name)
    return release.group() if release else file


@pytest.fixture
def default_signals() -> Iterator[None]:
    """Signals act as in a terminal, here and in what is started.

    Who started the tests may ignore or block them, as nohup and a script's background jobs do, and
    that is inherited.
    """
    interrupting = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGTERM: signal.SIG_DFL,
        signal.SIGHUP: signal.SIG_DFL,
        signal.SIGQUIT: signal.SIG_DFL,
    }
    before = {one: signal.signal(one, handler) for one, handler in interrupting.items()}
    mask = signal.pthread_sigmask(signal.SIG_UNBLOCK, interrupting)
    yield
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    for one, handler in before.items():
        signal.signal(one, handler)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """One line for each reason for which tests did not run, with their number."""
    reasons = Counter(map(_reason, terminalreporter.stats.get("skipped", [])))
    if reasons:
        terminalreporter.section(f"{reasons.total()} tests did not run")
    for reason, number in reasons.most_common():
        terminalreporter.line(f"{number}: {reason}")
    if config.args_source == pytest.Config.ArgsSource.TESTPATHS:
        terminalreporter.line(LONGER)


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    assert isinstance(report.longrepr, tuple)
    return report.longrepr[2].removeprefix("Skipped: ").splitlines()[0]
