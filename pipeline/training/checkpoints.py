"""The state of a training, saved now and then while it runs: a killed training goes on where it was.

It lies in a journal, a hidden folder beside the model, for DVC deletes the outputs of a stage before it runs.
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
from pipeline.training.state import State, bytes_of, read_content, restore, write_state
from pipeline.utils.atomic import locked

FOLDER, FILE, PART = "training", "state.safetensors", "part{}.safetensors"
DAMAGED = (OSError, SafetensorError, ValueError, KeyError, TypeError)


class Checkpoints:
    """Where the states of a model's trainings are kept while they run: its own, and those that find its strength."""

    def __init__(self, model: Path, every: int, resume: bool = False, say: Callable[[str], None] | None = None) -> None:
        """Open the journal of a model that is being trained.

        Args:
            model: file that the model will be written to.
            every: steps between two saves; 0: none.
            resume: whether to go on from what is there.
            say: told in a line what is gone on from, or why nothing is.

        Raises:
            OutputError: another process is training that model.
        """
        self.every, self.resume, self.say = every, resume, say or (lambda line: None)
        self.journal = model.parent / f".{model.name}.journal"
        self.folder = self.journal / FOLDER
        self._lock = locked(self.journal)

    def checkpoint(self, key: str, part: int = 0) -> "Checkpoint":
        """Return where the state of one training is kept.

        Args:
            key: what it depends on, see `training_key`.
            part: number of the part that a training for the strength leaves out; 0 is the model's own training.
        """
        return Checkpoint(
            self, self.folder / (PART.format(part) if part else FILE), key, f"part {part}: " if part else ""
        )

    def remove(self) -> None:
        """Take away what was saved: the training is over."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def close(self) -> None:
        """Let others train; what was saved stays."""
        if not self.folder.exists():
            shutil.rmtree(self.journal, ignore_errors=True)
        self._lock.close()


@dataclass(frozen=True)
class Checkpoint:
    """Where the state of one training is kept."""

    saves: Checkpoints
    path: Path
    key: str
    name: str
    """For people, in front of what is said; empty for the model's own training."""

    def restore(self, state: State) -> None:
        """Let a training whose first step was not taken yet go on from what was saved of one with the same key."""
        if not self.path.exists():
            return
        if not self.saves.resume:
            self._refuse("left by a training that was stopped, and not gone on from without --resume")
            return
        try:
            if read_content(self.path)["key"] != self.key:
                self._refuse(
                    "of a training on another store, or with other parameters, seed or versions; training begins anew"
                )
                return
            restore(self.path, state)
        except DAMAGED:
            self.saves.say(f"{self.path}: damaged; training begins anew")
            return
        going = f"going on after {state.rate.last_epoch} steps, in epoch {len(state.curve)}"
        self.saves.say(self.name + (going if state.losses else f"trained before, {state.rate.last_epoch} steps"))

    def step(self, state: State) -> None:
        """Save, if it is time to, after a step.

        Raises:
            OutputError: the disk is full.
        """
        if self.saves.every and state.rate.last_epoch % self.saves.every == 0:
            self._write(state)

    def end(self, state: State) -> None:
        """Save a training that has come to its end, while others go on.

        Raises:
            OutputError: the disk is full.
        """
        if self.saves.every:
            self._write(state)

    def remove(self) -> None:
        """Take away all that was saved, this and what goes with it: it would come to the same again."""
        self.saves.remove()

    def _write(self, state: State) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_state(self.path, state, self.key)

    def _refuse(self, why: str) -> None:
        """Say why a state is not gone on from; once, for it is said of the model's own first."""
        if not self.name:
            self.saves.say(f"{self.path}: {why}")


def training_key(store: EmbeddingStore, model: SeedModel, validation: Tensor, **made_of: Any) -> str:
    """Return a fingerprint of all that a training depends on, before its first step.

    Args:
        store: embeddings [N, draws, views, D].
        model: its settings, first weights and preconditioner, and the device that it is on.
        validation: prepared pairs [P, views, D].
        made_of: JSON values.
    """
    made_of |= {
        "settings": model.settings.model_dump(exclude=set(WATCHING)),
        "device": str(model.mean.device),
        "threads": torch.get_num_threads(),  # the order of sums, so the last bits, depend on them
        "versions": [np.__version__, torch.__version__],
        "store": dict(store.attributes),
        "status": hashlib.sha256(store.status.tobytes()).hexdigest(),
    }
    key = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode())
    for name in store.utterances:
        key.update(f"{name}\n".encode())
    for tensor in (*model.state_dict().values(), validation):
        key.update(bytes_of(tensor))
    return key.hexdigest()


def describe_checkpoint(folder: Path) -> str | None:
    """Return what a folder of a journal holds, for people; None if that is not a training."""
    try:
        return f"a training in epoch {len(read_content(folder / FILE)['curve'])}"
    except DAMAGED:
        return None
