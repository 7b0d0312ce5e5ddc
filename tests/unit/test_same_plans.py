# SPDX-License-Identifier: Apache-2.0
"""Every rank plans alike, whatever its processor: one hash, which other machines check."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.builders.plan_hash import hash_of_plans

HASH = "c27a8fc7be27ff8055e769ea23923937bf84ec83c5ef5f3e2784dc4f73dacc36"
"""Changes with every policy that plans differently, and with nothing else."""

GENERATIONS = {
    "generic": "",
    "haswell": "avx2 fma bmi2",
    "skylake-avx512": "avx512f avx512dq avx512bw avx512vl",
    "znver4": "sse4a avx512_bf16 avx512_vbmi2",
    "znver5": "sse4a avx_vnni avx512_vp2intersect",
    "sapphirerapids": "avx512_fp16 amx_tile",
}
"""Processors that numba can compile for, with what code for them asks of this one."""


def test_plans_are_those_of_every_other_machine() -> None:
    assert hash_of_plans() == HASH


@pytest.mark.parametrize("processor", GENERATIONS)
def test_compiled_for_another_processor_plans_are_the_same(processor: str, tmp_path: Path) -> None:
    information = Path("/proc/cpuinfo")
    flags = information.read_text().split() if information.exists() else []
    missing = [flag for flag in GENERATIONS[processor].split() if flag not in flags]
    if missing:
        pytest.skip(f"code for {processor} needs {' and '.join(missing)}, which this one lacks")
    done = subprocess.run(
        [sys.executable, "-m", "tests.builders.plan_hash"],
        # Without features of its own, numba adds those of this processor.
        env={
            **os.environ,
            "NUMBA_CPU_NAME": processor,
            "NUMBA_CPU_FEATURES": "",
            "NUMBA_CACHE_DIR": str(tmp_path),
        },
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.stdout.split(maxsplit=1) == [HASH, f"('{processor}', '')\n"], done.stderr
