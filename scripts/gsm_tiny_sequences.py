# SPDX-License-Identifier: Apache-2.0
"""Training sequences: solved problems one after another, as in a few-shot prompt."""

from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

import torch
from tiny_tokenizer import END_TOKEN, build_tokenizer
from tokenizers import Tokenizer
from torch.utils.data import Dataset

from scripts.gsm_tiny_problems import Split, problems

VOCABULARY_SIZE = 1024
NO_LABEL = -100
"""What torch's cross entropy leaves out."""

# Problems that the tokenizer learns from; more of them give the same tokens.
_TOKENIZER_TEXTS = 4000


class Example(NamedTuple):
    """A sequence, or a batch of them: each int64 ``[length]`` or ``[batch, length]``."""

    tokens: torch.Tensor
    labels: torch.Tensor
    """The token to predict at each position, or `NO_LABEL`."""
    answers: torch.Tensor
    """Which answer the label belongs to, counted from 0, or -1."""


def problem_texts() -> Iterator[str]:
    """What a tokenizer learns from word problems; equal at each call."""
    for problem in islice(problems("train", 0), _TOKENIZER_TEXTS):
        yield f"Question: {problem.question}\nAnswer: {problem.answer}\n\n"


def tokenizer_for_problems() -> Tokenizer:
    """The tokenizer of gsm-tiny; equal at each call. Digits are single tokens."""
    return build_tokenizer(VOCABULARY_SIZE, problem_texts())


class Sequences(Dataset[Example]):
    """Sequences by index, the same ones for the same split and seed, without end.

    Only answers are to be predicted. After an answer the end token is, although, as in a few-shot
    prompt, the next question follows.
    """

    def __init__(self, split: Split, seed: int, length: int, tokenizer: Tokenizer) -> None:
        self.split = split
        self.seed = seed
        self.length = length
        self.tokenizer = tokenizer
        self.end: int = tokenizer.token_to_id(END_TOKEN)

    def __getitem__(self, index: int) -> Example:
        tokens: list[int] = []
        labels: list[int] = []
        answers: list[int] = []
        for number, (prompt, answer) in enumerate(self._problems(index)):
            if len(tokens) + len(prompt) + len(answer) > self.length:
                break
            tokens += prompt + answer
            labels += [NO_LABEL] * (len(prompt) - 1) + answer + [self.end]
            answers += [-1] * (len(prompt) - 1) + [number] * (len(answer) + 1)
        missing = self.length - len(tokens)
        return Example(
            torch.tensor(tokens + [self.end] * missing),
            torch.tensor(labels + [NO_LABEL] * missing),
            torch.tensor(answers + [-1] * missing),
        )

    def _problems(self, index: int) -> Iterator[tuple[list[int], list[int]]]:
        """Tokens of prompts and answers."""
        between = ""
        # A range of seeds for each dataset seed: no two sequences share one.
        for problem in problems(self.split, self.seed * 10**9 + index):
            prompt = f"{between}Question: {problem.question}\nAnswer:"
            yield self.tokenizer.encode(prompt).ids, self.tokenizer.encode(f" {problem.answer}").ids
            between = "\n\n"
