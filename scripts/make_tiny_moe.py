# SPDX-License-Identifier: Apache-2.0
"""Write a small random-weight DeepSeek-V2 checkpoint whose routing is skewed.

The same options always give the same bytes. An output that is already there is left alone, so
other scripts can call this each time.

    python scripts/make_tiny_moe.py --output build/tiny-moe
"""

import argparse
import hashlib
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from tiny_checkpoint import FILE_NAMES, json_text, write_checkpoint
from tiny_deepseek import OptionError, Options, model_config, random_tensors
from tiny_tokenizer import build_tokenizer

RECORD_NAME = "tiny_moe.json"
CODE_NAMES = ("make_tiny_moe.py", "tiny_checkpoint.py", "tiny_deepseek.py", "tiny_tokenizer.py")


def write_files(options: Options, folder: Path) -> None:
    """Write everything a server needs, and a record of it, into an empty folder."""
    tensors = dict(random_tensors(options))
    write_checkpoint(folder, model_config(options), build_tokenizer(), tensors)
    (folder / RECORD_NAME).write_text(_record(options, folder), encoding="utf-8")


def _digest(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def _record(options: Options, folder: Path) -> str:
    """What tells a complete output: the options, the code that used them, a digest per file."""
    return json_text(
        {
            "options": asdict(options),
            "code": {name: _digest(Path(__file__).with_name(name)) for name in CODE_NAMES},
            "files": {name: _digest(folder / name) for name in FILE_NAMES},
        }
    )


def is_up_to_date(options: Options, output: Path) -> bool:
    """Whether a folder already holds what these options give, unharmed.

    Raises:
        OptionError: It holds something else, which must not be overwritten.
    """
    if not output.exists():
        return False
    record = output / RECORD_NAME
    if not record.is_file():
        raise OptionError(
            f"--output {output} exists and has no {RECORD_NAME}, so this script did not write it: "
            "give another folder, or move that one away"
        )
    foreign = {path.name for path in output.iterdir()} - {RECORD_NAME, *FILE_NAMES}
    if foreign:
        raise OptionError(
            f"--output {output} also holds {', '.join(sorted(foreign))}, which this script did not "
            "write: move that away"
        )
    return record.read_text(encoding="utf-8") == _record(options, output)


def make(options: Options, output: Path) -> bool:
    """Write the checkpoint unless it is there, and say whether it was written.

    An interrupted run leaves no half of it: the files are made beside it, then put in its place.
    """
    if is_up_to_date(options, output):
        return False
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{output.name}-", dir=output.parent) as temporary:
        fresh, old = Path(temporary, "new"), Path(temporary, "old")
        fresh.mkdir()
        write_files(options, fresh)
        if output.exists():
            output.rename(old)
        fresh.rename(output)
    return True


def main(arguments: list[str] | None = None) -> int:
    """Run the command: 0 when the checkpoint is there, 2 for an option that cannot be used."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    for name, default in asdict(Options()).items():
        flag = "--" + name.replace("_", "-")
        parser.add_argument(flag, type=int, default=default, help="default: %(default)s")
    chosen = vars(parser.parse_args(arguments))
    output = chosen.pop("output")
    try:
        written = make(Options(**chosen), output)
    except (OptionError, OSError) as error:
        print(f"make_tiny_moe: {error}", file=sys.stderr)
        return 2
    print(f"{output}: {'written' if written else 'already there'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
