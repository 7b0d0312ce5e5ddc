# SPDX-License-Identifier: Apache-2.0
"""Every command that is documented is one, and is run by a test or marked as needing GPUs."""

import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.builders.command_parsing import canonical, check_command, check_names
from tests.builders.pages import (
    GPUS,
    REPOSITORY,
    Block,
    blocks_of,
    code_in_lines,
    pages,
    pages_with_commands,
    shell_blocks,
    text_above,
)
from tests.builders.reader import lay_out
from tests.builders.run_by import RUN_BY, is_there, run_by
from tests.builders.typed import HANDED_ON, ShellError, Typed, typed
from tests.builders.vllm_options import installed_vllm
from vllm_eplb_plugin.settings import load_settings, parse_json

_LANGUAGES = ("bash", "json", "python", "toml", "yaml", "")
_SHELLS = ("console", "sh", "shell", "zsh")
_CALLED = (
    *("vllm-eplb ", "python -m eval ", "python -m scripts.", "python scripts/", "scripts/"),
    *(".venv", "pip install "),
)

_FILE = re.compile(
    r"(?<![\w/.-])(?:ci|docs|eval|scripts|tests|vllm_eplb_plugin|bench|cli|engine|faults|front_end"
    r"|loopback|observe|overrides|placement|planning|recording|simulation|transfer)"
    r"/[\w./-]*\.(?:json|jsonl|md|py|sh|yaml)\b"
)
PACKAGE = REPOSITORY / "vllm_eplb_plugin"

CommandsOf = Callable[[str], list[Typed]]


def wrong(commands: Sequence[Typed]) -> Iterator[str]:
    """What cannot be called as it stands there."""
    for one in commands:
        try:
            check_command(canonical(one.words), one.environment)
        except ValueError as error:
            yield f"{one.block.where}: {one.line}: {error}"


def uncovered(commands: Sequence[Typed]) -> Iterator[str]:
    """What no test runs, though it needs no GPUs."""
    for one in commands:
        words = canonical(one.words)
        hands_on = words[0].removeprefix("scripts/") in HANDED_ON
        if not (one.block.needs_gpus or hands_on or run_by(words)):
            yield (
                f"{one.block.where}: {one.line}: no test runs it. Name the one that does in "
                "tests/builders/run_by.py, write one, or, if it needs GPUs, mark its block: "
                f"```bash {GPUS}"
            )


@pytest.mark.parametrize("page", pages_with_commands())
def test_every_command_of_a_page_is_one_with_options_and_values_that_there_are(
    page: str, here: Path, commands_of: CommandsOf
) -> None:
    lay_out(page, here)
    assert list(wrong(commands_of(page))) == []


@pytest.mark.parametrize("page", pages_with_commands())
def test_every_command_is_run_by_a_test_or_is_marked_as_needing_gpus(
    page: str, commands_of: CommandsOf
) -> None:
    assert list(uncovered(commands_of(page))) == []


@pytest.mark.parametrize("page", pages())
def test_every_fence_has_a_language_that_is_looked_at_and_marks_that_are_known(page: str) -> None:
    for block in blocks_of(page):
        if block.language.startswith("{"):  # a directive of MyST
            continue
        assert block.language not in _SHELLS, f"{block.where}: write bash"
        assert block.language in _LANGUAGES, f"{block.where}: add {block.language} to _LANGUAGES"
        known = (GPUS,) if block.language == "bash" else ()
        assert set(block.marks) <= set(known), f"{block.where}: {block.marks} mean nothing"


@pytest.mark.parametrize("page", pages())
def test_where_a_block_needs_gpus_its_section_says_so_in_words(page: str) -> None:
    for block in blocks_of(page):
        if block.needs_gpus:
            told = text_above(block) + block.text
            assert re.search(r"GPU|H[12]00", told), f"{block.where}: say that it needs GPUs"


@pytest.mark.parametrize("page", pages())
def test_commands_in_a_line_of_text_have_the_names_that_there_are(page: str, here: Path) -> None:
    lay_out(page, here)
    before = ""
    for number, code in code_in_lines(page):
        goes_on = code.startswith("... --")
        if not goes_on and not (code.startswith(_CALLED) and " " in code):
            continue
        try:
            if goes_on:
                check_command(canonical(shlex.split(before + code.removeprefix("..."))), {})
            else:
                before = code
                check_names(canonical(shlex.split(code)))
        except ValueError as error:
            pytest.fail(f"{page}:{number}: {code}: {error}")


@pytest.mark.parametrize("page", pages())
def test_files_that_a_line_of_text_names_are_there(page: str) -> None:
    for number, code in code_in_lines(page):
        for name in _FILE.findall(code):
            there = any((place / name).exists() for place in (REPOSITORY, PACKAGE))
            assert there or re.search("[A-Z]{3}", name), f"{page}:{number}: there is no {name}"


@pytest.mark.parametrize("page", pages())
def test_settings_in_a_line_of_text_are_settings(page: str) -> None:
    for number, code in code_in_lines(page):
        where = f"{page}:{number}"
        for text in re.findall(r"--additional-config '(\{.*\})'", code):
            load_settings(parse_json(text, where))
        for text in re.findall(r"EPLB_PLUGIN='(\{.*\})'", code):
            load_settings({"eplb_plugin": parse_json(text, where)})


@pytest.mark.parametrize("by", sorted(set(RUN_BY.values())))
def test_what_runs_documented_commands_is_there(by: str) -> None:
    assert is_there(by)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("vllm-eplb explains", "there is no command explains"),
        ("vllm-eplb simulate loads --links 50e9", "--links"),
        ("vllm-eplb explain --release 0.17.0", "0.17.0 is none of"),
        ("vllm-eplb bench plan --shape Qwen4", "Qwen4"),
        ("python -m eval run cpus", "the nearest is 'cpu'"),
        ("python -m eval run cpu --set arms.asink.eplb.step_interval=2", "no item 'asink'"),
        ("python -m eval run cpu --set arms.async.eplb.step_intervals=2", "step_interval"),
        ("python -m eval run cpu --set serve.options.swapspace=1", "has no option --swapspace"),
        ("python -m eval run cpu --set plugin.check_weight=true", "check_weights"),
        ("python -m eval run cpu --control weights_moved", "weights_not_moved"),
        ("python -m eval run cpu --gate ci/gates/none.yaml", "none.yaml"),
        ("python -m eval stress cpu --arm none", "has no such arm"),
        ("python -m eval latency --redundant 3 --ranks 2", "redundant"),
        ("python -m eval throughput --skew 0 --most-los 2", "--most-los"),
        ("python -m eval gate runs/cpu --gate ci/gates/none.yaml", "none.yaml"),
        ("scripts/eval-cpu --quik", "--quik"),
        ("scripts/faults --only disk", "disk"),
        ("vllm serve M --enable-eplbs", "the nearest is --enable-eplb"),
        ("""vllm serve M --eplb-config '{"windows": 1}'""", "the nearest is window_size"),
        ("vllm serve M --all2all-backend nccl", "it takes allgather_reducescatter"),
        ("""vllm serve M --additional-config '{"eplb_plugin": {"recordings": {}}}'""", "recording"),
        ("EPLB_PLUGIN='{\"enable\": false}' vllm serve M", "enabled"),
        ("python scripts/write_prompts.py poems", "invalid choice"),
        ("python scripts/ask_in_turns.py http://x --kinds prose poem", "invalid choice"),
        ("python -m scripts.gsm_tiny_problem --count 1", "there is no"),
        ("python -m pytest tests/unit/test_none.py", "there is no"),
        ("python -c 'import'", "invalid syntax"),
        ("pip install '.[vllms]'", "no extra vllms"),
        ("helm install it", "there is no program helm"),
    ],
)
def test_a_command_that_is_wrong_is_told_of(text: str, said: str, here: Path, shell: Path) -> None:
    if "vllm serve" in text or "serve.options" in text:
        require_vllm()
    lay_out("README.md", here)
    told = list(wrong(typed([Block("page.md", 7, "bash", (), text)], shell)))
    assert len(told) == 1
    assert told[0].startswith("page.md:7: ") and said in told[0]


def require_vllm() -> None:
    if installed_vllm() is None:
        pytest.skip("no vLLM is installed, whose options could be looked up")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("vllm-eplb explain $NONE", "page.md:7: line 1: NONE: unbound variable"),
        ("scripts/none", "scripts/none: No such file"),
        ("vllm-eplb explain 'x", "page.md:7: "),
    ],
)
def test_what_bash_complains_of_is_told_with_its_place(text: str, said: str, shell: Path) -> None:
    with pytest.raises(ShellError, match=re.escape(said)):
        typed([Block("page.md", 7, "bash", (), text)], shell)


def test_a_command_that_no_test_runs_is_told_of_unless_it_is_marked(shell: Path) -> None:
    block = Block("page.md", 7, "bash", (), "vllm-eplb bench telling")
    [command] = typed([block], shell)
    [told] = uncovered([command])
    assert "mark its block: ```bash gpus" in told
    assert list(uncovered([command._replace(block=block._replace(marks=(GPUS,)))])) == []


def test_blocks_sessions_variables_and_scripts_are_read_as_a_shell_does(shell: Path) -> None:
    page = (
        "```bash gpus\nP='--a b'\n```\n\n"
        "```bash\nX=1 vllm-eplb $P 'c d' \\\n    e ...  # f\nscripts/bench-itl --tokens 9\n```\n\n"
        "```\n$ vllm serve M\nanswer\n```\n\n"
        "```bash\n. .venv/bin/activate\n```\n"
    )
    blocks = shell_blocks(blocks_of("page.md", page))
    places = [(one.line, one.needs_gpus) for one in blocks]
    assert places == [(1, True), (5, False), (11, False), (16, False)]
    found = [one for one in typed(blocks, shell) if one.words[0] != "scripts/setup"]
    assert [(canonical(one.words), one.by_a_script) for one in found[:4]] == [
        (["vllm-eplb", "--a", "b", "c d", "e"], False),
        (["scripts/bench-itl", "--tokens", "9"], False),
        (["python", "-m", "eval", "latency", "--tokens", "9"], True),
        (["vllm", "serve", "M"], False),
    ]
    assert found[0].environment == {"X": "1"}
    assert found[4].words == ("source", ".venv/bin/activate")


def test_options_alone_are_those_of_a_server(shell: Path) -> None:
    block = Block("page.md", 7, "bash", (), "    --enable-eplb \\\n    --host x\n")
    [command] = typed([block], shell)
    assert command.words == ("vllm", "serve", "MODEL", "--enable-eplb", "--host", "x")
