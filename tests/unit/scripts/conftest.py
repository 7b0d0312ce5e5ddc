# SPDX-License-Identifier: Apache-2.0
"""The checkout of a test."""

from pathlib import Path

import pytest

from tests.unit.scripts.checkout import Checkout


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)
