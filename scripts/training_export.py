# SPDX-License-Identifier: Apache-2.0
"""What a training leaves: a checkpoint as on the hub, its loss curve, and a record of it."""

import hashlib
from dataclasses import asdict
from pathlib import Path

import matplotlib
import torch
import transformers
from moe_training import History, Training
from tiny_checkpoint import json_text, write_checkpoint
from training_model import hub_tensors

matplotlib.use("Agg")


def export(training: Training, output: Path) -> None:
    """Write the checkpoint, the loss curve and what was done."""
    output.mkdir(parents=True, exist_ok=True)
    tensors = hub_tensors(training.model.state_dict())
    write_checkpoint(output, training.options.config(), training.source.tokenizer, tensors)
    plot(training.history, output / "training.png")
    accuracy = training.history.accuracy[-1][1]
    texts = {"texts": dict(training.source.texts)} if training.source.texts else {}
    on_gpu = training.computing.device == "cuda"
    record = {
        "options": asdict(training.options),
        **texts,
        "device": torch.cuda.get_device_name() if on_gpu else "CPU",
        "dtype": str(training.computing.dtype).removeprefix("torch."),
        "experts": training.computing.experts,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "seconds": round(training.history.seconds, 1),
        "parameters": sum(one.numel() for one in training.model.parameters()),
        "final_loss": training.history.loss[-1][1],
        "held_out_accuracy": accuracy if len(accuracy) > 1 else next(iter(accuracy.values())),
        "model.safetensors": _sha256(output / "model.safetensors"),
    }
    (output / "training.json").write_text(json_text(record), encoding="utf-8")


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        while block := opened.read(1 << 24):
            digest.update(block)
    return digest.hexdigest()


def plot(history: History, file: Path) -> None:
    """Draw loss and held-out accuracy over steps."""
    from matplotlib import pyplot

    figure, (upper, lower) = pyplot.subplots(2, sharex=True, figsize=(7, 5), layout="constrained")
    upper.semilogy(*zip(*history.loss, strict=True), linewidth=1)
    upper.set_ylabel("training loss")
    domains = list(history.accuracy[-1][1])
    for domain in domains:
        points = [(step, accuracy[domain]) for step, accuracy in history.accuracy]
        lower.plot(*zip(*points, strict=True), marker=".", label=domain)
    lower.set(ylabel="held-out answers right", xlabel="step", ylim=(0, 1))
    if len(domains) > 1:
        lower.legend()
    for one in (upper, lower):
        one.grid(alpha=0.3)
    figure.savefig(file, dpi=110)
    pyplot.close(figure)
