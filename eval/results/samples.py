# SPDX-License-Identifier: Apache-2.0
"""Questions and answers, as they are kept."""

from pydantic import BaseModel

from eval.config.schema import TaskName


class Sample(BaseModel):
    """One question and its answer: a line of ``samples.jsonl``."""

    task: TaskName
    doc_id: int
    """Its index in the test set."""
    doc_hash: str
    prompt_hash: str
    target_hash: str
    prompt: str
    stop: list[str]
    """An answer ends before the first of these."""
    text: str
    """The answer, as the server gave it."""
    target: str
    strict_match: str
    """What the filter found in the answer."""
    strict_correct: bool
    flexible_extract: str
    flexible_correct: bool
