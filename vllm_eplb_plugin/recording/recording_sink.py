# SPDX-License-Identifier: Apache-2.0
"""Takes what is told of a server's models, for `observe.delivery`, and has it written."""

import contextlib
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from vllm_eplb_plugin.recording.recording import Ended, InForce, Served, Window
from vllm_eplb_plugin.recording.rotation import Rotation
from vllm_eplb_plugin.recording.writer import RecordingWriter

logger = logging.getLogger("vllm.eplb_plugin")


@dataclass(frozen=True)
class Dropped:
    """What was told and did not arrive."""

    number: int


class RecordingSink:
    """A sink writes one start of a server, in a folder of its own.

    A disk that is full costs windows; they are counted in the next file, and told once in the log.
    """

    def __init__(self, folder: Path, max_bytes: int, global_rank: int) -> None:
        """Make the folder of this start.

        Args:
            folder: Of all starts.
            max_bytes: See `Rotation`.
            global_rank: Of the rank that writes; with pipeline stages there are several.

        Raises:
            OSError: It cannot be made.
        """
        now = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S.%fZ")
        self._folder = folder / f"{now}-rank{global_rank}"
        self._folder.mkdir(parents=True)
        self._rotation = Rotation(folder, max_bytes)
        self._writers: dict[int, RecordingWriter] = {}
        self._warned = False

    def write(self, line: Mapping[str, Any]) -> Iterator[None]:
        """Take ``what`` was told of a model, by its ``model_index``; the first is a `Served`."""
        what = line["what"]
        if isinstance(what, Dropped):
            for writer in self._writers.values():
                writer.lost += what.number
            return
        index = line["model_index"]
        if isinstance(what, Served):
            self._writers[index] = RecordingWriter(self._folder, what, self._rotation)
            return
        writer = self._writers[index]
        if isinstance(what, Window):
            writer.taken(what)
        elif isinstance(what, InForce):
            writer.placed(what)
        elif isinstance(what, Ended):
            writer.ended(what)
        yield from self.idle()

    def idle(self) -> Iterator[None]:
        """Write what is due."""
        for writer in list(self._writers.values()):
            if writer.is_due():
                yield from self._write(writer)

    def close(self) -> None:
        """Write what waits."""
        for writer in self._writers.values():
            for _ in self._write(writer):
                pass
        with contextlib.suppress(OSError):  # there are files in it
            self._folder.rmdir()

    def _write(self, writer: RecordingWriter) -> Iterator[None]:
        try:
            yield from writer.write()
        except OSError as error:
            if not self._warned:
                self._warned = True
                logger.error(
                    "EPLB load windows are lost, and counted in the recording where it can be "
                    "written again: %s. Serving goes on.",
                    error,
                )
