# SPDX-License-Identifier: Apache-2.0
"""One model's transfers in the rearrangement under way, and what becomes of it if one fails.

Async: the worker catches the error and hands the layer over as if nothing had changed; the thread
that runs the model marks it (`engine.readiness`). Sync: all ranks learn of it after their pulls of
the layer (`engine.arrivals`). Either way, what is committed stays, and nothing else moves.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from vllm_eplb_plugin.engine.boards import Boards
from vllm_eplb_plugin.engine.watch import Watch
from vllm_eplb_plugin.transfer.layer_weights import LayerWeights
from vllm_eplb_plugin.transfer.surviving import LayerFailedError

logger = logging.getLogger("vllm.eplb_plugin")

_POLL_SECONDS = 0.05
_SECONDS_TO_BE_KNOWN = 3.0
"""How long a worker waits for the other ranks to know why its layer has not come."""


class ModelCarrier:
    """The carrier of a model: see `transfer.surviving.Carrier`."""

    def __init__(self, boards: Boards, layers: int) -> None:
        """Begin with nothing under way.

        Args:
            boards: Where threads say what they do.
            layers: MoE layers of the model.
        """
        self.watch: Watch | None = None
        self.given_up = False
        self.failure: str | None = None
        """What failed on this rank, or, once it is given up, on whichever did."""
        self.left: set[int] = set()
        """Sync mode: layers that keep the placement in force."""
        self._boards, self._layers = boards, layers

    def answer_for(self, layers: Sequence[LayerWeights]) -> None:
        """Answer for the transfers of these layers: where one fails, the placement in force stays.

        It cannot where ranks come and go, as under elastic EP.
        """
        for number, layer in enumerate(layers):
            layer.number, layer.carrier = number, self

    def begin(self) -> None:
        """Begin the next rearrangement."""
        self.given_up, self.failure, self.left = False, None, set()
        if self.watch is not None:
            self.watch.gives_up = None

    def without_what_is_left(self, old: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        """Return the placement that all ranks carried out: ``[layers, physical]`` on the CPU."""
        if not self.left:
            return new
        left = sorted(self.left)
        new = new.clone()
        new[left] = old.cpu().to(new.dtype)[left]
        return new

    @contextmanager
    def carrying(self, layer: int) -> Iterator[None]:
        """Show that a layer is under way."""
        board = self._boards.here
        board.enter("transfer", layer)
        yield
        # In sync mode the model's next layer follows, in async mode the worker hands it over.
        board.enter("waiting for ranks", layer)

    def survives(self, layer: int, error: Exception) -> bool:
        """Take note of a transfer that failed on this rank, and in sync mode on all of them."""
        if self._boards.is_worker:
            named = isinstance(error, LayerFailedError)
            what = str(error) if named else f"{type(error).__name__}: {error}"
            self.failure = f"the transfer of layer {layer} failed, {what}"
            logger.error("EPLB: %s. The rearrangement under way is given up.", self.failure)
            self._let_know(self.failure)
            return True
        if not isinstance(error, LayerFailedError):
            return False  # others may wait for this rank in vLLM's communicator
        self.failure = f"the transfer of layer {layer} failed, {error}"
        self.given_up, self.left = True, set(range(layer, self._layers))
        return True

    def _let_know(self, reason: str) -> None:
        """Wait until others can say why, before they learn that."""
        if self.watch is None:
            return
        self.watch.gives_up = reason
        since, end = time.monotonic(), time.monotonic() + _SECONDS_TO_BE_KNOWN
        while not self.watch.is_known(reason, since) and time.monotonic() < end:
            time.sleep(_POLL_SECONDS)
