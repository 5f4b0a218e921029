"""A trained SEED: preconditioner, network and schedule, in one safetensors file with its configuration."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from pipeline.config import Network, Train
from pipeline.diffusion.network import Denoiser
from pipeline.diffusion.sampler import one_step
from pipeline.diffusion.schedule import cumulative_alphas, scaled_linear_betas
from pipeline.encoders.checkpoint import load_state
from pipeline.errors import StoreError, WeightsError
from pipeline.files import replacing
from pipeline.store import SPACE
from pipeline.validation import validated

FORMAT = "seed-1"


class SeedModel(nn.Module):
    """Everything between an encoder's embedding and its enhanced one."""

    abar: Tensor
    mean: Tensor
    matrix: Tensor

    def __init__(self, dim: int, settings: Train) -> None:
        super().__init__()
        self.dim, self.settings = dim, settings
        shape: Network = settings.network
        self.network = Denoiser(dim, shape.blocks, shape.dropout, shape.predict)
        betas = scaled_linear_betas(settings.timesteps, settings.beta_start, settings.beta_end)
        self.register_buffer("abar", cumulative_alphas(betas), persistent=False)
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("matrix", torch.eye(dim))

    def prepare(self, embeddings: Tensor) -> Tensor:
        """Return [B, D] as the network sees them: preconditioned, then scaled to length sqrt(D) (unit mean square)."""
        moved = (embeddings - self.mean) @ self.matrix.T
        scaled: Tensor = nn.functional.normalize(moved, dim=1) * self.dim**0.5
        return scaled

    def forward(self, embeddings: Tensor, timestep: int) -> Tensor:
        """Return enhanced embeddings [B, D] of raw ones by one noise-free reverse step.

        With a preconditioner they live in its space: compare enhanced vectors with enhanced vectors.
        """
        return one_step(self.network, self.prepare(embeddings), timestep, self.abar)


@dataclass(frozen=True)
class ModelFile:
    """A model and what its file says of it."""

    model: SeedModel
    encoder: Mapping[str, Any]
    """The encoder whose embeddings it was trained on, see `EmbeddingStore.encoder`."""


def save_model(path: Path, model: SeedModel, encoder: Mapping[str, Any], summary: Mapping[str, Any]) -> None:
    """Write a model with its configuration in the metadata, whole or not at all."""
    content = {
        "format": FORMAT,
        "settings": model.settings.model_dump(exclude={"device", "threads"}),
        "encoder": dict(encoder),
        "training": dict(summary),
    }
    # One key: safetensors keeps metadata in a hash map, whose order would differ from run to run.
    metadata = {"seed": json.dumps(content, sort_keys=True)}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(model.state_dict().items())}
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata)


def load_model(path: Path, device: torch.device | None = None) -> ModelFile:
    """Read a model file, in evaluation mode on `device` (the CPU if not given).

    Raises:
        WeightsError: the file is missing, damaged, or no SEED model.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except FileNotFoundError:
        raise WeightsError(f"{path}: no such model. Train it with `seed train`.") from None
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path}: not a readable safetensors file ({error}). Train the model again.") from error
    try:
        content = json.loads(metadata["seed"])
        if content["format"] != FORMAT:
            raise WeightsError(f"{path}: model format {content['format']!r}, this version reads {FORMAT!r}.")
        settings, encoder = content["settings"], content["encoder"]
        model = SeedModel(int(encoder["dim"]), validated(Train, settings, f"{path}: settings"))
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise WeightsError(f"{path}: not a SEED model, its metadata lacks {error}. Train the model again.") from error
    load_state(model, state, str(path))
    return ModelFile(model.eval().requires_grad_(False).to(device or torch.device("cpu")), encoder)


def check_encoder(model: ModelFile, attributes: Mapping[str, Any], model_path: Path, store_path: Path) -> None:
    """Raise StoreError unless a store's embeddings come from the encoder that the model was trained on."""
    for key in SPACE:
        ours, theirs = model.encoder.get(key), attributes.get(key)
        if ours != theirs:
            raise StoreError(
                f"{store_path}: encoder {key} is {theirs!r}, but {model_path} was trained on {ours!r}."
                " Train a model on this encoder."
            )
