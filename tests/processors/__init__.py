# SPDX-License-Identifier: Apache-2.0
"""Processors that a test pretends to run on."""

from pathlib import Path

import pytest

from vllm_eplb_plugin.processor import this_processor

PROCESSORS = ("avx2", "avx512", "avx512_bf16", "amx")
"""From older to newer: which instructions torch says there are."""


def pretend(processor: str) -> dict[str, str]:
    """The environment variables with which a process, and what it starts, has such a processor."""
    environment = {
        "PYTHONPATH": str(Path(__file__).parent),
        "EPLB_TEST_PROCESSOR": processor,
    }
    if processor == "avx2":
        # Libraries that ask the processor themselves.
        environment |= {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
    return environment


def skip_without_instructions(processor: str) -> None:
    """Skip a test whose processes would load kernels that this processor cannot run."""
    # In float32 nothing runs what AMX adds to the library.
    needed = {"amx": "avx512_bf16"}.get(processor, processor)
    if needed not in this_processor().features:
        pytest.skip(f"vLLM's kernels for {needed} do not run on this processor, which lacks it")
