# SPDX-License-Identifier: Apache-2.0
"""Markdown of this repository for where its other files are not: relative links as plain text.

    python scripts/plain_links.py < README.md

A package index shows README and cannot resolve them; absolute links stay. The build of the package
uses it, so it needs the standard library alone.
"""

import re
import sys
from collections.abc import Callable

_TARGET = r"\((?P<target>[^()\s]*)(?:\s+(?:\"[^\"]*\"|'[^']*'))?\)"
_CODE = r"(?P<code>`+)(?:(?!(?P=code)).)*(?P=code)"
_NESTED = r"!?\[[^\[\]]*\]\([^()]*\)"

_FENCED = re.compile(r"^ *(?P<fence>```+|~~~+).*?^ *(?P=fence)[^\n]*$", re.DOTALL | re.MULTILINE)
_PICTURE = re.compile(r"<picture\b.*?</picture>", re.DOTALL)
_IMG = re.compile(r"<img\b[^>]*>")
_ANCHOR = re.compile(r"<a\b[^>]*?\bhref=\"(?P<target>[^\"]*)\"[^>]*>(?P<text>.*?)</a>", re.DOTALL)
_IMAGE = re.compile(rf"{_CODE}|!\[(?P<text>[^\[\]]*)\]{_TARGET}", re.DOTALL)
_LINK = re.compile(
    rf"{_CODE}|(?<!!)\[(?P<text>(?:[^\[\]`]|`[^`]*`|{_NESTED})*)\]{_TARGET}", re.DOTALL
)
_DEFINED = re.compile(r"^ {0,3}\[[^\[\]]+\]:[ \t]*(?P<target>\S+)", re.MULTILINE)
_LEFT = re.compile(rf"{_CODE}|\]\((?P<target>[^()\s]*)[^)]*\)", re.DOTALL)


class LinkError(ValueError):
    """A relative link is written in a way that would stay; the message says which."""


def plain_links(text: str) -> str:
    """Replace links to other files and to headings by their text, and pictures by theirs.

    Code is left alone.

    Raises:
        LinkError: One is defined apart from its text, or written in a way that is not known here.
    """
    parts, end = [], 0
    for fenced in _FENCED.finditer(text):
        parts += [_plain(text[end : fenced.start()]), fenced.group()]
        end = fenced.end()
    return "".join([*parts, _plain(text[end:])])


def _plain(text: str) -> str:
    _refuse(_DEFINED, text)
    text = _PICTURE.sub(lambda found: _of_img(found.group()), text)
    text = _IMG.sub(lambda found: _of_img(found.group()), text)
    text = _ANCHOR.sub(_keep_or(lambda found: found["text"]), text)
    text = _IMAGE.sub(_keep_or(lambda found: _picture(found["text"])), text)
    text = _LINK.sub(_keep_or(lambda found: found["text"]), text)
    _refuse(_LEFT, text)
    return text


def _refuse(pattern: re.Pattern[str], text: str) -> None:
    for found in pattern.finditer(text):
        is_code = found.groupdict().get("code") is not None
        if not is_code and _is_relative(found["target"]):
            raise LinkError(
                f"{found.group().strip()} is a link that an index cannot resolve: write it where "
                "its text is, as [text](target)"
            )


def _keep_or(plain: Callable[[re.Match[str]], str]) -> Callable[[re.Match[str]], str]:
    def replaced(found: re.Match[str]) -> str:
        is_code = found.groupdict().get("code") is not None
        return found.group() if is_code or not _is_relative(found["target"]) else plain(found)

    return replaced


def _of_img(tags: str) -> str:
    """What stands for an ``img``, or for a ``picture`` with several sources."""
    targets = re.findall(r"\bsrc(?:set)?=\"([^\"\s]*)", tags)
    if not any(map(_is_relative, targets)):
        return tags
    alternative = re.search(r"\balt=\"([^\"]*)\"", tags)
    return _picture(alternative[1] if alternative else "")


def _picture(alternative: str) -> str:
    words = " ".join(alternative.split())
    return f"(picture in the repository: {words})" if words else ""


def _is_relative(target: str) -> bool:
    return re.match(r"[a-z][a-z0-9+.-]*:|//", target, re.IGNORECASE) is None


if __name__ == "__main__":
    sys.stdout.write(plain_links(sys.stdin.read()))
