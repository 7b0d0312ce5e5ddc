# SPDX-License-Identifier: Apache-2.0
"""Text on the terminal shows as it is, whatever a log, a name or an answer has."""

import io

import pytest
from rich.spinner import Spinner
from rich.table import Table

from eval.errors import EvaluationError, run_to_its_end
from eval.report.console import PlainConsole, shown

HOSTILE = "[red]x[/red] [/] :tada: \x1b[2J\x9b1m\x07\r\x08\udc80 arm[0]"
VISIBLE = "[red]x[/red] [/] :tada: \\x1b[2J\\x9b1m\\x07\\r\\x08\\udc80 arm[0]"


@pytest.mark.parametrize("terminal", [True, False])
def test_strings_are_neither_markup_nor_obeyed(terminal: bool) -> None:
    file = io.StringIO()
    console = PlainConsole(file=file, width=300, force_terminal=terminal, highlight=False)
    table = Table(HOSTILE)
    table.add_column(HOSTILE)
    table.add_row(HOSTILE, shown(HOSTILE))

    console.print(HOSTILE)
    console.print(table)
    with console.status(HOSTILE) as status:
        status.update(HOSTILE)
        assert isinstance(status.renderable, Spinner)
        assert str(status.renderable.text) == VISIBLE

    assert file.getvalue().count(VISIBLE) >= 5
    file.getvalue().encode()


@pytest.mark.parametrize(
    ("options", "said"),
    [({}, f"{VISIBLE}\n"), ({"force_terminal": True}, ""), ({"quiet": True}, "")],
)
def test_what_goes_on_is_a_line_of_standard_error_where_there_is_no_terminal(
    options: dict[str, bool],
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    file = io.StringIO()
    with PlainConsole(file=file, width=300, **options).status(HOSTILE) as status:
        status.update(f"{HOSTILE}, for 3 s")

    assert capsys.readouterr().err == said
    assert bool(file.getvalue()) == ("force_terminal" in options)


@pytest.mark.parametrize("soft_wrap", [{"soft_wrap": True}, {}])
def test_a_long_line_breaks_between_words_on_a_terminal_alone(soft_wrap: dict[str, bool]) -> None:
    line = "a line with words of seven letters, such as letters, letters"

    def printed(terminal: bool) -> str:
        file = io.StringIO()
        console = PlainConsole(
            file=file, width=25, force_terminal=terminal, highlight=False, soft_wrap=not soft_wrap
        )
        console.print(line, **soft_wrap)
        return file.getvalue()

    assert printed(False) == f"{line}\n"
    lines = printed(True).splitlines()
    assert [word for one in lines for word in one.split()] == line.split()
    assert max(map(len, lines)) <= 25


def test_a_message_that_ends_a_command_is_not_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> None:
        raise EvaluationError(HOSTILE)

    with pytest.raises(SystemExit):
        run_to_its_end(command)
    assert capsys.readouterr().err == f"error: {VISIBLE}\n"
