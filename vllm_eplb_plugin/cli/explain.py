# SPDX-License-Identifier: Apache-2.0
"""Say what is overridden on a release of vLLM, and why."""

from dataclasses import asdict, dataclass
from typing import Any

from vllm_eplb_plugin.advice import why_not_imported
from vllm_eplb_plugin.compatibility import Support, installed_support
from vllm_eplb_plugin.overrides.catalogue import Place, places
from vllm_eplb_plugin.overrides.override import Kind, Override, is_among
from vllm_eplb_plugin.placement.fast_way import describe
from vllm_eplb_plugin.releases import UnsupportedReleaseError, installed_distribution

MOMENTS = {
    "entry": "vLLM imports the module (also without EPLB)",
    "state": "EPLB starts",
    "runner": "EPLB starts",
    "metrics": "EPLB is asked for, and vLLM's module is imported",
    "requests": "EPLB is asked for, with LoRA",
    "loopback": "loopback starts on a CPU",
    "loopback_serving": "loopback starts on a CPU",
    "loopback_cuda": "loopback starts on a GPU",
    "exact": "exact_combine is asked for (also without EPLB)",
    "exact_on_cpu": "exact_combine is asked for on a CPU (also without EPLB)",
    "exact_on_gpu": "exact_combine is asked for on a GPU (also without EPLB)",
}
"""When each group of the catalogue is bound."""


class ExplainError(RuntimeError):
    """There is nothing to explain; the message names the next step."""


@dataclass(frozen=True)
class ExplainedOverride:
    """What is told of an override."""

    target: str
    kind: Kind
    room: str
    """See `Place`."""
    bound_when: tuple[str, ...]
    """Each of the moments at which it is bound."""
    fixes: str
    releases: str
    """A version specifier; empty: every supported release."""
    elsewhere: tuple[str, ...]
    """Those for which the same target is overridden by another declaration."""
    delete_when: str


@dataclass(frozen=True)
class Explanation:
    """What `vllm-eplb explain` found."""

    vllm: str
    """The release that was asked for, else what the installed vLLM calls itself."""
    release: str
    """The release of the table whose overrides it gets."""
    tested: bool
    """Whether it is that release, and not only like it."""
    installed: str | None
    """Distribution and version of the vLLM that is installed; None: it came without one."""
    overrides: tuple[ExplainedOverride, ...]
    """In the order in which they are bound, of one kind or of all."""

    def as_dict(self) -> dict[str, Any]:
        """Return the report as it is written to JSON."""
        return asdict(self)


def explain(release: str | None, kind: Kind | None = None) -> Explanation:
    """Look at what is declared; imports vLLM.

    Args:
        release: One of the table, which need not be installed; None: the installed vLLM.
        kind: None: all.

    Raises:
        ExplainError: The installed vLLM is not supported, or what is declared cannot be imported.
    """
    try:
        support = installed_support() if release is None else Support(release, release, True)
        declared = list(places())
    except UnsupportedReleaseError as error:
        advice = "`vllm-eplb explain --release VERSION` tells of each release."
        raise ExplainError(f"{error}\n{advice}") from error
    except Exception as error:  # whatever vLLM or torch raise when imported is the answer
        raise ExplainError(why_not_imported("vLLM", describe(error))) from error
    found = installed_distribution()
    every = _explained(declared, support.release)
    return Explanation(
        vllm=support.installed,
        release=support.release,
        tested=support.tested,
        installed=None if found is None else " ".join(found),
        overrides=tuple(one for one in every if kind in (None, one.kind)),
    )


def _explained(declared: list[Place], release: str) -> list[ExplainedOverride]:
    by_override: dict[Override, list[Place]] = {}
    for place in declared:
        if is_among(release, place.override.releases):
            by_override.setdefault(place.override, []).append(place)
    return [
        ExplainedOverride(
            target=override.target,
            kind=override.kind,
            room=found[0].room,
            bound_when=tuple(dict.fromkeys(map(_bound_when, found))),
            fixes=override.fixes,
            releases=override.releases,
            elsewhere=_elsewhere(found[0], declared),
            delete_when=override.delete_when,
        )
        for override, found in by_override.items()
    ]


def _elsewhere(place: Place, declared: list[Place]) -> tuple[str, ...]:
    override = place.override
    others = (
        other.override.releases
        for other in declared
        if (other.override.target, other.setting) == (override.target, place.setting)
        and other.override.releases != override.releases
    )
    return tuple(dict.fromkeys(others))


def _bound_when(place: Place) -> str:
    if place.setting is not None:
        return f"a loopback worker starts with {place.setting}"
    return MOMENTS[place.moment]
