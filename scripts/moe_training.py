# SPDX-License-Identifier: Apache-2.0
"""A training run on any source of sequences, which goes on where it was stopped."""

import pickle
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
import training_steps
from gsm_tiny_sequences import Example
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from tokenizers import Tokenizer
from torch.utils.data import DataLoader, Dataset
from training_model import Experts, build_model
from training_options import Options, TrainingError

VALIDATION_SEED = 7
STATE_NAME = "state.pt"


class Source(Protocol):
    """Where sequences come from."""

    tokenizer: Tokenizer
    training: Dataset[Example]
    held_out: Mapping[str, Dataset[Example]]
    """By domain; training sees nothing of it."""
    texts: Mapping[str, Any]
    """What tells the texts from those of another machine; empty where the options do."""


@dataclass(frozen=True)
class Computing:
    """How it is computed: this decides on speed and rounding, and not on what is learned."""

    device: str
    workers: int
    """Processes that make sequences."""
    dtype: torch.dtype = torch.bfloat16
    """Of matrix products; weights are float32."""
    experts: Experts = "dense"
    fused_optimizer: bool = False


@dataclass
class History:
    """What training showed, by step."""

    loss: list[tuple[int, float]] = field(default_factory=list)
    accuracy: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    """By domain, the share of held-out answers of which every token is the likeliest one."""
    seconds: float = 0.0


class Training:
    """One training run: model, optimizer, position and what it showed."""

    def __init__(self, options: Options, source: Source, work: Path, computing: Computing) -> None:
        self.options = options
        self.source = source
        self.work = work
        self.computing = computing
        device = computing.device
        self.model = build_model(options.config(), options.seed, device, computing.experts)
        self.optimizer = training_steps.build_optimizer(
            self.model, options, computing.fused_optimizer
        )
        self.history = History()
        self.step = 0

    @property
    def finished(self) -> bool:
        """Whether every step is done."""
        return self.step == self.options.steps

    def batches(self, sequences: Dataset[Example], first: int, count: int) -> Iterator[Example]:
        """Batches ``first`` to ``first + count`` of a dataset, on the device."""
        size = self.options.batch_size
        loader = DataLoader(
            sequences,
            batch_size=size,
            sampler=range(first * size, (first + count) * size),
            num_workers=self.computing.workers,
            pin_memory=self.computing.device == "cuda",
        )
        for batch in loader:
            yield Example(*(one.to(self.computing.device, non_blocking=True) for one in batch))

    def run(
        self,
        save_every: int,
        validate_every: int,
        validation_batches: int,
        deadline: float = float("inf"),
    ) -> None:
        """Train to the end, or save and stop.

        Args:
            save_every: Steps.
            validate_every: Steps.
            validation_batches: Of each domain.
            deadline: No step begins after it, on the clock of `time.monotonic`.
        """
        options, dtype = self.options, self.computing.dtype
        validation = {
            domain: list(self.batches(sequences, 0, validation_batches))
            for domain, sequences in self.source.held_out.items()
        }
        # On a GPU half of a step's time goes by between kernels that a compiler joins.
        model = torch.compile(self.model) if self.computing.device == "cuda" else self.model
        columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
        text = TextColumn("loss {task.fields[loss]:.4f}, held out {task.fields[accuracy]}")
        started = time.monotonic() - self.history.seconds
        with Progress(*columns, text) as progress:
            bar = progress.add_task(
                "training", total=options.steps, completed=self.step, loss=0.0, accuracy="-"
            )
            for batch in self.batches(self.source.training, self.step, options.steps - self.step):
                rate = training_steps.learning_rate(options, self.step)
                loss = training_steps.training_step(model, self.optimizer, rate, batch, dtype)
                self.step += 1
                if self.step % 20 == 0 or self.finished:
                    self.history.loss.append((self.step, float(loss)))
                    progress.update(bar, completed=self.step, loss=float(loss))
                if self.step % validate_every == 0 or self.finished:
                    accuracy = {
                        domain: training_steps.validate(self.model, batches, dtype)
                        for domain, batches in validation.items()
                    }
                    self.history.accuracy.append((self.step, accuracy))
                    told = ", ".join(f"{domain} {one:.3f}" for domain, one in accuracy.items())
                    progress.update(bar, accuracy=told)
                    if not progress.console.is_terminal:
                        progress.console.print(
                            f"step {self.step}: loss {float(loss):.4f}, held out {told}"
                        )
                self.history.seconds = time.monotonic() - started
                late = time.monotonic() >= deadline
                if self.step % save_every == 0 or self.finished or late:
                    self.save()
                if late:
                    return

    def save(self) -> None:
        """Keep everything that going on needs."""
        state = {
            "options": asdict(self.options),
            "texts": dict(self.source.texts),
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
            TrainingError: It is of other options or texts, or cannot be read.
        """
        file = self.work / STATE_NAME
        if not file.exists():
            return
        try:
            state = torch.load(file, map_location=self.computing.device, weights_only=True)
        except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
            raise TrainingError(f"cannot read {file}: {error}. Remove it to start anew") from error
        for what, mine in (
            ("options", asdict(self.options)),
            ("texts", dict(self.source.texts)),
        ):
            if state.get(what, {}) != mine:
                raise TrainingError(
                    f"{file} is of a training with other {what} ({state.get(what)}): give those, "
                    "another --work, or remove it"
                )
        self.step = state["step"]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.history = History(**state["history"])
