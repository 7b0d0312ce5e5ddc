# SPDX-License-Identifier: Apache-2.0
"""What a comparison with transformers found."""

from pydantic import BaseModel


class OracleResult(BaseModel):
    """How many answers of arm ``off`` equal greedy decoding by transformers in float32."""

    prompts: int
    """Compared."""
    identical: int
    """Answers that are the same."""
    different: list[int]
    """Questions (``doc_id``) whose answers differ."""
    seconds: float
    """That it took."""
