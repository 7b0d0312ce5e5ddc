# SPDX-License-Identifier: Apache-2.0
"""Processors that a test pretends to run on."""

from pathlib import Path

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
