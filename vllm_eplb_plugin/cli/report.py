# SPDX-License-Identifier: Apache-2.0
"""What was found of an installation."""

from dataclasses import asdict, dataclass, field
from typing import Any

from vllm_eplb_plugin import __version__
from vllm_eplb_plugin.cli.hardware import Gpu
from vllm_eplb_plugin.cli.surroundings import Surroundings, look_around
from vllm_eplb_plugin.placement.fast_way import FastWay
from vllm_eplb_plugin.processor import Processor
from vllm_eplb_plugin.releases import RELEASES, Release


@dataclass(frozen=True)
class OverrideReport:
    """An override, and whether it fits the installed vLLM."""

    target: str
    bound_when: str
    fits: bool


@dataclass
class Report:
    """A report is what `vllm-eplb doctor` found."""

    plugin: str = __version__
    surroundings: Surroundings = field(default_factory=look_around)
    """Shown in JSON only."""
    releases: tuple[Release, ...] = RELEASES
    """The table of supported releases."""
    installed: str | None = None
    tested: bool = False
    on_cpu: bool = False
    """Whether the installed vLLM is built for the CPU."""
    processor: Processor | None = None
    """Where a build for the CPU would serve."""
    gpus: list[Gpu] = field(default_factory=list)
    """Those that a server would see."""
    deep_ep: str | None = None
    """Why DeepEP's all2all backends cannot be used; None: they can."""
    deep_ep_v2: str | None = None
    """Why ``deepep_v2`` cannot, which needs a later DeepEP than the others."""
    expert_weights: str | None = None
    """How they would get from rank to rank; None: nothing to run on was found."""
    planning: str | None = None
    """Policy and steps of the setting ``planning``, which planned something small; None: none."""
    overrides: list[OverrideReport] = field(default_factory=list)
    fast_ways: list[FastWay] = field(default_factory=list)
    """What makes EPLB faster, and why not here."""
    problems: list[str] = field(default_factory=list)
    """Each of them keeps the plugin from working."""
    hints: list[str] = field(default_factory=list)
    """Worth knowing, nothing to stop for."""

    @property
    def works(self) -> bool:
        """A server would start with the plugin."""
        return not self.problems

    def as_dict(self) -> dict[str, Any]:
        """Return the report as it is written to JSON."""
        return {"works": self.works, **asdict(self)}
