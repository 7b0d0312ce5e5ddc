# SPDX-License-Identifier: Apache-2.0
"""Seeded edits of a kept run's files, as somebody might make them by hand or by mistake."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from eval.results.digests import file_digest, values_digest

_Edit = Callable[[random.Random, Path], str]


def edit_run(run: Path, seed: int) -> str:
    """Change one thing that a verdict comes from.

    Returns:
        What was changed, for people.
    """
    generator = random.Random(seed)
    for _ in range(100):
        before = _contents(run)
        done = generator.choice(_EDITS)(generator, run)
        if _contents(run) != before:
            return done
    raise AssertionError(f"seed {seed} changes nothing")


def renew_digests(run: Path) -> None:
    """Make every digest fit again, as somebody would who knows of them."""
    result = _table(run / "result.json")
    for file in sorted(run.glob("arms/*/arm.json")):
        arm = _table(file)
        if isinstance(arm.get("files"), dict):
            arm["files"] = _digests(file.parent, arm["files"])
            _write(file, arm)
            for kept in result.get("arms") or []:
                if isinstance(kept, dict) and kept.get("name") == arm.get("name"):
                    kept["files"] = arm["files"]
    if isinstance(result.get("files"), dict):
        result["files"] = _digests(run, result["files"])
        result["sha256"] = values_digest(result)
        _write(run / "result.json", result)


def _table(file: Path) -> dict[str, Any]:
    values = _read(file) if file.is_file() else {}
    return values if isinstance(values, dict) else {}


def _digests(folder: Path, names: dict[str, Any]) -> dict[str, Any]:
    files = {name: folder / name for name in names}
    return {name: file_digest(file).model_dump() for name, file in files.items() if file.is_file()}


def _drop_line(generator: random.Random, run: Path) -> str:
    file, lines = _lines(generator, run)
    del lines[generator.randrange(len(lines))]
    return _rewrite(file, lines, "a line dropped")


def _repeat_line(generator: random.Random, run: Path) -> str:
    file, lines = _lines(generator, run)
    lines.insert(generator.randrange(len(lines) + 1), generator.choice(lines))
    return _rewrite(file, lines, "a line repeated")


def _swap_lines(generator: random.Random, run: Path) -> str:
    file, lines = _lines(generator, run)
    one, other = generator.randrange(len(lines)), generator.randrange(len(lines))
    lines[one], lines[other] = lines[other], lines[one]
    return _rewrite(file, lines, "two lines swapped")


def _alter_line(generator: random.Random, run: Path) -> str:
    """A value of a line, be it a time, a count, an answer or a name."""
    file, lines = _lines(generator, run)
    index = generator.randrange(len(lines))
    try:
        values = json.loads(lines[index])
    except ValueError:
        return _alter_bytes(generator, run)
    what = _alter_leaf(generator, values)
    lines[index] = json.dumps(values) + "\n"
    return _rewrite(file, lines, f"line {index + 1}: {what}")


def _alter_bytes(generator: random.Random, run: Path) -> str:
    file = generator.choice(_files(run))
    content = bytearray(file.read_bytes())
    if content:
        content[generator.randrange(len(content))] = generator.randrange(32, 127)
    file.write_bytes(bytes(content))
    return f"{file}: a byte"


def _cut(generator: random.Random, run: Path) -> str:
    file = generator.choice(_files(run))
    content = file.read_bytes()
    file.write_bytes(content[: generator.randrange(len(content) + 1)])
    return f"{file}: cut off"


def _remove(generator: random.Random, run: Path) -> str:
    file = generator.choice(_files(run))
    file.unlink()
    return f"{file}: removed"


def _copy_from_other_arm(generator: random.Random, run: Path) -> str:
    """A file of one arm over that of the same name of another."""
    file = generator.choice([one for one in _files(run) if "arms" in one.parts])
    arms = run / "arms"
    inside = file.relative_to(arms).parts
    others = [arm for arm in sorted(arms.iterdir()) if arm.joinpath(*inside[1:]).is_file()]
    shutil.copyfile(generator.choice(others).joinpath(*inside[1:]), run / "copy")
    (run / "copy").replace(file)
    return f"{file}: from another arm"


def _copy_rank(generator: random.Random, run: Path) -> str:
    """The events of one rank as those of another, which may be new."""
    events = generator.choice(sorted(run.glob("arms/*/events")))
    file = events / f"rank{generator.choice((0, 1, 2))}.jsonl"
    text = generator.choice(sorted(events.iterdir())).read_bytes()
    file.write_bytes(text)
    return f"{file}: events of another rank"


def _copy_arm(generator: random.Random, run: Path) -> str:
    one, other = generator.sample(sorted((run / "arms").iterdir()), 2)
    shutil.rmtree(one)
    shutil.copytree(other, one)
    if generator.random() < 0.5:  # and give it the name of the place
        values = _read(one / "arm.json")
        _write(one / "arm.json", {**values, "name": one.name})
    return f"{one}: that of {other.name}"


def _swap_arms(generator: random.Random, run: Path) -> str:
    one, other = generator.sample(sorted((run / "arms").iterdir()), 2)
    one.rename(run / "aside")
    other.rename(one)
    (run / "aside").rename(other)
    return f"{one} and {other} swapped"


def _alter_json(generator: random.Random, run: Path) -> str:
    file = generator.choice([one for one in _files(run) if one.suffix == ".json"])
    values = _read(file)
    what = _alter_leaf(generator, values)
    _write(file, values)
    return f"{file}: {what}"


_EDITS: tuple[_Edit, ...] = (
    _drop_line, _repeat_line, _swap_lines, _alter_line, _alter_line, _alter_line, _alter_bytes,
    _cut, _remove, _copy_from_other_arm, _copy_rank, _copy_arm, _swap_arms, _alter_json,
    _alter_json, _alter_json,
)  # fmt: skip


def _alter_leaf(generator: random.Random, values: Any) -> str:
    """Go down at random, and change what is there."""
    path = []
    while True:
        keys = list(values) if isinstance(values, dict) else list(range(len(values)))
        key = generator.choice(keys)
        path.append(str(key))
        below = values[key]
        if not isinstance(below, dict | list) or not below or generator.random() < 0.1:
            break
        values = below
    if generator.random() < 0.15:
        del values[key]
        return f"{'.'.join(path)} deleted"
    values[key] = _other(generator, below)
    return f"{'.'.join(path)}: {below!r} to {values[key]!r}"


def _other(generator: random.Random, value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        changed = (0, 1, -value, value + 1, value - 1, value * 2, value + 500, float("nan"))
        return generator.choice(changed)
    if isinstance(value, str):
        return generator.choice(("", " ", value + "0", value[:-1], value.replace("1", "2"), "off"))
    return generator.choice(([], {}, None, 0, [7]))


def _files(run: Path) -> list[Path]:
    return sorted(one for one in run.rglob("*") if one.is_file())


def _contents(run: Path) -> dict[str, Any]:
    """JSON files by what they say: written otherwise, they are the same."""
    return {
        str(file): _read(file) if file.suffix == ".json" else file.read_bytes()
        for file in _files(run)
    }


def _lines(generator: random.Random, run: Path) -> tuple[Path, list[str]]:
    files = [one for one in _files(run) if one.suffix in (".jsonl", ".log") and one.stat().st_size]
    file = generator.choice(files)
    return file, file.read_text(encoding="utf-8").splitlines(keepends=True)


def _rewrite(file: Path, lines: list[str], what: str) -> str:
    file.write_text("".join(lines), encoding="utf-8")
    return f"{file}: {what}"


def _read(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        return file.read_bytes()


def _write(file: Path, values: Any) -> None:
    file.write_text(json.dumps(values, indent=2), encoding="utf-8")
