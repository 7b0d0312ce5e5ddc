# SPDX-License-Identifier: Apache-2.0
"""What a reader types who follows a page: its blocks in a real bash, where programs only note it.

bash reads quotes, variables, loops and pipes as a reader's does. A script that hands its options
on runs as it is, so that what it calls is noted, too; every other program is a stand-in.
"""

import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.builders.pages import REPOSITORY, Block

_PROGRAMS = (
    *("python", "python3", "vllm", "vllm-eplb", "pip", "curl", "grep", "tr", "git"),
    "compute-sanitizer",
)
_TOOLS = ("bash", "dirname", "mkdir")
"""What scripts need themselves."""

HANDED_ON = {
    *("eval-cpu", "eval-controls", "eval-gpus", "eval-one-gpu", "faults", "bench-itl", "test"),
}
"""Scripts that call Python with the options that they are given."""

_RECORD = """\
record() {
    local name values=()
    for name in $(compgen -e); do
        [[ $KNOWN == *" $name "* ]] || values+=("$name=${!name}")
    done
    printf '%s\\0' "$BLOCK" "${INSIDE:-}" "$#" "$@" "${#values[@]}" "${values[@]}" >> "$NOTES"
}
"""
_STAND_IN = """\
#!/bin/bash
source "$STAGE/record.sh"
record "${0#"$STAGE/bin/"}" "$@"
"""
_HANDS_ON = f"""\
{_STAND_IN}
export INSIDE=yes
exec /bin/bash "$STAGE/played/${{0##*/}}" "$@"
"""
_FIRST = """\
set -u
TIMEFORMAT=
source "$STAGE/record.sh"
command_not_found_handle() { record "$@"; }
source() { record source "$@"; }
.() { record source "$@"; }
bash() { record bash "$@"; }
cd() { record cd "$@"; }
"""
_KNOWN = " PATH HOME STAGE NOTES KNOWN BLOCK INSIDE PWD OLDPWD SHLVL _ "


class Typed(NamedTuple):
    """One command."""

    block: Block
    words: tuple[str, ...]
    """Without the dots that stand for what is left out."""
    environment: dict[str, str]
    """What was set before it."""
    by_a_script: bool
    """A script of the repository called it."""

    @property
    def line(self) -> str:
        """For a message."""
        return " ".join(self.words)


class ShellError(ValueError):
    """bash does not get to the end of a page's blocks."""


def typed(blocks: Sequence[Block], folder: Path) -> list[Typed]:
    """What is typed by who follows the blocks of one page, one after another in one shell.

    Args:
        blocks: Of bash.
        folder: Empty; for the stand-ins.

    Raises:
        ShellError: bash complains, as of a variable that is not set, or a script that is not there.
    """
    _lay_out(folder)
    lines = [_FIRST]
    for number, block in enumerate(blocks):
        (folder / f"block-{number}").write_text(_text_of(block, folder), encoding="utf-8")
        lines.append(f'export BLOCK={number}; builtin source "$STAGE/block-{number}"\n')
    (folder / "page").write_text("".join(lines), encoding="utf-8")
    notes = folder / "notes"
    notes.touch()
    environment = {
        "PATH": f"{folder}/bin",
        "HOME": f"{folder}/home",
        "STAGE": str(folder),
        "NOTES": str(notes),
        "KNOWN": _KNOWN,
    }
    done = subprocess.run(
        ["/bin/bash", str(folder / "page")],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    if done.returncode or done.stderr:
        said = re.sub(r"\S*block-(\d+)", lambda found: blocks[int(found[1])].where, done.stderr)
        raise ShellError(f"bash, exit code {done.returncode}: {said.strip()}")
    return list(_read(notes.read_text(encoding="utf-8"), blocks))


def _text_of(block: Block, folder: Path) -> str:
    """Text that bash can read: options alone are those of a server, and PID is a process."""
    text = block.text
    if text.lstrip().startswith("--"):
        text = f"vllm serve MODEL {text.lstrip()}"
    for target in re.findall(r">\s*([\w./-]+)/[\w.$-]+", text):
        (folder / target).mkdir(parents=True, exist_ok=True)
    return text.replace("/proc/PID/", "/proc/self/")


def _lay_out(folder: Path) -> None:
    for name in ("bin", "home", "scripts", "played"):
        (folder / name).mkdir()
    (folder / "record.sh").write_text(_RECORD, encoding="utf-8")
    for tool in _TOOLS:
        (folder / "bin" / tool).symlink_to(str(shutil.which(tool)))
    for program in _PROGRAMS:
        _write(folder / "bin" / program, _STAND_IN)
    for environment in (".venv", *(f".venv-{release}" for release in _other_releases())):
        for program in ("python", "vllm", "vllm-eplb"):
            _write(folder / environment / "bin" / program, _STAND_IN)
    for script in (REPOSITORY / "scripts").iterdir():
        if script.name in HANDED_ON:
            shutil.copy(script, folder / "played" / script.name)
        if script.is_file() and not script.suffix:
            text = _HANDS_ON if script.name in HANDED_ON else _STAND_IN
            _write(folder / "scripts" / script.name, text)
    shutil.copy(REPOSITORY / "scripts" / "common.sh", folder / "played")


def _other_releases() -> list[str]:
    locks = (REPOSITORY / "scripts" / "locks").glob("cpu-[0-9]*.txt")
    return [lock.stem.removeprefix("cpu-") for lock in locks]


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    file.chmod(0o755)


def _read(notes: str, blocks: Sequence[Block]) -> Iterator[Typed]:
    fields = iter(notes.split("\0")[:-1])
    for number in fields:
        inside = next(fields)
        words = [next(fields) for _ in range(int(next(fields)))]
        values = [next(fields) for _ in range(int(next(fields)))]
        yield Typed(
            blocks[int(number)],
            tuple(word for word in words if word != "..."),
            dict(value.split("=", 1) for value in values),
            bool(inside),
        )
