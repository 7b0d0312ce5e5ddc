# SPDX-License-Identifier: Apache-2.0
"""The process between a server's front end and its ranks, started without a new interpreter."""

from vllm_eplb_plugin.loopback.forks import fork_instead
from vllm_eplb_plugin.overrides.override import Override

FORK_COORDINATOR = Override(
    # Only this module's name. The process uses zmq only: nothing that a fork would break.
    target="vllm.v1.engine.coordinator:get_mp_context",
    signature="()",
    kind="replace",
    replace=fork_instead,
    fixes="With several ranks vLLM starts a coordinator, waits until that process has imported "
    "vLLM again, and starts the ranks only then: 11 s of 45 s on one machine with an H100.",
    delete_when="vLLM starts the ranks without waiting for the coordinator.",
)
