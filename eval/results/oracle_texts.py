# SPDX-License-Identifier: Apache-2.0
"""What the oracle was asked, and what it answered, as they are kept."""

from pydantic import BaseModel


class OracleRequest(BaseModel):
    """What to decode."""

    model: str
    prompts: list[str]
    stop: list[str]
    max_tokens: int


class OracleAnswers(BaseModel):
    """One text for each prompt, ended before the first stop string."""

    texts: list[str]
