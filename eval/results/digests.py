# SPDX-License-Identifier: Apache-2.0
"""Digests that tie the files of a run together: they show an edit, and are no signature."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from eval.activity.scrapes import FILE as METRICS_FILE
from eval.errors import RunFolderError

_BLOCK = 1 << 20


class FileDigest(BaseModel):
    """The first bytes of a file, which may have grown since."""

    bytes: int
    sha256: str


def file_digest(file: Path, size: int | None = None) -> FileDigest:
    """Of a whole file, or of its first ``size`` bytes.

    Raises:
        OSError: It cannot be read.
    """
    digest, read = hashlib.sha256(), 0
    with file.open("rb") as opened:
        while block := opened.read(_BLOCK if size is None else min(_BLOCK, size - read)):
            digest.update(block)
            read += len(block)
    return FileDigest(bytes=read, sha256=digest.hexdigest())


def file_digests(folder: Path, files: Iterable[Path]) -> dict[str, FileDigest]:
    """Of files in ``folder``, by their paths in it."""
    return {str(file.relative_to(folder)): file_digest(file) for file in sorted(files)}


def require_digests(folder: Path, kept: Mapping[str, FileDigest], growing: bool = False) -> None:
    """Read every file again.

    Args:
        folder: Of the files.
        kept: By their paths in it.
        growing: What was appended since does not count.

    Raises:
        RunFolderError: A file is not what it was; names it.
    """
    for name, digest in kept.items():
        file = folder / name
        try:
            found = file_digest(file, digest.bytes if growing else None)
        except OSError as error:
            raise RunFolderError(f"cannot read {file}: {error.strerror}") from error
        if found != digest:
            raise RunFolderError(f"{file} is not what it was when it was kept: its digest differs")


def values_digest(values: Mapping[str, Any]) -> str:
    """Of the values of a JSON file but ``sha256``, however they are written."""
    rest = {name: value for name, value in values.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def arm_files(arm: Path) -> list[Path]:
    """Of an arm's folder, what a verdict comes from besides ``arm.json``; what is there."""
    names = ("samples.jsonl", "server.log", METRICS_FILE)
    files = [*(arm / name for name in names), *(arm / "events").glob("rank*.jsonl")]
    return [file for file in files if file.is_file()]


def run_files(run: Path, arms: Iterable[str]) -> list[Path]:
    """Of a run's folder, what a verdict comes from besides ``result.json``; what is there."""
    oracle = run / "oracle"
    files = [
        run / "run.json",
        run / "oracle.json",
        oracle / "request.json",
        oracle / "answers.json",
    ]
    for name in arms:
        arm = run / "arms" / name
        files += [arm / "arm.json", *arm_files(arm)]
    return [file for file in files if file.is_file()]
