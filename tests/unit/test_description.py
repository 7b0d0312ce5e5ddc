# SPDX-License-Identifier: Apache-2.0
"""What the installed package says of itself, as an index shows it."""

import importlib.metadata
import re

METADATA = importlib.metadata.metadata("vllm-eplb-plugin")
ELSEWHERE = r"(?!https?://|mailto:)"


def test_no_link_of_the_description_needs_the_repository() -> None:
    description = METADATA.get_payload()  # type: ignore[attr-defined]
    assert description.startswith("# vllm-eplb-plugin\n")
    relative = (
        rf"\]\({ELSEWHERE}[^)]*\)|\b(?:src|srcset|href)=\"{ELSEWHERE}|^\[[^]]+\]: {ELSEWHERE}"
    )
    assert re.findall(relative, description, re.MULTILINE) == []


def test_no_address_is_given_that_there_is_none_of() -> None:
    assert METADATA.get_all("Project-URL") is None
    assert METADATA["Author-email"] is None
