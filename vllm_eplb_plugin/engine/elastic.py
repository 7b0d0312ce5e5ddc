# SPDX-License-Identifier: Apache-2.0
"""What elastic EP does to the plugin."""

import os


def joins_running_ranks() -> bool:
    """Say whether this process was started to join ranks that serve already.

    It makes its `EplbState` and adds its models while they serve on: they come to no meeting. Its
    experts get their weights later, from the first rearrangement.
    """
    return os.environ.get("VLLM_ELASTIC_EP_SCALE_UP_LAUNCH") == "1"
