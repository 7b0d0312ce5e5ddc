# SPDX-License-Identifier: Apache-2.0
"""What vLLM's own log says of rearrangements: the only evidence when the plugin is turned off."""

import re
from pathlib import Path

# Every release from 0.18.0 to 0.33.0 prints this on rank 0 when a rearrangement begins, and also
# when it only reserves memory for one, marked as below. In async mode nothing tells its end.
_BEGINS = re.compile(rb"Rearranging experts (?!.*\(profile\)).*\.\.\.")


def count_rearrangements(log: Path, start: int = 0) -> int:
    """Rearrangements that began, in what was written after the first ``start`` bytes."""
    with log.open("rb") as file:
        file.seek(start)
        return len(_BEGINS.findall(file.read()))
