# SPDX-License-Identifier: Apache-2.0
"""A checkout's scripts on a machine with made-up Pythons and a made-up uv, and no network."""

import shutil
import subprocess
from pathlib import Path

REPOSITORY = Path(__file__).parents[3]
TOOLS = (
    *("bash", "cat", "cut", "dirname", "du", "env", "grep", "head", "mkdir", "mktemp", "mv", "rm"),
    *("chmod", "find", "sed", "sha256sum", "true"),
)

PYTHON = """#!/usr/bin/env bash
case $1 in
    -) cat >/dev/null; echo "VERSION $0" ;;
    --version) echo "Python VERSION" ;;
    -c) echo cpython-VERSION; [[ $2 != *libnuma* || -z $NO_LIBNUMA ]]; exit ;;
    -m) [[ -n $WITH_PIP ]] || exit 1; [[ $3 == install ]] && echo "pip $*" >> "$NOTES"
        [[ $3 != config ]] || echo "$PIP_CONFIGURATION" ;;
esac
exit 0
"""
SHIM = """#!/usr/bin/env bash
echo "pyenv: ${0##*/}: command not found" >&2
exit 127
"""
UV = """#!/usr/bin/env bash
echo "$@" >> "$NOTES"
echo "$UV_CACHE_DIR" > "$NOTES.cache"
case "$*" in
    venv*)
        mkdir -p "${@: -1}/bin"
        printf '#!/usr/bin/env bash\\nexec "%s" "$@"\\n' "${@: -2:1}" > "${@: -1}/bin/python"
        chmod +x "${@: -1}/bin/python" ;;
    *--dry-run*--offline*) [[ -n $CPU_BUILD_INSTALLED ]] ;;
    *--dry-run*--no-index*) [[ $* == *"$CPU_BUILD_IN_FOLDER" && -n $CPU_BUILD_IN_FOLDER ]] ;;
    *--dry-run*--torch-backend*) [[ -n $PYTORCH_REACHED ]] ;;
    "python install"*) [[ -n $PYTHON_OF_UV ]] || { echo "error: no network"; exit 1; } >&2 ;;
    "python find"*) echo "$PYTHON_OF_UV" ;;
    *--target*) [[ -z $FETCHED_MEANWHILE ]] || mkdir -p "$FETCHED_MEANWHILE/whole" ;;
    *--override*)
        while (($#)); do [[ $1 != --override ]] || cat "$2" >> "$NOTES"; shift; done ;;
esac
"""


def write_executable(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    file.chmod(0o755)
    return file


class Checkout:
    """Only what ``python`` and ``write_executable`` put into ``bin`` is on PATH, and TOOLS."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "checkout"
        self.bin = folder / "bin"
        self.notes = folder / "notes"
        self.notes.touch()
        shutil.copytree(REPOSITORY / "scripts", self.folder / "scripts")
        shutil.copy(REPOSITORY / "pyproject.toml", self.folder)
        self.uv = write_executable(self.folder / "build" / "tools" / "bin" / "uv", UV)
        self.bin.mkdir()
        for tool in TOOLS:
            (self.bin / tool).symlink_to(str(shutil.which(tool)))

    def python(self, name: str, version: str) -> Path:
        """Put a Python of that version on PATH."""
        return write_executable(self.bin / name, PYTHON.replace("VERSION", version))

    def run(self, *command: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        """Run a script of the checkout with nothing in its environment but this."""
        return subprocess.run(
            [self.folder / "scripts" / command[0], *command[1:]],
            env={"PATH": str(self.bin), "NOTES": str(self.notes), **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def set_up(self, *arguments: str, **environment: str) -> str:
        """Run ``scripts/setup``, which has to work; what it printed."""
        done = self.run("setup", *arguments, **environment)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    def cache_of_uv(self) -> str:
        """What uv was told about its cache, in its last call."""
        return Path(f"{self.notes}.cache").read_text().strip()

    def called(self) -> list[str]:
        """What uv and pip were called with, and the overrides that uv read."""
        return self.notes.read_text().splitlines()
