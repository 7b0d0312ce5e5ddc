# SPDX-License-Identifier: Apache-2.0
"""Weights that GPUs pull from each other, where copies into weights are late on the device.

A rank that read a row before the last rearrangement had written it, or after the next one had,
would find another expert's weights in it.
"""

from typing import Any

import pytest
import torch

from tests.releases.ranks import Ranks, assert_nothing_wrong

pytestmark = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")

JOB: dict[str, Any] = {"scenario": "pulled", "device": "cuda", "rearrangements": 8}


@pytest.mark.parametrize("use_async", [False, True])
@pytest.mark.parametrize("transfer", ["peer", "vllm"])
def test_rows_are_there_and_not_gone(transfer: str, use_async: bool, installed: Ranks) -> None:
    # Checks after a commit wait for the device.
    settings = {"loopback": False, "check_weights": False, "transfer": transfer}
    arguments = {"late": 20}
    reports = installed(use_async=use_async, settings=settings, arguments=arguments, **JOB)
    assert_nothing_wrong(reports)
    pulled = "pulled" in reports[0]["ways"]
    assert pulled == (transfer == "peer")
