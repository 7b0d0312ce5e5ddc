# SPDX-License-Identifier: Apache-2.0
"""EPLB that breaks on one rank, once: serving has to go on, and weights have to stay right."""

import functools
import time
from collections.abc import Callable, Iterator
from typing import Any

from vllm_eplb_plugin.fault_settings import Fault, FaultOptions
from vllm_eplb_plugin.faults.strike import Strike
from vllm_eplb_plugin.overrides.override import Override

_Function = Callable[..., Any]
_Harm = Callable[[FaultOptions], None]

_WORKER = "vllm.distributed.eplb.async_worker"
_SECOND = 2
"""A fault of one layer strikes in the second that gets there: one is committed before it."""


class OrderedFaultError(RuntimeError):
    """EPLB breaks because the setting ``fault`` says so."""


def _raise(_: FaultOptions) -> None:
    raise OrderedFaultError("ordered by the setting fault")


def _take_long(when: FaultOptions) -> None:
    time.sleep(when.seconds)


def _override(
    target: str, signature: str, replace: Any, fixes: str, releases: str = ""
) -> Override:
    return Override(target, signature, replace, fixes, "Never.", "break", releases)


def _before(harm: _Harm, strikes: Callable[..., FaultOptions | None]) -> Any:
    """Do harm before the call, if it is the one that the fault strikes."""

    def replace(original: _Function) -> _Function:
        @functools.wraps(original)
        def call(*args: Any, **kwargs: Any) -> Any:
            if (when := strikes(*args)) is not None:
                harm(when)
            return original(*args, **kwargs)

        return call

    return replace


def _in_worker() -> Iterator[Override]:
    """The worker's loop raises: what catches errors of a transfer does not see it."""
    strike = Strike()
    yield strike.override()
    fixes = "The async worker of one rank ends by an error, outside of a layer's transfer."
    # Where a layer is handed over: the event is made for that.
    in_second = _before(_raise, lambda: strike.in_layer(_SECOND, object()))
    yield _override(f"{_WORKER}:CpuGpuEvent", "()", in_second, fixes, ">=0.20")
    # 0.18 and 0.19 hand a layer over by an assignment: the worker ends once it has a plan.
    for module, releases in (("v018", "<0.19"), ("unchanged_layers", ">=0.19,<0.20")):
        target = f"vllm_eplb_plugin.engine.{module}:begin_handover"
        at_once = _before(_raise, lambda *_: strike.once())
        yield _override(target, "(model_state, old)", at_once, fixes, releases)


def _in_transfer(
    harm: _Harm, fixes: str, strikes: Callable[[Strike, object], FaultOptions | None]
) -> Iterator[Override]:
    """Where a rank pulls a layer's weights, and where vLLM plans what it sends of one."""
    strike = Strike()
    yield strike.override()
    yield _override(
        "vllm_eplb_plugin.transfer.peer_layer:PeerLayer.fill",
        "(self, old, new, buffers)",
        _before(harm, lambda _self, _old, new, _buffers: strikes(strike, new)),
        fixes,
    )
    # Twice in a layer, with the same array: whom to send to, and of whom to receive.
    yield _override(
        "vllm.distributed.eplb.rebalance_execute:get_ep_ranks_with_experts_batch",
        "(expert_ids, num_local_experts, old_indices, new_indices)",
        _before(harm, lambda _experts, _slots, _old, new: strikes(strike, new)),
        fixes,
    )


def _in_policy(harm: _Harm, fixes: str) -> Iterator[Override]:
    strike = Strike()
    yield strike.override()
    yield _override(
        "vllm_eplb_plugin.planning.guard:GuardedPolicy._ask",
        "(self, old, weight, num_replicas, num_groups, num_nodes, num_ranks)",
        _before(harm, lambda *_: strike.once()),
        fixes,
    )


def _in_second_layer(strike: Strike, layer: object) -> FaultOptions | None:
    return strike.in_layer(_SECOND, layer)


BROKEN_OVERRIDES: dict[Fault, tuple[Override, ...]] = {
    "worker_raises": tuple(_in_worker()),
    "worker_hangs": tuple(
        _in_transfer(
            _take_long,
            "The async worker of one rank hangs in a layer's transfer.",
            _in_second_layer,
        )
    ),
    "worker_slow": tuple(
        _in_transfer(
            _take_long,
            "Every layer's transfer of one rearrangement takes long on one rank.",
            lambda strike, _: strike.throughout(),
        )
    ),
    "policy_raises": tuple(_in_policy(_raise, "The policy raises on one rank.")),
    "policy_hangs": tuple(_in_policy(_take_long, "The policy does not answer on one rank.")),
    "transfer_fails": tuple(
        _in_transfer(_raise, "A layer's weights do not get to one rank.", _in_second_layer)
    ),
}
"""What is bound for each."""
