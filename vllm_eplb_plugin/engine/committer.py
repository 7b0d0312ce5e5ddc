# SPDX-License-Identifier: Apache-2.0
"""Make a placement visible: one map to the device, the other two derived there, in place."""

from typing import TYPE_CHECKING, Any

import torch

from vllm_eplb_plugin.engine.pinned_memory import Staging
from vllm_eplb_plugin.placement.derive import check_maps, derive_into, is_compiled, kernel_for
from vllm_eplb_plugin.placement.fast_way import FastWay, describe
from vllm_eplb_plugin.placement.maps import ALL_LAYERS, derive_logical_maps

if TYPE_CHECKING:
    from vllm_eplb_plugin.placement.kernels import CudaLaunch

_LAYERS_QUEUED, _MAPS_QUEUED = 32, 1
"""Commits that may always be queued without a wait: async commits one layer a step."""

_WHOLE_DTYPE = torch.int16
"""A quarter of the memory to write, and no model has 32,768 experts in a layer."""

_NOTHING = -7
"""In maps that are to be written: neither a slot nor an expert."""


class CommitError(RuntimeError):
    """A commit did not write what it should have written."""


class Committer:
    """A committer writes placements of one model into the tensors that it reads; addresses stay.

    On CUDA the host neither waits nor allocates. It writes the placement into pinned memory and
    launches one kernel, which reads it there, on the current stream: the one that the model runs
    on. Other accelerators get a copy and the same kernel by Triton's own launcher.
    """

    def __init__(
        self,
        physical_to_logical_map: torch.Tensor,
        logical_to_physical_map: torch.Tensor,
        logical_replica_count: torch.Tensor,
    ) -> None:
        """Take the tensors to write, and compile what has to be.

        Args:
            physical_to_logical_map: ``[layers, physical]``.
            logical_to_physical_map: ``[layers, logical, width]``.
            logical_replica_count: ``[layers, logical]``.

        Raises:
            ValueError: They cannot be written; see `check_maps`.
        """
        self.maps = (physical_to_logical_map, logical_to_physical_map, logical_replica_count)
        check_maps(*self.maps)
        self._shape = physical_to_logical_map.shape
        self._row = self._shape[1:]
        self._kernel = kernel_for(*self.maps)
        self._launches = self._cuda_launches()
        if self._launches is not None:
            dtype, device = physical_to_logical_map.dtype, physical_to_logical_map.device.type
            self._rows = Staging(self._row, dtype, device, half=_LAYERS_QUEUED)
            self._wholes = Staging(self._shape, _WHOLE_DTYPE, device, half=_MAPS_QUEUED)

    def _cuda_launches(self) -> "tuple[CudaLaunch, CudaLaunch] | None":
        """Of one layer's and of a whole placement in pinned memory; None: Triton launches."""
        if self._kernel is None or torch.version.cuda is None:
            return None
        problem, launches = None, None
        try:
            launches = (
                self._kernel.compile(self.maps[0].dtype),
                self._kernel.compile(_WHOLE_DTYPE),
            )
        except Exception as error:  # of the driver, or of a Triton that keeps its kernels otherwise
            problem = describe(error)
        way = FastWay("launches by the driver", "EPLB commits by Triton's own launcher", problem)
        return launches if way.is_open() else None

    @property
    def way(self) -> str:
        """The way in which commits are made, in a few words."""
        if self._launches is not None:
            return "Triton kernel, launched by the driver"
        if self._kernel is not None:
            return "Triton kernel"
        return "numba" if self.maps[0].is_cpu and is_compiled() else "torch operations"

    def commit(self, new: torch.Tensor, layer: int | None = None) -> None:
        """Make a placement visible.

        Args:
            new: ``[layers, physical]``, or one layer's ``[physical]``; validated.
            layer: Which layer; None: all of them.

        Raises:
            ValueError: The number of slots is not that of the placement in force.
        """
        shape = self._shape if layer is None else self._row
        if new.shape != shape:
            raise ValueError(
                f"a placement of shape {list(new.shape)} cannot be committed over one of shape "
                f"{list(shape)}: the number of slots must stay"
            )
        if self._launches is not None and new.is_cpu:
            launch_row, launch_whole = self._launches
            if layer is None:
                launch_whole(self._wholes.put(new), ALL_LAYERS)
                self._wholes.queued()
            else:
                launch_row(self._rows.put(new), layer)
                self._rows.queued()
        else:
            target = self.maps[0] if layer is None else self.maps[0][layer]
            if new.is_cpu and not target.is_cpu:
                new = new.pin_memory()
            target.copy_(new, non_blocking=True)
            if self._kernel is not None:
                self._kernel.derive(layer)
            else:
                derive_into(*self.maps, layer)

    def commit_again(self) -> None:
        """Commit the placement in force, whole and layer by layer, and check what the model reads.

        Nothing changes in the end, but whatever is compiled on first use is; and a launch that this
        Triton or driver takes otherwise is found before the model is served. The host waits.

        Raises:
            CommitError: The maps are not what torch derives.
        """
        placement, l2p, counts = self.maps
        in_force = placement.cpu().clone()  # on a CPU this would be the map itself
        derived = derive_logical_maps(in_force, *l2p.shape[-2:])
        for way in ("whole", "layer by layer"):
            for tensor in self.maps:
                tensor.fill_(_NOTHING)
            if way == "whole":
                self.commit(in_force)
            else:
                for layer, row in enumerate(in_force):
                    self.commit(row, layer)
            seen = (tensor.cpu() for tensor in (placement, l2p, counts))
            if not all(map(torch.equal, seen, (in_force, *derived))):
                raise CommitError(
                    f"a placement of {len(in_force)} layers committed {way} on {placement.device} "
                    "differs from what torch derives from it. Please report the releases of vLLM, "
                    "torch and Triton; without Triton the plugin commits by torch operations"
                )


def resize_placement(model_state: Any, slots: int) -> None:
    """Make room for a placement of another number of slots: elastic EP grows and shrinks."""
    current = model_state.physical_to_logical_map
    if current.shape[1] == slots:
        return
    if hasattr(model_state, "physical_to_logical_map_buffer"):  # 0.30 and later
        model_state.physical_to_logical_map = model_state.physical_to_logical_map_buffer[:, :slots]
    else:
        model_state.physical_to_logical_map = current.new_empty((current.shape[0], slots))
