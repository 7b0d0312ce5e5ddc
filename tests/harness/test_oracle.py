# SPDX-License-Identifier: Apache-2.0
"""Greedy decoding by transformers, compared with the plainest possible loop."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from eval.oracle.decoding import cut_at_stop, decode
from eval.results.oracle_texts import OracleRequest

PROMPTS = ["Question: What is 1 plus 2?\nAnswer:", "Why", "Some longer words, then 17 more."]


def plain_greedy(folder: Path, prompt: str, max_tokens: int) -> str:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokens = tokenizer(prompt)["input_ids"]
    length = len(tokens)
    with torch.no_grad():
        for _ in range(max_tokens):
            tokens.append(int(model(torch.tensor([tokens])).logits[0, -1].argmax()))
            if tokens[-1] == tokenizer.eos_token_id:
                break
    text: str = tokenizer.decode(tokens[length:], skip_special_tokens=True)
    return text


def test_the_texts_are_those_of_a_greedy_loop(tiny_llama: Path) -> None:
    request = OracleRequest(model=str(tiny_llama), prompts=PROMPTS, stop=[], max_tokens=20)
    texts = decode(request).texts

    assert texts == [plain_greedy(tiny_llama, prompt, 20) for prompt in PROMPTS]
    assert len(set(texts)) == len(PROMPTS)
    assert all(texts)


def test_a_text_ends_before_the_first_stop_string(tiny_llama: Path) -> None:
    whole = plain_greedy(tiny_llama, PROMPTS[0], 20)
    stop = whole[8:10]
    request = OracleRequest(
        model=str(tiny_llama), prompts=PROMPTS[:1], stop=["never there", stop], max_tokens=20
    )

    assert decode(request).texts == [whole[: whole.index(stop)]]


@pytest.mark.parametrize(
    ("text", "stop", "expected"),
    [
        ("one two three", [], "one two three"),
        ("one two three", ["four"], "one two three"),
        ("one two three", ["three", "two"], "one "),
        ("one two three", ["one"], ""),
    ],
)
def test_the_first_stop_string_in_the_text_counts(
    text: str, stop: list[str], expected: str
) -> None:
    assert cut_at_stop(text, stop) == expected
