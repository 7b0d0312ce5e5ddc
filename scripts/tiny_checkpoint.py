# SPDX-License-Identifier: Apache-2.0
"""The files of a small checkpoint, as they are on the hub."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tiny_tokenizer import END_TOKEN, UNKNOWN_TOKEN
from tokenizers import Tokenizer

JSON_NAMES = ("config.json", "generation_config.json", "tokenizer_config.json")
FILE_NAMES = (*JSON_NAMES, "tokenizer.json", "model.safetensors")


def write_checkpoint(
    folder: Path,
    config: Mapping[str, Any],
    tokenizer: Tokenizer,
    tensors: Mapping[str, torch.Tensor],
) -> None:
    """Write everything a server needs into an existing folder: the files of `FILE_NAMES`."""
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": UNKNOWN_TOKEN,
        "eos_token": END_TOKEN,
        "pad_token": END_TOKEN,
        "model_max_length": config["max_position_embeddings"],
        "clean_up_tokenization_spaces": False,
    }
    generation_config = {"eos_token_id": config["eos_token_id"], "do_sample": False}
    contents = (config, generation_config, tokenizer_config)
    for name, content in zip(JSON_NAMES, contents, strict=True):
        (folder / name).write_text(json_text(content), encoding="utf-8")
    tokenizer.save(str(folder / "tokenizer.json"))
    weights = folder / "model.safetensors"
    save_file(dict(tensors), weights, metadata={"format": "pt"})
    # safetensors makes it readable by its owner alone.
    weights.chmod((folder / "tokenizer.json").stat().st_mode)


def json_text(content: Mapping[str, Any]) -> str:
    """As the JSON files of a checkpoint are written."""
    return json.dumps(content, indent=2) + "\n"
