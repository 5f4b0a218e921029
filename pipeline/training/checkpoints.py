"""Checkpoints of running trainings, from which killed ones resume.

They are in a hidden folder beside the model, because DVC deletes the outputs of a stage before it runs.
"""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor

from pipeline.config.train import WATCHING
from pipeline.model.seed_model import SeedModel
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.training.state import TrainingState, read_state_header, restore_state, write_state
from pipeline.utils.atomic import lock_folder
from pipeline.utils.shortage import raise_shortage
from pipeline.utils.tensor_file import view_bytes

FOLDER, FILE, PART = "training", "state.safetensors", "part{}.safetensors"
DAMAGED = (OSError, SafetensorError, ValueError, KeyError, TypeError)


class Checkpoints:
    """The checkpoints of a model's own training, and of those that find its strength."""

    def __init__(
        self, model: Path, every: int, resume: bool = False, report: Callable[[str], None] | None = None
    ) -> None:
        """Open and lock the folder of a model's checkpoints.

        Args:
            model: file that the model will be written to.
            every: number of steps between checkpoints; 0 for none.
            resume: resume from existing checkpoints.
            report: called with a line that says what is resumed, or why nothing is.

        Raises:
            OutputError: another process is training this model.
        """
        self.every, self.resume, self.report = every, resume, report or (lambda line: None)
        self.journal = model.parent / f".{model.name}.journal"
        self.folder = self.journal / FOLDER
        self._lock = lock_folder(self.journal)

    def checkpoint(self, key: str, part: int = 0) -> "Checkpoint":
        """Return the checkpoint of the training with a key, see `compute_training_key`.

        `part` is the number of the part that a training for the strength leaves out; 0 for the model's own training.
        """
        path = self.folder / (PART.format(part) if part else FILE)
        return Checkpoint(self, path, key, f"part {part}: " if part else "")

    def remove(self) -> None:
        """Remove all checkpoints, once training is done."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def close(self) -> None:
        """Unlock the folder; checkpoints stay."""
        if not self.folder.exists():
            shutil.rmtree(self.journal, ignore_errors=True)
        self._lock.close()


@dataclass(frozen=True)
class Checkpoint:
    """The checkpoint of one training."""

    group: Checkpoints
    path: Path
    key: str
    label: str
    """The prefix of reported lines; empty for the model's own training."""

    def restore(self, state: TrainingState) -> None:
        """Resume a training that has not taken a step, if the checkpoint has the same key."""
        if not self.path.exists():
            return
        if not self.group.resume:
            self._report_unused("an interrupted training left this; it is ignored without --resume")
            return
        try:
            if read_state_header(self.path)["key"] != self.key:
                reason = "saved with another store, parameters, seed or versions"
                self._report_unused(f"{reason}; training starts from scratch")
                return
            restore_state(self.path, state)
        except DAMAGED as error:
            raise_shortage(error, self.path)
            self.group.report(f"{self.path}: damaged; training starts from scratch")
            return
        steps = state.rate.last_epoch
        resumed = f"resumed after {steps} steps, in epoch {len(state.curve)}"
        self.group.report(self.label + (resumed if state.losses else f"already trained, {steps} steps"))

    def step(self, state: TrainingState) -> None:
        """Save after a step, if it is due; raise OutputError if the disk is full."""
        if self.group.every and state.rate.last_epoch % self.group.every == 0:
            self._write(state)

    def end(self, state: TrainingState) -> None:
        """Save a finished training, as others of the model may still run; raise OutputError if the disk is full."""
        if self.group.every:
            self._write(state)

    def remove(self) -> None:
        """Remove all checkpoints of the model."""
        self.group.remove()

    def _write(self, state: TrainingState) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_state(self.path, state, self.key)

    def _report_unused(self, reason: str) -> None:
        """Report why a checkpoint is not used; only for the model's own training, which comes first."""
        if not self.label:
            self.group.report(f"{self.path}: {reason}")


def compute_training_key(store: EmbeddingStore, model: SeedModel, validation: Tensor, **values: Any) -> str:
    """Return a fingerprint of everything that a training depends on, before its first step.

    It covers the store, the model with its settings, weights, preconditioner and device, the prepared validation pairs
    [P, views, D], and other JSON `values`.
    """
    values |= {
        "settings": model.settings.model_dump(exclude=set(WATCHING)),
        "device": str(model.mean.device),
        "threads": torch.get_num_threads(),  # the last bits of sums depend on it
        "versions": [np.__version__, torch.__version__],
        "store": dict(store.attributes),
        "content": store.content_sha256,
        "status": hashlib.sha256(store.status.tobytes()).hexdigest(),
    }
    key = hashlib.sha256(json.dumps(values, sort_keys=True).encode())
    for name in store.utterances:
        key.update(f"{name}\n".encode())
    for tensor in (*model.state_dict().values(), validation):
        key.update(view_bytes(tensor))
    return key.hexdigest()


def describe_checkpoint(folder: Path) -> str | None:
    """Describe the training in a folder of checkpoints; None if there is none."""
    try:
        return f"a training in epoch {len(read_state_header(folder / FILE)['curve'])}"
    except DAMAGED:
        return None
