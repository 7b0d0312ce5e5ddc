# SPDX-License-Identifier: Apache-2.0
"""Loads and placements as other projects write them (docs/recording.md); no pickle is read.

Written from descriptions of these projects. `format_names` has their names.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vllm_eplb_plugin.recording.placement_rows import (
    placement_by_layer,
    placement_of,
    refuse_invalid,
)
from vllm_eplb_plugin.recording.recording import RecordingError

_PICKLES = (".pt", ".pth", ".pkl", ".pickle", ".bin")


@dataclass(frozen=True)
class Held:
    """What one file of another project holds of one model."""

    model: str
    """Empty: the file does not say."""
    load: NDArray[np.int64] | None = None
    """``[layers, logical]``: tokens over all ranks and all the time; None: it holds none."""
    placement: NDArray[np.int64] | None = None
    """``[layers, slots]``; None: it holds none."""

    def __post_init__(self) -> None:
        if self.load is None and self.placement is None:
            raise RecordingError("neither a load nor a placement is in it")
        if self.load is not None and self.placement is not None:
            if len(self.load) != len(self.placement):
                layers = f"{len(self.load)} layers, its placement {len(self.placement)}"
                raise RecordingError(f"its load has {layers}")
            refuse_invalid(self.placement, self.load.shape[1])


class Format(NamedTuple):
    """How a kind of file is read and written."""

    read: Callable[[Path], list[Held]]
    write: Callable[[Held, Path, int], None]
    """The last is the number of the first MoE layer among all layers of the model."""


def read_held(file: Path) -> list[Held]:
    """Read a file of another project; its kind is found by its suffix and keys.

    Raises:
        RecordingError: It is of no known kind, or breaks a rule of its kind.
    """
    if file.suffix in _PICKLES:
        raise RecordingError(
            f"{file}: a {file.suffix} file is a pickle, which runs code when it is read. Write "
            "JSON or safetensors instead"
        )
    try:
        return FORMATS[_kind_of(file)].read(file)
    except RecordingError as error:
        raise RecordingError(f"{file}: {error}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise RecordingError(f"{file}: it cannot be read: {error}") from error


def _kind_of(file: Path) -> str:
    if file.suffix == ".safetensors":
        return "vllm"
    if file.suffix in (".yaml", ".yml"):
        return "tensorrt-llm"
    keys = set(_json_object(file))
    if "logical_count" in keys:
        return "sglang"
    return "hygon" if "model_maps" in keys else "expert-map"


def _json_object(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RecordingError(f"it is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise RecordingError("it is no JSON object")
    return content


def _loads(numbers: ArrayLike) -> NDArray[np.int64]:
    """Check loads of any dtype; fractions of a token are rounded."""
    try:
        loads = np.asarray(numbers, np.float64)
    except (TypeError, ValueError) as error:
        raise RecordingError(f"its load is no [layers][experts] of numbers: {error}") from error
    if loads.ndim != 2 or 0 in loads.shape:
        raise RecordingError(f"its load has the shape {list(loads.shape)}, not [layers, experts]")
    wrong = ~np.isfinite(loads) | (loads < 0) | (loads >= 2.0**63)
    if wrong.any():
        layer, expert = np.argwhere(wrong)[0]
        raise RecordingError(
            f"layer {layer}: the load of expert {expert} is {loads[layer, expert]}, no number of "
            "tokens"
        )
    return np.rint(loads).astype(np.int64)


def _read_vllm(file: Path) -> list[Held]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="numpy") as opened:
            if (version := (opened.metadata() or {}).get("version")) != "1":
                raise RecordingError(f'its metadata have version {version!r}, not "1"')
            tensors = [(name, opened.get_tensor(name)) for name in opened.keys()]  # noqa: SIM118
    except SafetensorError as error:
        raise RecordingError(f"it cannot be read: {error}") from error
    return [Held(name, _loads(tensor)) for name, tensor in tensors]


def _write_vllm(held: Held, file: Path, first_layer: int) -> None:
    from safetensors.numpy import save_file

    save_file({held.model: _load_of(held).astype(np.float32)}, file, {"version": "1"})


def _read_sglang(file: Path) -> list[Held]:
    count = np.asarray(_json_object(file)["logical_count"], object)
    if count.ndim == 3:  # one for each of several moments
        count = count.sum(axis=0)
    loads = _loads(count)
    # Its rows are all layers of the model, also those without experts.
    if not (has_experts := loads.any(axis=1)).any():
        raise RecordingError("logical_count is 0 everywhere")
    return [Held("", loads[has_experts])]


def _write_sglang(held: Held, file: Path, first_layer: int) -> None:
    load = np.pad(_load_of(held), ((first_layer, 0), (0, 0)))
    _write_json(file, {"logical_count": load.tolist()})


def _read_expert_map(file: Path) -> list[Held]:
    return [Held("", placement=placement_by_layer(_json_object(file)))]


def _write_expert_map(held: Held, file: Path, first_layer: int) -> None:
    _write_json(file, {str(n): row for n, row in _numbered(held, first_layer)})


def _read_hygon(file: Path) -> list[Held]:
    maps = _json_object(file)["model_maps"]
    if not isinstance(maps, dict) or not all(isinstance(one, dict) for one in maps.values()):
        raise RecordingError("model_maps are no {MODEL: {...}}")
    return [
        Held(
            model,
            _loads(one["counts"]) if one.get("counts") is not None else None,
            placement_of(rows)
            if (rows := one.get("physical_to_logical_map")) is not None
            else None,
        )
        for model, one in maps.items()
    ]


def _write_hygon(held: Held, file: Path, first_layer: int) -> None:
    written: dict[str, Any] = {"record_kind": "logical"}
    if held.load is not None:
        written["counts"] = held.load.tolist()
    if held.placement is not None:
        written["physical_to_logical_map"] = held.placement.tolist()
    _write_json(file, {"version": 2, "model_maps": {held.model: written}})


def _read_tensorrt_llm(file: Path) -> list[Held]:
    import yaml

    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise RecordingError(f"it is no YAML: {error}") from error
    rows = content.get("initial_global_assignments") if isinstance(content, dict) else None
    placement = placement_by_layer(rows)
    if content.get("num_slots") != placement.shape[1]:
        slots = placement.shape[1]
        raise RecordingError(f"num_slots is {content.get('num_slots')}, its layers have {slots}")
    return [Held("", placement=placement)]


def _write_tensorrt_llm(held: Held, file: Path, first_layer: int) -> None:
    lines = [f"  {number}: {row}\n" for number, row in _numbered(held, first_layer)]
    slots = len(_numbered(held, first_layer)[0][1])
    head = f"num_slots: {slots}\ninitial_global_assignments:\n"
    file.write_text(head + "".join(lines), encoding="utf-8")


def _numbered(held: Held, first_layer: int) -> list[tuple[int, list[int]]]:
    if held.placement is None:
        raise RecordingError("there is no placement in it")
    return list(enumerate(held.placement.tolist(), start=first_layer))


def _load_of(held: Held) -> NDArray[np.int64]:
    if held.load is None:
        raise RecordingError("there is no load in it")
    return held.load


def _write_json(file: Path, content: object) -> None:
    file.write_text(json.dumps(content, separators=(",", ":")) + "\n", encoding="utf-8")


FORMATS = {
    "vllm": Format(_read_vllm, _write_vllm),
    "sglang": Format(_read_sglang, _write_sglang),
    "hygon": Format(_read_hygon, _write_hygon),
    "expert-map": Format(_read_expert_map, _write_expert_map),
    "tensorrt-llm": Format(_read_tensorrt_llm, _write_tensorrt_llm),
}
