# SPDX-License-Identifier: Apache-2.0
"""What a run was made with: releases, machine, seeds."""

from pydantic import BaseModel


class Versions(BaseModel):
    """Installed releases; none: not installed beside the harness."""

    python: str
    """That runs the harness, as all that follow but for vLLM, which is what the server's ``vllm-
    eplb doctor`` says."""
    vllm_distribution: str | None
    """vLLM is distributed under several names."""
    vllm: str | None
    """Its release."""
    vllm_eplb_plugin: str | None
    """The plugin's."""
    lm_eval: str | None
    """lm-eval's."""
    torch: str | None
    """PyTorch's."""
    transformers: str | None
    """That of transformers."""


class Machine(BaseModel):
    """Where the servers ran."""

    processor: str
    """Its name."""
    accelerators: list[str]
    """One name for each GPU; empty: a CPU run."""
    cores: int
    """Processor cores that this process may use."""
    memory_gib: float
    """In GiB."""


class Seeds(BaseModel):
    """Every seed that is set; answers are greedy, so only ``fewshot`` changes a prompt."""

    random: int
    """Of Python."""
    numpy: int
    """Of NumPy."""
    torch: int
    """Of PyTorch."""
    fewshot: int
    """Decides which solved questions stand before a question."""
    request: int
    """Sent with each request; greedy decoding ignores it."""
