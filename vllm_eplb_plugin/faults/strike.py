# SPDX-License-Identifier: Apache-2.0
"""When a fault strikes that breaks one rank, once."""

import functools
import logging
import time
from collections.abc import Callable
from typing import Any

from vllm_eplb_plugin.fault_settings import FaultOptions
from vllm_eplb_plugin.overrides.override import Override

logger = logging.getLogger("vllm.eplb_plugin")


class Strike:
    """Knows by the setting ``fault_when`` whether a fault strikes here and now.

    It strikes in the rearrangement with that number, or in the first later one in which it can, as
    when the plan changes nothing before.
    """

    def __init__(self) -> None:
        self._session: Any = None
        self._struck_in: int | None = None
        self._counted_in = 0
        self._layers = 0
        self._layer: object = None

    def _follow(self, original: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(original)
        def attach(session: Any, state: Any) -> None:
            self.__init__()  # type: ignore[misc]
            self._session = session
            original(session, state)

        return attach

    def override(self) -> Override:
        """Make the override by which it learns where it is."""
        return Override(
            target="vllm_eplb_plugin.engine.session:Session.attach",
            signature="(self, state)",
            kind="break",
            replace=self._follow,
            fixes="The fault learns on which rank it is, and in which rearrangement.",
            delete_when="Never.",
        )

    @property
    def due(self) -> FaultOptions | None:
        """The options of a fault that strikes from now on; None: elsewhere, later, or it has."""
        if self._session is None or self._struck_in is not None:
            return None
        when: FaultOptions = self._session.settings.fault_when
        here = self._session.source.rank == when.rank
        return when if here and self._number >= when.rearrangement else None

    def once(self) -> FaultOptions | None:
        """Take note that it strikes now; None: it does not."""
        if (when := self.due) is not None:
            self._struck_in = self._number
            logger.warning(
                "EPLB breaks as ordered: %s on EP rank %d, in rearrangement %d, at %.3f.",
                self._session.settings.fault,
                when.rank,
                self._number,
                time.time(),
            )
        return when

    def in_layer(self, number: int, layer: object) -> FaultOptions | None:
        """Strike once, in the layer of a rearrangement with this number among those that come here.

        Args:
            number: From 1 on.
            layer: What is another object for another layer: one may come twice.
        """
        if self._counted_in != self._number:
            self._counted_in, self._layers, self._layer = self._number, 0, None
        if layer is not self._layer:
            self._layer, self._layers = layer, self._layers + 1
        return self.once() if self._layers == number else None

    def throughout(self) -> FaultOptions | None:
        """Strike, and go on until the rearrangement ends."""
        if self._struck_in == self._number:
            when: FaultOptions = self._session.settings.fault_when
            return when
        return self.once()

    @property
    def _number(self) -> int:
        number: int = self._session.rearrangements.number if self._session is not None else 0
        return number
