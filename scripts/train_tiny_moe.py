# SPDX-License-Identifier: Apache-2.0
"""Train gsm-tiny: a small DeepSeek-V2 that solves the problems of scripts/gsm_tiny_problems.py.

Stopped at any time, the same command goes on where it was. The same options give the same model
on the same kind of GPU with the same PyTorch.

    python scripts/train_tiny_moe.py --output eval/models/gsm-tiny
"""

import argparse
import json
import os
import pickle
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

# Read by cuBLAS when it starts; without it, matrix products may differ from run to run.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
# Each worker process tokenizes by itself.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import matplotlib
import torch
import transformers
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from tiny_checkpoint import json_text, write_checkpoint
from tiny_deepseek import Options as Shape
from tiny_deepseek import model_config
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gsm_tiny_model import build_model, hub_tensors
from gsm_tiny_sequences import VOCABULARY_SIZE, Example, Sequences, tokenizer_for_problems

matplotlib.use("Agg")

VALIDATION_SEED = 7
STATE_NAME = "state.pt"


class TrainingError(ValueError):
    """Training that cannot be done; the message says why and what to do."""


@dataclass(frozen=True)
class Options:
    """What determines the trained weights."""

    seed: int = 0
    steps: int = 1200
    batch_size: int = 128
    """Sequences."""
    sequence_length: int = 640
    """Tokens: a prompt with five solved problems, and the answer."""
    learning_rate: float = 3e-3
    """At its highest."""
    warmup_steps: int = 200
    weight_decay: float = 0.1
    layers: int = 6
    experts: int = 16
    experts_per_token: int = 4
    hidden_size: int = 192
    intermediate_size: int = 384
    moe_intermediate_size: int = 96

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "sequence_length", "warmup_steps"):
            if getattr(self, name) < 1:
                flag = "--" + name.replace("_", "-")
                raise TrainingError(f"{flag} is 1 or more, not {getattr(self, name)}")

    def config(self) -> dict[str, Any]:
        """The model's `config.json`.

        Raises:
            OptionError: A size that the model cannot have.
        """
        names = {one.name for one in fields(Shape)} & {one.name for one in fields(self)}
        shape = Shape(**{name: getattr(self, name) for name in names})
        return {**model_config(shape), "torch_dtype": "bfloat16", "vocab_size": VOCABULARY_SIZE}


@dataclass
class History:
    """What training showed, by step."""

    loss: list[tuple[int, float]] = field(default_factory=list)
    accuracy: list[tuple[int, float]] = field(default_factory=list)
    """Share of held-out answers of which every token is the likeliest one."""
    seconds: float = 0.0


def build_optimizer(model: Any, options: Options) -> torch.optim.AdamW:
    """AdamW that decays matrices only."""
    matrices = [one for one in model.parameters() if one.dim() > 1]
    others = [one for one in model.parameters() if one.dim() <= 1]
    groups = [
        {"params": matrices, "weight_decay": options.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=options.learning_rate, betas=(0.9, 0.95))


def learning_rate(options: Options, step: int) -> float:
    """Up in a line, then down to 0 along half a cosine."""
    warm = min(1.0, (step + 1) / options.warmup_steps)
    turn = torch.pi * step / options.steps
    return options.learning_rate * warm * 0.5 * (1 + float(torch.tensor(turn).cos()))


def forward(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    """Logits, float32 ``[sequences, length, vocabulary]``, computed in bfloat16."""
    with torch.autocast(tokens.device.type, dtype=torch.bfloat16):
        logits: torch.Tensor = model(input_ids=tokens, use_cache=False).logits
    return logits.float()


def training_step(
    model: Any, optimizer: torch.optim.AdamW, rate: float, batch: Example
) -> torch.Tensor:
    """Do one step, and return its loss without waiting for it."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    loss = cross_entropy(forward(model, batch.tokens).flatten(0, 1), batch.labels.flatten())
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.detach()


@torch.no_grad()
def validate(model: Any, batches: Iterator[Example]) -> float:
    """Share of answers that greedy decoding gives token by token as they are written."""
    right = total = 0
    for tokens, labels, answers in batches:
        wrong = (forward(model, tokens).argmax(-1) != labels) & (answers >= 0)
        for sequence, mistakes in zip(answers.tolist(), wrong.tolist(), strict=True):
            whole = set(sequence) - {-1}
            total += len(whole)
            right += len(whole - {one for one, bad in zip(sequence, mistakes, strict=True) if bad})
    return right / total


class Training:
    """One training run: model, optimizer, position and what it showed."""

    def __init__(self, options: Options, work: Path, device: str, workers: int) -> None:
        self.options = options
        self.work = work
        self.device = device
        self.workers = workers
        self.tokenizer = tokenizer_for_problems()
        self.model = build_model(options.config(), options.seed, device)
        self.optimizer = build_optimizer(self.model, options)
        self.history = History()
        self.step = 0

    def batches(self, sequences: Sequences, first: int, count: int) -> Iterator[Example]:
        """Batches ``first`` to ``first + count`` of a dataset, on the device."""
        size = self.options.batch_size
        loader = DataLoader(
            sequences,
            batch_size=size,
            sampler=range(first * size, (first + count) * size),
            num_workers=self.workers,
            pin_memory=self.device == "cuda",
        )
        for batch in loader:
            yield Example(*(one.to(self.device, non_blocking=True) for one in batch))

    def run(self, save_every: int, validate_every: int, validation_batches: int) -> None:
        """Train to the end."""
        options = self.options
        training = Sequences("train", options.seed, options.sequence_length, self.tokenizer)
        held_out = Sequences("held_out", VALIDATION_SEED, options.sequence_length, self.tokenizer)
        validation = list(self.batches(held_out, 0, validation_batches))
        # On a GPU half of a step's time goes by between kernels that a compiler joins.
        model = torch.compile(self.model) if self.device == "cuda" else self.model
        columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
        text = TextColumn("loss {task.fields[loss]:.4f}, held out {task.fields[accuracy]:.3f}")
        started = time.monotonic() - self.history.seconds
        with Progress(*columns, text) as progress:
            bar = progress.add_task(
                "training", total=options.steps, completed=self.step, loss=0.0, accuracy=0.0
            )
            for batch in self.batches(training, self.step, options.steps - self.step):
                rate = learning_rate(options, self.step)
                loss = training_step(model, self.optimizer, rate, batch)
                self.step += 1
                last = self.step == options.steps
                if self.step % 20 == 0 or last:
                    self.history.loss.append((self.step, float(loss)))
                    progress.update(bar, completed=self.step, loss=float(loss))
                if self.step % validate_every == 0 or last:
                    accuracy = validate(self.model, iter(validation))
                    self.history.accuracy.append((self.step, accuracy))
                    progress.update(bar, accuracy=accuracy)
                    if not progress.console.is_terminal:
                        progress.console.print(
                            f"step {self.step}: loss {float(loss):.4f}, held out {accuracy:.3f}"
                        )
                self.history.seconds = time.monotonic() - started
                if self.step % save_every == 0 or last:
                    self.save()

    def save(self) -> None:
        """Keep everything that going on needs."""
        state = {
            "options": asdict(self.options),
            "step": self.step,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "history": asdict(self.history),
        }
        partial = self.work / f"{STATE_NAME}.partial"
        torch.save(state, partial)
        partial.replace(self.work / STATE_NAME)

    def resume(self) -> None:
        """Take up what `save` kept, if anything.

        Raises:
            TrainingError: It is of other options, or cannot be read.
        """
        file = self.work / STATE_NAME
        if not file.exists():
            return
        try:
            state = torch.load(file, map_location=self.device, weights_only=True)
        except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
            raise TrainingError(f"cannot read {file}: {error}. Remove it to start anew") from error
        if state["options"] != asdict(self.options):
            raise TrainingError(
                f"{file} is of a training with other options ({state['options']}): give those, "
                "another --work, or remove it"
            )
        self.step = state["step"]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.history = History(**state["history"])

    def export(self, output: Path) -> None:
        """Write the checkpoint, the loss curve and what was done."""
        output.mkdir(parents=True, exist_ok=True)
        tensors = hub_tensors(self.model.state_dict())
        write_checkpoint(output, self.options.config(), self.tokenizer, tensors)
        plot(self.history, output / "training.png")
        device = torch.cuda.get_device_name() if self.device == "cuda" else "CPU"
        record = {
            "options": asdict(self.options),
            "device": device,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "seconds": round(self.history.seconds, 1),
            "parameters": sum(one.numel() for one in self.model.parameters()),
            "final_loss": self.history.loss[-1][1],
            "held_out_accuracy": self.history.accuracy[-1][1],
        }
        (output / "training.json").write_text(json_text(record), encoding="utf-8")


def plot(history: History, file: Path) -> None:
    """Draw loss and held-out accuracy over steps."""
    from matplotlib import pyplot

    figure, (upper, lower) = pyplot.subplots(2, sharex=True, figsize=(7, 5), layout="constrained")
    upper.semilogy(*zip(*history.loss, strict=True), linewidth=1)
    upper.set_ylabel("training loss")
    lower.plot(*zip(*history.accuracy, strict=True), marker=".")
    lower.set(ylabel="held-out answers right", xlabel="step", ylim=(0, 1))
    for one in (upper, lower):
        one.grid(alpha=0.3)
    figure.savefig(file, dpi=110)
    pyplot.close(figure)


def main(arguments: list[str] | None = None) -> int:
    """Train and write the checkpoint: 0; 2 for what cannot be done."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--output", type=Path, required=True, help="folder for the checkpoint")
    parser.add_argument("--work", type=Path, default=Path("build/gsm-tiny"), help="to resume from")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--workers", type=int, default=8, help="processes that make problems")
    parser.add_argument("--save-every", type=int, default=500, help="steps")
    parser.add_argument("--validate-every", type=int, default=250, help="steps")
    parser.add_argument("--validation-batches", type=int, default=2)
    for option in fields(Options):
        flag = "--" + option.name.replace("_", "-")
        parser.add_argument(flag, type=option.type, default=option.default, help="%(default)s")
    chosen = vars(parser.parse_args(arguments))
    try:
        options = Options(**{one.name: chosen[one.name] for one in fields(Options)})
        options.config()
        chosen["work"].mkdir(parents=True, exist_ok=True)
        torch.use_deterministic_algorithms(True)
        training = Training(options, chosen["work"], chosen["device"], chosen["workers"])
        training.resume()
        training.run(chosen["save_every"], chosen["validate_every"], chosen["validation_batches"])
        training.export(chosen["output"])
    except (ValueError, OSError) as error:
        print(f"train_tiny_moe: {error}", file=sys.stderr)
        return 2
    print(json.dumps(json.loads((chosen["output"] / "training.json").read_text()), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
