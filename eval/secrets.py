# SPDX-License-Identifier: Apache-2.0
"""Keys, tokens and passwords: known by the names of what holds them, hidden wherever they appear.

What is kept and what is shown goes through `SECRETS`. A value shorter than `SHORTEST` would be
found in words and numbers that are none: it is hidden only where it stands right after such a name.
"""

import base64
import html
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TextIO, TypeVar, cast
from urllib.parse import quote, quote_plus, unquote

from pydantic import BaseModel

HIDDEN = "(hidden)"
SHORTEST = 8
"""Characters of a value that is hidden wherever it appears."""

_Model = TypeVar("_Model", bound=BaseModel)

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_SECRET_WORD = re.compile(r"secret|passw(?:or)?d|passphrase|credentials?|authorization|apikey")
_LAST_WORD = re.compile(r"key|\w*token|auth|cookie|pat|\w*pass")
_PLURAL = re.compile(r"(?:api|access|secret|auth) (?:key|token)s|access key id")
# Of a model, and no secrets.
_MODEL_TOKEN = re.compile(
    r"(?:bos|eos|pad|unk|sep|cls|mask|image|audio|video|start|end|stop) token"
)
_WHERE_IT_IS = re.compile(r"file|path|dir|directory|folder|store|url|name|sock|command|helper")

_URL_USER = re.compile(r"(?P<scheme>[A-Za-z][\w+.-]*://)(?P<user>[^/\s'\"<>]+)@")
_BEARER = re.compile(r"(?P<before>\bBearer +)(?=\S*\d|\S{20})[\w.~+/=:-]{6,}")
_NAMED = re.compile(
    r"(?P<before>(?:api[_-]?key|hf[_-]?token|hub[_-]?token|(?:access|secret|private)[_-]key"
    r"|(?:auth|access|api|bearer|github)[_-]token|password|passwd|authorization)"
    r"(?:\\?[\"'])?[ \t]*[:=][ \t]*\[?(?:\\?[\"'])?)"
    r"(?!(?:Basic +|Bearer +)?\(hidden\))(?:Basic +|Bearer +)?(?P<value>[^\s\"'\\,\[\](){}]+)",
    re.IGNORECASE,
)
_NAME_BEFORE_SHORT = (
    r"(?P<before>(?:key|token|secret|password|passwd|passphrase|credentials?|bearer)(?!\w)"
    r"[\\\"']*[ \t]*[:=,]?[ \t]*[\[(]?[\\\"']*)"
)


def is_secret_name(name: str) -> bool:
    """Whether a variable or an option of this name holds a secret."""
    words = [word.lower() for word in _WORD.findall(name)]
    while words and words[-1].isdigit():
        words.pop()
    if not words or _WHERE_IT_IS.fullmatch(words[-1]):
        return False
    end = " ".join(words[-3:])
    if _PLURAL.search(end) or any(_SECRET_WORD.search(word) for word in words):
        return True
    return bool(_LAST_WORD.fullmatch(words[-1])) and not _MODEL_TOKEN.search(end)


def _is_secret(value: Any, name: str) -> bool:
    # A number of tokens is none, and vLLM takes `hf-token: true` for the one that is stored.
    if isinstance(value, bool) or (isinstance(value, int) and name.lower().endswith("token")):
        return False
    return isinstance(value, str | int) and is_secret_name(name)


def secrets_in(settings: Any, name: str = "") -> Iterator[str]:
    """Every secret of a mapping and of all below it, such as an environment or a configuration."""
    if isinstance(settings, Mapping):
        for key, value in settings.items():
            yield from secrets_in(value, name if is_secret_name(name) else str(key))
    elif isinstance(settings, list | tuple):
        for value in settings:
            yield from secrets_in(value, name)
    elif isinstance(settings, str | int):
        text = str(settings)
        if text and _is_secret(settings, name):
            yield text
        yield from _passwords_of_urls(text)
        if text.lstrip().startswith("{"):
            yield from secrets_in(_json_of(text))


def _passwords_of_urls(text: str) -> Iterator[str]:
    for found in _URL_USER.finditer(text):
        user, colon, password = found["user"].partition(":")
        secret = password if colon else user
        yield from (secret, unquote(secret))
        yield base64.b64encode(unquote(found["user"]).encode()).decode()


def _json_of(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


class Secrets:
    """What must never be written, as far as it is known."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        self._values: set[str] = set()
        self._long: re.Pattern[str] | None = None
        self._short: re.Pattern[str] | None = None
        self._add(values)

    def __bool__(self) -> bool:
        return bool(self._values)

    def learn(self, settings: Mapping[str, Any]) -> None:
        """Know the secrets of an environment or of a configuration, too."""
        self._add(secrets_in(settings))

    def hide(self, text: str) -> str:
        """The same text without a secret, however it is quoted or escaped."""
        if self._long:
            text = self._long.sub(HIDDEN, text)
        if self._short:
            text = self._short.sub(rf"\g<before>{HIDDEN}", text)
        text = _URL_USER.sub(rf"\g<scheme>{HIDDEN}@", text)
        text = _BEARER.sub(rf"\g<before>{HIDDEN}", text)
        return _NAMED.sub(rf"\g<before>{HIDDEN}", text)

    def known_in(self, text: str) -> bool:
        """Whether a value that is known stands in a text."""
        return bool(self._long and self._long.search(text))

    def hide_in(self, settings: Any, name: str = "") -> Any:
        """The same settings without a secret: by the names of settings, and in every text."""
        if isinstance(settings, Mapping):
            return {
                key: self.hide_in(value, name if is_secret_name(name) else str(key))
                for key, value in settings.items()
            }
        if isinstance(settings, list | tuple):
            return [self.hide_in(value, name) for value in settings]
        if _is_secret(settings, name):
            return HIDDEN
        return self.hide(settings) if isinstance(settings, str) else settings

    def hide_in_model(self, model: _Model) -> _Model:
        """The same for a model of pydantic, such as a result or a configuration."""
        return type(model).model_validate(self.hide_in(model.model_dump(by_alias=True)))

    def hide_in_command(self, command: Iterable[str]) -> list[str]:
        """The same for a command line."""
        hidden, name = [], ""
        for argument in command:
            if argument.startswith("--"):
                name = argument
                hidden.append(self.hide(argument))
            else:
                hidden.append(HIDDEN if is_secret_name(name) else self.hide(argument))
        return hidden

    def _add(self, values: Iterable[str]) -> None:
        # Of a private key each line: a log is read line by line.
        for value in values:
            self._values |= {value, *(line for line in value.splitlines() if len(line) >= 16)}
        self._values -= {"", HIDDEN}
        long = {value for value in self._values if len(value) >= SHORTEST}
        forms = {form for value in long for form in _forms(value)}
        self._long = _any_of(forms)
        short = _any_of(self._values - long)
        self._short = short and re.compile(
            rf"{_NAME_BEFORE_SHORT}(?:{short.pattern})(?!\w)", re.IGNORECASE
        )


def _any_of(values: Iterable[str]) -> "re.Pattern[str] | None":
    # The longest first, as one may start with another.
    escaped = [re.escape(value) for value in sorted(values, key=lambda one: (-len(one), one))]
    return re.compile("|".join(escaped)) if escaped else None


def _forms(value: str) -> set[str]:
    """How a value stands in JSON, also inside JSON, in Python's repr, a URL, HTML and base64."""
    once = {json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]}
    twice = {json.dumps(one)[1:-1] for one in once}
    urls = {quote(value), quote(value, safe=""), quote_plus(value)}
    coded = base64.b64encode(value.encode(errors="surrogateescape")).decode()
    return {value, *once, *twice, *urls, repr(value)[1:-1], html.escape(value), coded}


SECRETS = Secrets()
"""Of this process: what its environment and its configuration hold."""


class _HidingStream:
    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(SECRETS.hide(text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def nothing_secret_is_printed() -> Iterator[None]:
    """Inside, standard output and error are written without what `SECRETS` knows."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (cast(TextIO, _HidingStream(stream)) for stream in before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
