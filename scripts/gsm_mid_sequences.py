# SPDX-License-Identifier: Apache-2.0
"""Training sequences of three domains: word problems as for gsm-tiny, code and prose."""

import random
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, islice
from typing import Any

import torch
from gsm_mid_texts import Text, code, is_held_out, prose, record
from gsm_tiny_sequences import Example, Sequences, problem_texts
from moe_training import VALIDATION_SEED
from tiny_tokenizer import END_TOKEN, build_tokenizer
from tokenizers import Tokenizer
from torch.utils.data import Dataset
from training_options import Options, TrainingError

from scripts.gsm_tiny_problems import Split

VOCABULARY_SIZE = 4096
# As for gsm-tiny, but the indentation of a line of code is one piece.
PIECES = r"[0-9]| ?[A-Za-z]+| ?[^A-Za-z0-9\s]+|\n+| +(?= )|\s"

PROBLEMS = "problems"
TURNS = (PROBLEMS, "code", PROBLEMS, "text")
"""Domains of one sequence after another: arithmetic is what takes longest to learn."""

# Of each text, so that all kinds of them count and the tokenizer is there in seconds.
_TOKENIZER_CHARACTERS = 20_000
_TOKENIZED_TOGETHER = 64


def read_texts() -> dict[str, list[Text]]:
    """The texts of this machine by domain."""
    return {"code": code(), "text": prose()}


def tokenizer_for(texts: Iterable[Text]) -> Tokenizer:
    """A tokenizer learned from word problems and from texts that training sees."""
    parts = (text.content[:_TOKENIZER_CHARACTERS] for text in texts if not is_held_out(text))
    return build_tokenizer(VOCABULARY_SIZE, chain(problem_texts(), parts), PIECES)


class Passages(Dataset[Example]):
    """Passages of texts by index, the same ones for the same seed, without end.

    Every token is to be predicted, and counts as an answer of its own.
    """

    def __init__(self, tokens: torch.Tensor, name: str, length: int) -> None:
        self.tokens = tokens
        self.name = name
        """What the choice of passages depends on, besides the index."""
        self.length = length

    def __getitem__(self, index: int) -> Example:
        last = len(self.tokens) - self.length - 1
        first = random.Random(f"{self.name} {index}").randint(0, last)
        passage = self.tokens[first : first + self.length + 1].long()
        return Example(passage[:-1], passage[1:], torch.arange(self.length))


class Mixed(Dataset[Example]):
    """Sequences of one domain after another, as `TURNS` says."""

    def __init__(self, domains: Mapping[str, Dataset[Example]]) -> None:
        self.domains = domains

    def __getitem__(self, index: int) -> Example:
        return self.domains[TURNS[index % len(TURNS)]][index]


class ThreeDomains:
    """All that gsm-mid learns from: see `moe_training.Source`."""

    def __init__(self, options: Options, texts: Mapping[str, Sequence[Text]]) -> None:
        """Tokenize the texts, which takes some seconds for each ten million characters.

        Raises:
            TrainingError: There is less text than one sequence needs.
        """
        self.tokenizer = tokenizer_for(chain.from_iterable(texts.values()))
        self.texts: dict[str, Any] = {domain: record(found) for domain, found in texts.items()}
        self.training = Mixed(self._domains("train", options.seed, options, texts))
        self.held_out = self._domains("held_out", VALIDATION_SEED, options, texts)

    def _domains(
        self, split: Split, seed: int, options: Options, texts: Mapping[str, Sequence[Text]]
    ) -> dict[str, Dataset[Example]]:
        length = options.sequence_length
        domains: dict[str, Dataset[Example]] = {
            PROBLEMS: Sequences(split, seed, length, self.tokenizer)
        }
        for domain, found in texts.items():
            chosen = [one for one in found if is_held_out(one) == (split == "held_out")]
            tokens = self._tokens(chosen)
            if len(tokens) <= length:
                raise TrainingError(
                    f"{domain} has {len(tokens)} tokens in split {split!r}, a sequence {length}: "
                    "install more packages, or give a shorter --sequence-length"
                )
            domains[domain] = Passages(tokens, f"{split} {domain} {seed}", length)
        return domains

    def _tokens(self, texts: Sequence[Text]) -> torch.Tensor:
        """All of them one after another, with the end token after each."""
        end: int = self.tokenizer.token_to_id(END_TOKEN)
        contents = iter([text.content for text in texts])
        parts = [torch.empty(0, dtype=torch.int32)]
        while some := list(islice(contents, _TOKENIZED_TOGETHER)):
            for encoded in self.tokenizer.encode_batch_fast(some):
                parts.append(torch.tensor([*encoded.ids, end], dtype=torch.int32))
        return torch.cat(parts)
