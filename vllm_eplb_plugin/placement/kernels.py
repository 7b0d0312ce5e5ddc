# SPDX-License-Identifier: Apache-2.0
"""`maps.derive_logical_maps` for CUDA, ROCm and XPU: one Triton kernel, in place."""

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl

from vllm_eplb_plugin.placement.maps import ALL_LAYERS, EMPTY_SLOT

_EMPTY: tl.constexpr = tl.constexpr(EMPTY_SLOT)
_TILE = 8192
"""Elements that a program compares at once: experts times slots."""
_WARPS = 8

_POINTERS = ["source", "placement", "l2p", "counts"]
_NUMBERS = [
    "first_layer",
    "num_physical",
    "source_stride",
    "placement_stride",
    "num_logical",
    "width",
]


# Whatever were specialized could have to be compiled again while serving.
@triton.jit(  # type: ignore[untyped-decorator]
    do_not_specialize=_NUMBERS, do_not_specialize_on_alignment=_POINTERS
)
def _derive(  # type: ignore[no-untyped-def]
    source,  # noqa: ANN001
    placement,  # noqa: ANN001
    l2p,  # noqa: ANN001
    counts,  # noqa: ANN001
    first_layer,  # noqa: ANN001
    num_physical,  # noqa: ANN001
    source_stride,  # noqa: ANN001
    placement_stride,  # noqa: ANN001
    num_logical,  # noqa: ANN001
    width,  # noqa: ANN001
    experts_block: tl.constexpr,
    slots_block: tl.constexpr,
    width_block: tl.constexpr,
) -> None:
    row = tl.program_id(0)
    block = tl.program_id(1)
    layer = (first_layer + row).to(tl.int64)
    slots = tl.arange(0, slots_block)
    is_slot = slots < num_physical
    held = tl.load(source + row.to(tl.int64) * source_stride + slots, mask=is_slot, other=_EMPTY)
    if block == 0:
        tl.store(placement + layer * placement_stride + slots, held, mask=is_slot)
    experts = block * experts_block + tl.arange(0, experts_block)
    is_expert = experts < num_logical
    is_replica = (held[None, :] == experts[:, None]) & is_expert[:, None]
    replica = tl.cumsum(is_replica.to(tl.int32), axis=1) - 1
    count = tl.sum(is_replica.to(tl.int32), axis=1)
    target = layer * num_logical + experts
    tl.store(counts + target, count, mask=is_expert)
    columns = (l2p + target * width)[:, None]
    every_slot = tl.broadcast_to(slots[None, :], [experts_block, slots_block])
    tl.store(columns + replica, every_slot, mask=is_replica & (replica < width))
    for start in range(0, width, width_block):
        column = (start + tl.arange(0, width_block))[None, :]
        is_unused = (column >= count[:, None]) & (column < width)
        tl.store(columns + column, _EMPTY, mask=is_unused & is_expert[:, None])


class Kernel:
    """A kernel for one model's maps, whose addresses and shapes stay.

    Each program writes the rows and counts of some logical experts of one layer, so every element
    is written once.
    """

    def __init__(
        self,
        physical_to_logical_map: torch.Tensor,
        logical_to_physical_map: torch.Tensor,
        logical_replica_count: torch.Tensor,
    ) -> None:
        """Choose the sizes of its blocks; the maps are as `check_maps` wants them."""
        self._maps = (physical_to_logical_map, logical_to_physical_map, logical_replica_count)
        self._layers, physical = physical_to_logical_map.shape
        logical, width = logical_to_physical_map.shape[1:]
        slots_block = triton.next_power_of_2(physical)
        experts_block = min(triton.next_power_of_2(logical), max(1, _TILE // slots_block))
        width_block = min(triton.next_power_of_2(width), _TILE // experts_block)
        self._blocks = triton.cdiv(logical, experts_block)
        strides = (physical, physical_to_logical_map.stride(0))
        self._arguments = (physical, *strides, logical, width)
        self._constants = (experts_block, slots_block, width_block)

    def derive(self, layer: int | None = None) -> None:
        """Derive what the placement on the device says; one layer or all."""
        placement = self._maps[0] if layer is None else self._maps[0][layer]
        grid = (self._layers if layer is None else 1, self._blocks)
        physical, _, stride, *numbers = self._arguments
        arguments = (*self._maps, layer or 0, physical, stride, stride, *numbers)
        _derive[grid](placement, *arguments, *self._constants, num_warps=_WARPS)

    def warm_up(self) -> None:
        """Compile for placements on the device; nothing is launched."""
        self._compile(self._maps[0].dtype)

    def compile(self, source: torch.dtype) -> "CudaLaunch":
        """Compile for placements in pinned host memory, so that only a launch is left to do.

        Args:
            source: The dtype of those placements, which may be narrower than that of the maps.
        """
        addresses = [tensor.data_ptr() for tensor in self._maps]
        grid = (self._layers, self._blocks)
        return CudaLaunch(self._compile(source), grid, addresses, self._arguments)

    def _compile(self, source: torch.dtype) -> Any:
        like = torch.empty(0, dtype=source, device=self._maps[0].device)
        arguments = (like, *self._maps, 0, *self._arguments, *self._constants)
        return _derive.warmup(*arguments, grid=(1,), num_warps=_WARPS)


class CudaLaunch:
    """A launch starts a compiled `_derive` by the driver's own call.

    Triton's launcher reads, for each launch, the types of all arguments, the current device and
    hooks, and lets other threads run meanwhile. In caches that a model's Python has just filled
    this takes longer than all the rest of a commit.
    """

    def __init__(
        self,
        compiled: Any,
        grid: tuple[int, int],
        addresses: Sequence[int],
        numbers: Sequence[int],
    ) -> None:
        """Lay out the arguments of the kernel.

        Args:
            compiled: Triton's ``CompiledKernel`` on the current device.
            grid: Layers, and blocks of logical experts.
            addresses: Of the three maps.
            numbers: The kernel's numbers after ``first_layer``.
        """
        compiled[(1, 1, 1)]  # loads it onto the device
        self._layers, self._blocks = grid
        self._source, self._layer = ctypes.c_void_p(), ctypes.c_int32()
        # Triton's kernels end with two addresses of scratch memory, which this one does not use.
        self._values = (
            self._source,
            *map(ctypes.c_void_p, addresses),
            self._layer,
            *map(ctypes.c_int32, numbers),
            ctypes.c_void_p(),
            ctypes.c_void_p(),
        )
        pointers = [ctypes.addressof(value) for value in self._values]
        self._parameters = (ctypes.c_void_p * len(pointers))(*pointers)
        self._function = compiled.function
        self._shared = compiled.metadata.shared
        self._device = torch.cuda.current_device()
        # Not CDLL: it would let the async worker's Python run before this thread goes on.
        self._launch = ctypes.PyDLL("libcuda.so.1").cuLaunchKernel
        self._launch.argtypes = (
            ctypes.c_void_p,
            *[ctypes.c_uint] * 7,
            *[ctypes.c_void_p] * 3,
        )

    def __call__(self, source: int, layer: int) -> None:
        """Queue the write of all three maps on the current stream.

        Args:
            source: Address of pinned memory, which the device reads: one layer's ``[physical]``, or
                ``[layers, physical]``.
            layer: The layer that it is, or `ALL_LAYERS`.

        Raises:
            RuntimeError: The driver refused.
        """
        layers = 1
        if layer == ALL_LAYERS:
            layers, layer = self._layers, 0
        self._source.value, self._layer.value = source, layer
        status = self._launch(
            self._function,
            layers,
            self._blocks,
            1,
            32 * _WARPS,
            1,
            1,
            self._shared,
            torch._C._cuda_getCurrentRawStream(self._device),
            self._parameters,
            None,
        )
        if status != 0:
            raise RuntimeError(f"cuLaunchKernel returned {status}: the placement is not committed")
