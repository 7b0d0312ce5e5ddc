# SPDX-License-Identifier: Apache-2.0
"""Both ranks load a LoRA adapter by the release's own worker manager, and a request names it."""

from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

from tests.releases.tiny_model import TinyModel
from tests.releases.two_ranks import LOGICAL, Job, new_state


def drive(job: Job, rank: int, config: Any) -> dict[str, Any]:
    """Load the adapter in the folder ``adapter``; without ``eplb`` there is no `EplbState`.

    On vLLM that reads an EP rank's experts only, the others' are left out, as with a real model.
    """
    import vllm.lora.worker_manager  # before the state, as in a worker
    from vllm.lora import lora_model
    from vllm.lora.request import LoRARequest

    if job.arguments.get("eplb", True):
        new_state([TinyModel(rank, 2, 3, LOGICAL, job.redundant, 0)], config)
    manager = vllm.lora.worker_manager.WorkerLoRAManager.__new__(
        vllm.lora.worker_manager.WorkerLoRAManager
    )
    manager.lora_config = MagicMock(max_lora_rank=8, lora_dtype=None, target_modules=None)
    manager.max_position_embeddings, manager.vocab_size = 64, 128
    manager._lora_model_cls = lora_model.LoRAModel
    names = [f"experts.{expert}.w1" for expert in range(LOGICAL)]
    spec = getattr(lora_model, "MoEEPLoadSpec", None)
    manager._adapter_manager = SimpleNamespace(
        supported_lora_modules=["qkv_proj", "experts"],
        packed_modules_mapping={"qkv_proj": ["q_proj"], "experts": names},
        model=SimpleNamespace(),
        moe_ep_load_spec=spec and spec(rank, LOGICAL // 2, LOGICAL),
        _validate_moe_lora_format=lambda _: None,
        _validate_classification_head_lora=lambda _: None,
    )
    request = LoRARequest("mine", 1, job.arguments["adapter"])
    return {"loaded": _ask(lambda: sorted(manager._load_adapter(request).loras))}


def _ask(do: Any) -> Any:
    try:
        return do()
    except ValueError as error:
        return str(error)
