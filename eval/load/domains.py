# SPDX-License-Identifier: Apache-2.0
"""Domains of a random model: token ids that it continues with their like, by experts of their own.

`eval.commands.latency_weights` makes such models. Prompts of one domain after those of another
change the load of every expert, as when users' topics change.
"""

import random
from collections.abc import Iterator

DOMAINS = 4
PROMPT_TOKENS = 16
_SPECIAL_TOKENS = 2
"""Of gsm-tiny's tokenizer, in no domain."""


def tokens_of(domain: int, vocabulary: int) -> range:
    """The token ids of a domain; domains share none."""
    size = (vocabulary - _SPECIAL_TOKENS) // DOMAINS
    first = _SPECIAL_TOKENS + domain * size
    return range(first, first + size)


def prompts_in_turns(vocabulary: int, turn: int) -> Iterator[list[int]]:
    """Prompts without end, the same in every run, as token ids.

    Args:
        vocabulary: Size of the model's.
        turn: So many of one domain come before the first of the next domain; the first follows
            the last.
    """
    choose = random.Random(turn)
    number = 0
    while True:
        domain = number // turn % DOMAINS
        yield choose.choices(tokens_of(domain, vocabulary), k=PROMPT_TOKENS)
        number += 1
