# SPDX-License-Identifier: Apache-2.0
"""Text from elsewhere, such as logs, names and answers, made fit to be shown anywhere."""

import re

_UNSEEN = re.compile(
    # Controls, but for tab and newline: a terminal obeys them, and XML 1.0 has none of them.
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f"
    # What ends a line, and what turns the direction of the text around it.
    r"\u2028\u2029\u200e\u200f\u061c\u202a-\u202e\u2066-\u2069"
    # No characters at all: half a surrogate pair, and what Unicode never assigns.
    r"\ud800-\udfff\ufffe\uffff]"
)


def visible(text: str) -> str:
    r"""``text`` with what cannot be seen written as Python would, such as ``\x1b``.

    All that is left is allowed in XML 1.0 (its production Char) and obeyed by no terminal.
    """
    return _UNSEEN.sub(_escaped, text.replace("\r\n", "\n"))


def _escaped(found: re.Match[str]) -> str:
    return ascii(found[0])[1:-1]
