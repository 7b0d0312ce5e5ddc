# SPDX-License-Identifier: Apache-2.0
"""What a model begins to serve from: loads to plan from, or a placement, of an earlier server."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vllm_eplb_plugin.recording.placement_file import UNKNOWN_RANKS
from vllm_eplb_plugin.recording.recording import Recording, Shape

Integers: TypeAlias = NDArray[np.int64]


class InitialError(ValueError):
    """A model cannot begin with what was recorded; the message says why."""


@dataclass(frozen=True)
class Initial:
    """An initial is what one model can begin with: loads or a placement."""

    model: str
    """As the server that was recorded called it."""
    model_index: int
    """0: the model that was served; 1 and above: drafters."""
    shape: Shape
    windows: int
    """Load windows that `load` is the sum of; 0: there is a placement and no load."""
    rows: Sequence[Sequence[int]]
    """For each layer, tokens of each logical expert, or the logical expert of each slot."""

    def __post_init__(self) -> None:
        width = self.shape.experts if self.windows else self.shape.slots
        if len(self.rows) != self.shape.layers or any(len(row) != width for row in self.rows):
            raise ValueError(f"{self.model}: rows that are not {self.shape.layers} of {width}")

    @property
    def load(self) -> Integers | None:
        """``[layers, logical]`` tokens; None: there is a placement."""
        return np.array(self.rows, np.int64) if self.windows else None

    @property
    def placement(self) -> Integers | None:
        """``[layers, slots]``; None: there is a load to plan from."""
        return None if self.windows else np.array(self.rows, np.int64)

    def to_json(self) -> dict[str, Any]:
        """Say it in what JSON can hold."""
        return asdict(self)

    @classmethod
    def of_json(cls, said: Mapping[str, Any]) -> "Initial":
        """Read what `to_json` said."""
        return cls(**{**said, "shape": Shape(**said["shape"])})


def initials_of(recordings: Iterable[Recording], last: int | None = None) -> list[Initial]:
    """Add up load windows of each model, or take its last placement where there are none.

    Args:
        recordings: Of several models, and of several starts of a server, the older ones first,
            which may have had other ranks and slots.
        last: How many of a model's windows count, the last ones; None: all.

    Raises:
        InitialError: A model has neither, or a layer of it no load.
    """
    by_model: dict[tuple[Any, ...], list[Recording]] = {}
    for recording in recordings:
        served = recording.served
        shape = served.shape.layers, served.shape.experts
        key = (base_name(served.model), served.model_index, shape)
        by_model.setdefault(key, []).append(recording)
    return [_initial_of(starts, last) for starts in by_model.values()]


def _initial_of(starts: Sequence[Recording], last: int | None) -> Initial:
    served = starts[-1].served
    shape = served.shape
    windows = [window for start in starts for window in start.windows]
    windows = windows if last is None else windows[-last:]
    if windows:
        rows = np.zeros((shape.layers, shape.experts), np.int64)
        for window in windows:
            rows += window.load
        for layer in np.flatnonzero(rows.sum(axis=1) == 0):
            raise InitialError(f"{served.model}: layer {layer} has no load")
    else:
        placements = [one for start in starts for one in start.placements]
        if not placements:
            raise InitialError(f"{served.model}: it has neither a load window nor a placement")
        rows = placements[-1].physical_to_logical
    return Initial(served.model, served.model_index, shape, len(windows), rows.tolist())


def initial_for(
    initials: Iterable[Initial], model: str, model_index: int, any_name: bool
) -> Initial | None:
    """Find what is there for a served model.

    Args:
        initials: Of all models that were recorded.
        model: The name that vLLM gives the model, or the path of its files.
        model_index: 0: the model that is served; 1 and above: drafters.
        any_name: Whether only the index counts, as it has to where the file names no model.

    Returns:
        None where nothing was recorded of a drafter, which keeps vLLM's first placement then.

    Raises:
        InitialError: It is of other models only, or of several that could be meant.
    """
    of_index = [initial for initial in initials if initial.model_index == model_index]
    found = [one for one in of_index if any_name or base_name(one.model) == base_name(model)]
    if len(found) > 1:
        raise InitialError(f"it has {len(found)} models that {model} may be")
    if found:
        return found[0]
    if of_index or model_index == 0:
        names = {one.model or "a model that it does not name" for one in of_index}
        known = ", ".join(sorted(names)) or "drafters only"
        raise InitialError(
            f"it is of {known}, and {model} is served: if that is the same model, write "
            '{"path": ..., "any_name": true}'
        )
    return None


def require_fit(initial: Initial, layers: int, experts: int, slots: int, ranks: int) -> None:
    """Require that a served model is of the shape that was recorded, as far as it matters.

    Args:
        initial: What the model is to begin with.
        layers: MoE layers of the served model.
        experts: Logical experts of each.
        slots: Physical experts of each.
        ranks: EP ranks.

    Raises:
        InitialError: It has another number of layers or experts; or a placement is of another
            number of slots or ranks, where a load could have been planned from.
    """
    shape = initial.shape
    pairs = [("MoE layers", shape.layers, layers), ("logical experts", shape.experts, experts)]
    if not initial.windows:
        pairs.append(("slots", shape.slots, slots))
        if shape.ranks != UNKNOWN_RANKS:
            pairs.append(("EP ranks", shape.ranks, ranks))
    for what, recorded, served in pairs:
        if recorded != served:
            kind = "loads are" if initial.windows else "the placement is"
            raise InitialError(
                f"{initial.model or 'unnamed'}: {kind} of {recorded} {what}, and {served} are "
                "served"
            )


def base_name(model: str) -> str:
    """Reduce a model's name or path to what stays when it is downloaded elsewhere.

    Same: ``org/Some-MoE``, ``/models/Some-MoE/``, the Hub's ``models--org--Some-MoE/snapshots/1f``,
    and, for a drafter of vLLM 0.32 and later, ``org/Some-MoE (draft)``.
    """
    parts = [part for part in re.split(r"[/\\]", model.removesuffix(" (draft)")) if part]
    for part in parts:
        if part.startswith("models--"):
            return part.rpartition("--")[2].casefold()
    return parts[-1].casefold() if parts else ""
