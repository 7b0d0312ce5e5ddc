# SPDX-License-Identifier: Apache-2.0
"""What the name of an arm says, in the commands that make up their own servers."""

from eval.config.schema import BASELINE

BALANCED = "balanced"
"""Without EPLB, and each token goes to experts by chance: the most that balance is worth."""
WARM = "warm"
"""The plugin's, with experts where a recording has them from the start, and no rearrangement."""


class ServedName(str):
    """The name of an arm, of latency or of throughput."""

    @property
    def stock(self) -> bool:
        """Whether its EPLB is vLLM's own."""
        return self.startswith("stock-")

    @property
    def plugin(self) -> bool:
        """Whether its EPLB is the plugin's."""
        return self not in (BASELINE, BALANCED) and not self.stock

    @property
    def incremental(self) -> bool:
        """Whether it plans by the plugin's policy of that name, not as vLLM does."""
        return self.endswith("-incremental")

    @property
    def mode(self) -> str:
        """Of its EPLB."""
        return self.removeprefix("stock-").removesuffix("-incremental")
