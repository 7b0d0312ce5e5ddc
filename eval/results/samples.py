# SPDX-License-Identifier: Apache-2.0
"""Questions and answers, as they are kept."""

from pydantic import BaseModel, model_validator

from eval.config.schema import TaskName


class Tokens(BaseModel):
    """The tokens of an answer, as the server sampled them."""

    ids: list[int]
    """In the model's vocabulary; the one that ended the answer, too."""
    logprobs: list[float]
    """Natural logarithm of each one's probability, as the server computed it in float32."""

    @model_validator(mode="after")
    def _as_many_of_both(self) -> "Tokens":
        if len(self.ids) != len(self.logprobs):
            raise ValueError(f"{len(self.ids)} tokens and {len(self.logprobs)} probabilities")
        return self


class Sample(BaseModel):
    """One question and its answer: a line of ``samples.jsonl``."""

    task: TaskName
    """``gsm8k`` or ``gsm_tiny``."""
    doc_id: int
    """Its index in the test set."""
    doc_hash: str
    """Of the document, as lm-eval computes it."""
    prompt_hash: str
    """Of the prompt, likewise."""
    target_hash: str
    """Of the right answer, likewise."""
    prompt: str
    """As sent."""
    stop: list[str]
    """An answer ends before the first of these."""
    text: str
    """The answer, as the server gave it."""
    tokens: Tokens | None = None
    """Those of ``text``, where ``tasks.logprobs`` asks for them."""
    target: str
    """The right answer with its explanation."""
    strict_match: str
    """What the filter found in the answer."""
    strict_correct: bool
    """Whether that is right."""
    flexible_extract: str
    """What the other filter found."""
    flexible_correct: bool
    """Whether that is right."""
