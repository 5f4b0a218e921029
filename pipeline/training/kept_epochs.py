"""Keep the models of several epochs of a training, beside the model of the best one."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pipeline.model.model_file import save_model
from pipeline.model.seed_model import SeedModel
from pipeline.training.progress import Epoch

PREFIX = "epoch"


@dataclass(frozen=True)
class EpochFolder:
    """A folder with a model file for each kept epoch, `epoch0001.safetensors` and so on."""

    folder: Path
    encoder: Mapping[str, Any]
    """The encoder of the training store, for the model files."""
    facts: Mapping[str, Any]
    """Facts about the training, for the model files: `seed` and `timestep`."""

    def keep(self, model: SeedModel, epoch: Epoch) -> None:
        """Write the model of an epoch, and remove those of later epochs, which an earlier run left.

        Its strength is the highest one, `train.strength`, because calibration comes after the training. It does not
        know its domain, so it enhances any speech. Raise OutputError if it cannot be written.
        """
        model._buffers = model._buffers | {"strength": torch.full_like(model.strength, model.settings.strength)}
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in self.folder.glob(f"{PREFIX}*.safetensors"):
            number = path.stem.removeprefix(PREFIX)
            if number.isdecimal() and int(number) > epoch.epoch:
                path.unlink()
        facts = {**self.facts, "epoch": epoch.epoch, "validation_loss": epoch.validation_loss}
        save_model(self.folder / f"{PREFIX}{epoch.epoch:04}.safetensors", model, self.encoder, facts)
