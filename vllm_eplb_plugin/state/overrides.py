# SPDX-License-Identifier: Apache-2.0
"""Every override of every release, in one place."""

from vllm_eplb_plugin.loopback import (
    coordinator,
    cpu_device,
    cpu_runner,
    cpu_v018,
    cpu_v032,
    cuda_device,
    gate,
)
from vllm_eplb_plugin.releases import Overrides
from vllm_eplb_plugin.state import commits, controller, manager, moves, v018

OVERRIDES = Overrides(
    entry=(gate.CREATE_ENGINE_CONFIG, manager.INIT, commits.FROM_MAPPING),
    state=(*manager.OVERRIDES, *commits.OVERRIDES, *moves.OVERRIDES, *v018.OVERRIDES),
    runner=controller.OVERRIDES,
    loopback=(gate.ALLOW_EPLB, *cpu_device.OVERRIDES),
    loopback_serving=(
        coordinator.FORK_COORDINATOR,
        *cpu_runner.OVERRIDES,
        *cpu_v018.OVERRIDES,
        *cpu_v032.OVERRIDES,
    ),
    loopback_cuda=(coordinator.FORK_COORDINATOR, *cuda_device.OVERRIDES),
)
