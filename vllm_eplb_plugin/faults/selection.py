# SPDX-License-Identifier: Apache-2.0
"""What settings break or slow on purpose, in a loopback worker."""

from dataclasses import replace

from vllm_eplb_plugin.faults.by_name import FAULTS
from vllm_eplb_plugin.faults.transfer_delay import delay_overrides
from vllm_eplb_plugin.overrides.override import Override, select
from vllm_eplb_plugin.settings import Settings

BY_SETTING: dict[str, tuple[Override, ...]] = {
    **{f'"fault": "{fault}"': overrides for fault, overrides in FAULTS.items()},
    '"transfer_delay_ms"': delay_overrides(0.0),
}
"""All that can be asked for, by the setting that does; to look at, since a delay has no length."""


def overrides_on_purpose(settings: Settings, release: str) -> tuple[Override, ...]:
    """Find the overrides of ``fault`` and of ``transfer_delay_ms``; usually there are none."""
    fault = FAULTS[settings.fault] if settings.fault is not None else ()
    milliseconds = settings.transfer_delay_ms
    delay = select(delay_overrides(milliseconds), release) if milliseconds else ()
    slow = {override.target: override for override in delay}
    # A target has one override, and what is bound first stays.
    broken = [
        _one_inside_the_other(override, slow.pop(override.target, None))
        for override in select(fault, release)
    ]
    return (*broken, *slow.values())


def _one_inside_the_other(outer: Override, inner: Override | None) -> Override:
    if inner is None:
        return outer
    inside = inner.replace
    return replace(outer, replace=lambda original: outer.replace(inside(original)))
