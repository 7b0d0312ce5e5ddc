# SPDX-License-Identifier: Apache-2.0
"""Prompts of one kind of traffic: of which domain, in which order, how long."""

import random
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from eval.errors import ConfigError
from eval.load.domains import DOMAINS, tokens_of
from eval.results.throughput import Traffic, TrafficLoad

Prompt = str | Sequence[int]
"""A text, or token ids."""
Domain = Callable[[Traffic, random.Random], Prompt]
"""Draws one of its prompts."""

_CHARACTERS_A_TOKEN = 3
"""Of a text that is made as long as a traffic asks for."""
_LINE = TypeAdapter[str](str)


def prompts_of(
    traffic: Traffic, domains: Sequence[Domain], completions: int, turn: int, seed: int
) -> list[Prompt]:
    """All prompts of one measurement, the same for the same seed.

    Args:
        traffic: What they are for.
        domains: That they are of.
        completions: So many.
        turn: See `domains_in_order`.
        seed: Another one draws other prompts of the same traffic.
    """
    choose = random.Random(f"{traffic.name} {seed}")
    order = domains_in_order(traffic.load, completions, len(domains), turn, choose)
    return [domains[number](traffic, choose) for number in order]


def domains_in_order(
    load: TrafficLoad, completions: int, domains: int, turn: int, choose: random.Random
) -> list[int]:
    """The domain of each prompt, by its number.

    Args:
        load: One all the time, from each to the next little by little, or in turns.
        completions: So many prompts.
        domains: So many there are; after the last comes the first.
        turn: Prompts of one before the first of the next, where they take turns.
        choose: Draws which of two a prompt is of while one goes and another comes.
    """
    if load == "skewed":
        return [0] * completions
    if load == "switching":
        return [number // turn % domains for number in range(completions)]
    way = [number / completions * domains for number in range(completions)]
    return [(int(at) + (choose.random() < at % 1)) % domains for at in way]


def token_domains(vocabulary: int) -> list[Domain]:
    """Those of a random model (`eval.load.domains`), as token ids."""

    def drawing(domain: int) -> Domain:
        tokens = tokens_of(domain, vocabulary)
        return lambda traffic, choose: choose.choices(tokens, k=traffic.prompt_tokens)

    return [drawing(domain) for domain in range(DOMAINS)]


def text_domain(texts: Sequence[str]) -> Domain:
    """Texts of one domain: each by itself, or one after another until they are long enough."""

    def draw(traffic: Traffic, choose: random.Random) -> Prompt:
        first = choose.randrange(len(texts))
        if traffic.kind == "decode":
            return texts[first]
        long = traffic.prompt_tokens * _CHARACTERS_A_TOKEN
        parts: list[str] = []
        for text in islice(cycle(texts), first, None):
            parts.append(text)
            if sum(map(len, parts)) >= long:
                return "\n\n".join(parts)[:long]
        raise AssertionError("a cycle has no end")

    return draw


def read_texts(file: Path) -> list[str]:
    """One prompt a line; in a file whose name ends with ``.jsonl``, as a JSON string each.

    Raises:
        ConfigError: It cannot be read, has none, or a line is no string.
    """
    try:
        lines = [line for line in file.read_text(encoding="utf-8").split("\n") if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--prompts {file}: {_why(error)}") from error
    texts = [_text(file, line) for line in lines] if file.suffix == ".jsonl" else lines
    texts = [text for text in texts if text]
    if not texts:
        raise ConfigError(f"--prompts {file} has no prompt: write one a line")
    return texts


def _text(file: Path, line: str) -> str:
    try:
        return _LINE.validate_json(line)
    except ValidationError as error:
        raise ConfigError(f"--prompts {file}: a line is no JSON string: {line[:100]}") from error


def _why(error: Any) -> str:
    return getattr(error, "strerror", None) or str(error)
