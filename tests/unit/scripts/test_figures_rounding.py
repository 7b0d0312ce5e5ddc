# SPDX-License-Identifier: Apache-2.0
"""Figures are rounded and written as pages have them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.figures.rounding import decimals, digits, legible, plain, spread, times_less


@pytest.mark.parametrize(
    ("count", "value", "written"),
    [
        (3, 16.66853, "16.7"),
        (3, 101.618704, "102"),
        (3, 0.0756, "0.0756"),
        (2, 9.96, "10"),
        (2, 0.0996, "0.10"),
        (2, 99.6, "100"),
        (3, 1804.2, "1,800"),
        (3, 462.03, "462"),
        (3, 10.119, "10.1"),
        (2, 0, "0"),
        (2, -0.456, "-0.46"),
    ],
)
def test_significant_digits(count: int, value: float, written: str) -> None:
    assert digits(count)(value) == written


@pytest.mark.parametrize(
    ("places", "value", "written"),
    [(0, 1704.391, "1,704"), (1, 12.683, "12.7"), (2, 12.697138, "12.70"), (3, 0.9996, "1.000")],
)
def test_decimals_have_separators_of_thousands(places: int, value: float, written: str) -> None:
    assert decimals(places)(value) == written


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (0.453, "0.45"),
        (0.996, "1.0"),
        (1.119, "1.1"),
        (99.94, "99.9"),
        (99.96, "100"),
        (1809.5, "1,810"),
    ],
)
def test_legible_figures_lose_what_nobody_reads(value: float, written: str) -> None:
    assert legible(value) == written


def test_a_ratio_is_a_whole_number() -> None:
    assert times_less(16668.533, 63.477) == "263"
    assert times_less(142566.117, 194.063) == "735"


def test_figures_that_are_written_alike_are_one() -> None:
    assert spread([17.959, 18.051], decimals(0)) == "18"
    assert spread([20.765, 18.369], decimals(0)) == "18 to 21"


def test_a_plain_number_has_no_separators() -> None:
    assert plain("1,234,567") == "1234567"


@given(st.floats(1e-6, 1e9), st.integers(1, 6))
def test_a_rounded_number_is_within_half_a_digit(value: float, count: int) -> None:
    written = float(plain(digits(count)(value)))
    assert abs(written - value) <= value * 0.5000001 * 10 ** (1 - count)
