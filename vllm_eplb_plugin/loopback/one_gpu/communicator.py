# SPDX-License-Identifier: Apache-2.0
"""vLLM's device communicator of ranks that share a GPU."""

from typing import Any

import torch
from vllm.distributed.device_communicators.all2all import AgRsAll2AllManager
from vllm.distributed.device_communicators.base_device_communicator import DeviceCommunicatorBase

from vllm_eplb_plugin.loopback.one_gpu.host_collectives import gather_rows, sum_over_ranks


class StagedCommunicator(DeviceCommunicatorBase):  # type: ignore[misc]
    """This stands for vLLM's `CudaCommunicator`, with the collectives of `host_collectives`."""

    def __init__(self, *args: Any, tcp_store_group: Any = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.use_all2all:
            self.all2all_manager = AgRsAll2AllManager(self.cpu_group, tcp_store_group)

    def all_reduce(self, input_: torch.Tensor) -> torch.Tensor:
        """Return the sum over ranks, in a new tensor."""
        return sum_over_ranks(input_, self.cpu_group)

    def all_gather(self, input_: torch.Tensor, dim: int = -1) -> torch.Tensor:
        """Return every rank's tensor, concatenated along ``dim``."""
        rows = input_.movedim(dim, 0)
        (whole,) = gather_rows([rows], [rows.shape[0]] * self.world_size, self.cpu_group)
        return whole.movedim(0, dim).contiguous()

    def all_gatherv(
        self,
        input_: torch.Tensor | list[torch.Tensor],
        dim: int = 0,
        sizes: list[int] | None = None,
    ) -> torch.Tensor | list[torch.Tensor]:
        """Return every rank's rows, of which each may have another number."""
        assert dim == 0, f"experts' tokens are gathered along dimension 0, not {dim}"
        tensors = input_ if isinstance(input_, list) else [input_]
        sizes = sizes or [tensors[0].shape[0]] * self.world_size
        gathered = gather_rows(tensors, sizes, self.cpu_group)
        return gathered if isinstance(input_, list) else gathered[0]

    def reduce_scatter(self, input_: torch.Tensor, dim: int = -1) -> torch.Tensor:
        """Return this rank's equal share, along ``dim``, of the sum over ranks."""
        total = sum_over_ranks(input_.movedim(dim, 0).contiguous(), self.cpu_group)
        share = total.chunk(self.world_size)[self.rank_in_group]
        return share.movedim(0, dim).contiguous()

    def reduce_scatterv(
        self, input_: torch.Tensor, dim: int = -1, sizes: list[int] | None = None
    ) -> torch.Tensor:
        """Return this rank's rows of the sum over ranks."""
        assert dim == 0, f"experts' tokens are scattered along dimension 0, not {dim}"
        sizes = sizes or [input_.shape[0] // self.world_size] * self.world_size
        total = sum_over_ranks(input_, self.cpu_group)
        return torch.split(total, sizes)[self.rank_in_group].contiguous()

    def dispatch_router_logits(self, *args: Any, **kwargs: Any) -> Any:
        """Return every rank's tokens and router logits."""
        return self.all2all_manager.dispatch_router_logits(*args, **kwargs)

    def dispatch(self, *args: Any, **kwargs: Any) -> Any:
        """Return every rank's tokens, chosen experts and their weights."""
        return self.all2all_manager.dispatch(*args, **kwargs)

    def combine(self, *args: Any, **kwargs: Any) -> Any:
        """Return what all ranks' experts made of this rank's tokens."""
        return self.all2all_manager.combine(*args, **kwargs)
