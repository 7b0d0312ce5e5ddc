# SPDX-License-Identifier: Apache-2.0
"""Greedy decoding by transformers in float32: what a server has to answer.

A program of its own (``python -m eval.oracle.decoding REQUEST ANSWERS``), so that the memory which
torch and the model take is free before the next server starts.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eval.results.oracle_texts import OracleAnswers, OracleRequest


def decode(request: OracleRequest) -> OracleAnswers:
    """Continue every prompt by itself: in a batch, padding could change a result."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = AutoTokenizer.from_pretrained(request.model)
    model = AutoModelForCausalLM.from_pretrained(request.model, dtype=torch.float32)
    model = model.to(device).eval()
    return OracleAnswers(
        texts=[
            cut_at_stop(_continue(model, tokenizer, prompt, request.max_tokens), request.stop)
            for prompt in request.prompts
        ]
    )


def cut_at_stop(text: str, stop: Sequence[str]) -> str:
    """The text before the first of the stop strings, as a server cuts it."""
    ends = [text.find(one) for one in stop]
    return text[: min((end for end in ends if end >= 0), default=len(text))]


def _continue(model: Any, tokenizer: Any, prompt: str, max_tokens: int) -> str:
    inputs = tokenizer(prompt, return_tensors="pt").to(model.device)
    output = model.generate(
        input_ids=inputs["input_ids"],
        attention_mask=inputs["attention_mask"],
        do_sample=False,
        max_new_tokens=max_tokens,
        pad_token_id=tokenizer.eos_token_id,
    )
    # Decoding the new tokens alone would lose a space at their start with some tokenizers.
    whole: str = _text(tokenizer, output[0])
    return whole[len(_text(tokenizer, inputs["input_ids"][0])) :]


def _text(tokenizer: Any, tokens: Any) -> str:
    text: str = tokenizer.decode(
        tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False
    )
    return text


def main(request_file: Path, answers_file: Path) -> None:
    """Read a request, write the answers."""
    request = OracleRequest.model_validate_json(request_file.read_bytes())
    answers_file.write_text(decode(request).model_dump_json(), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
