# SPDX-License-Identifier: Apache-2.0
"""How figures are written: every rounding that a page has is one of these.

Thousands are separated by commas; `plain` takes them out for tables that have none.
"""

from collections.abc import Callable, Iterable
from math import floor, log10

Form = Callable[[float], str]
"""How a number is written."""


def decimals(places: int) -> Form:
    """The form with so many figures behind the point, rounded as the commands' own tables are."""
    return lambda value: f"{value:,.{places}f}"


def digits(count: int) -> Form:
    """The form with so many significant figures, and all those before the point."""

    def written(value: float) -> str:
        if not value:
            return "0"
        places = count - 1 - floor(log10(abs(value)))
        rounded = round(value, places)
        # 9.96 has two figures before the point once it is rounded to two of them.
        return decimals(max(count - 1 - floor(log10(abs(rounded))), 0))(rounded)

    return written


whole = decimals(0)
tenths = decimals(1)
hundredths = decimals(2)
thousandths = decimals(3)


def legible(value: float) -> str:
    """Two figures behind the point below one, one below a hundred, none from there on."""
    if round(value, 2) < 1:
        return hundredths(value)
    return tenths(value) if round(value, 1) < 100 else whole(value)


def plain(text: str) -> str:
    """The same number without separators."""
    return text.replace(",", "")


def times_less(before: float, after: float) -> str:
    """How many times less, as a whole number."""
    return whole(before / after)


def spread(values: Iterable[float], form: Form) -> str:
    """The least and the most, as ``3 to 5``; one figure where both are written alike."""
    every = list(values)
    least, most = form(min(every)), form(max(every))
    return least if least == most else f"{least} to {most}"


def mib_as_gib(mib: float) -> float:
    """Binary megabytes in binary gigabytes."""
    return mib / 1024
