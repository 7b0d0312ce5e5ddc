# SPDX-License-Identifier: Apache-2.0
"""Bytes as people read them."""

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def unit_of(count: float) -> tuple[str, int]:
    """The largest unit that leaves a whole one, and its bytes."""
    power = 0
    while power < len(_UNITS) - 1 and count >= 1024 ** (power + 1):
        power += 1
    return _UNITS[power], 1024**power


def size(count: float) -> str:
    """Bytes in that unit."""
    unit, its_bytes = unit_of(count)
    return f"{count / its_bytes:.0f} B" if its_bytes == 1 else f"{count / its_bytes:.1f} {unit}"
