# SPDX-License-Identifier: Apache-2.0
"""Errors that more than one override raises."""


class ModelWithoutEplbError(RuntimeError):
    """EPLB was asked for, but no expert of this model would ever move."""

    def __init__(self, model: str) -> None:
        super().__init__(
            f"--enable-eplb is set, but {model} does not implement vLLM's MixtureOfExperts: no "
            "expert would ever move. Serve it without --enable-eplb."
        )
