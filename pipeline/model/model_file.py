"""Read and write model files."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pipeline.config.train import WATCHING, Train
from pipeline.errors import OutputError, StoreError, WeightsError
from pipeline.model.seed_model import SeedModel
from pipeline.model.training_stats import TrainingStats
from pipeline.store.schema import DENOISE, SPACE
from pipeline.utils.atomic import replacing, sha256_of
from pipeline.utils.checkpoint import load_state
from pipeline.utils.device import usual_defaults
from pipeline.utils.paths import Place, local_copy
from pipeline.utils.validation import validated

FORMAT = "seed-2"


FIRST = "network.input_proj.weight"


TIMESTEP = 50
"""At which models are applied whose files do not say."""


@dataclass(frozen=True)
class ModelFile:
    """A model and what its file says of it."""

    model: SeedModel
    encoder: Mapping[str, Any]
    """The encoder whose embeddings it was trained on, see `EmbeddingStore.encoder`; converted models leave out what is
    not known of it."""
    sha256: str
    """Of the file."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """All that the file says of it: `settings`, `encoder`, `training`, and since they are kept `scale`, `strength` and
    `vectors` (see `TrainingStats`)."""

    @property
    def timestep(self) -> int:
        """The step that it was trained to enhance from."""
        return int(self.metadata.get("training", {}).get("timestep", TIMESTEP))


def save_model(path: Place, model: SeedModel, encoder: Mapping[str, Any], summary: Mapping[str, Any]) -> None:
    """Write a model with its configuration in the metadata, whole or not at all."""
    content = {
        "format": FORMAT,
        "settings": model.settings.model_dump(exclude={"device", "threads", "memory", *WATCHING}),
        "encoder": dict(encoder),
        "training": dict(summary),
        "scale": scale_policy(model.dim, model.settings),
        "strength": round(float(model.strength), 6),
    }
    if model.training_stats:
        content["vectors"] = model.training_stats.model_dump()
    # One key: safetensors keeps metadata in a hash map, whose order would differ from run to run.
    metadata = {"seed": json.dumps(content, sort_keys=True)}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(model.state_dict().items())}
    with replacing(path) as temporary:
        try:
            save_file(tensors, temporary, metadata)
        except SafetensorError as error:  # its way of saying that the disk is full
            raise OutputError(f"{path}: cannot be written ({error}). Free some space and train again.") from error


@usual_defaults()
def load_model(path: Place, device: torch.device | None = None) -> ModelFile:
    """Read a model file, in evaluation mode on `device` (the CPU if not given).

    Raises:
        WeightsError: the file is missing, damaged, or no SEED model.
        PlaceError: it is in a remote place that does not answer, or refuses.
    """
    try:
        with local_copy(path) as local, safe_open(local, framework="pt") as file:
            metadata, sha256 = file.metadata() or {}, sha256_of(local)
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise WeightsError(f"{path}: no such model. Train it with `seed train`.") from None
    except (SafetensorError, OSError, RecursionError) as error:
        raise WeightsError(f"{path}: not a readable safetensors file ({error}). Train the model again.") from error
    model, content = _described(path, metadata.get("seed"), state)
    load_state(model, state, str(path))
    if not all(torch.isfinite(tensor).all() for tensor in state.values()):
        raise WeightsError(f"{path}: holds NaN or infinite weights. Train the model again.")
    if not 0 <= float(model.strength) <= 1:
        raise WeightsError(
            f"{path}: its strength is {float(model.strength):g}, not from 0 to 1. Train the model again."
        )
    model = model.eval().requires_grad_(False).to(device or torch.device("cpu"))
    return ModelFile(model, content["encoder"], sha256, content)


def _described(path: Place, text: str | None, state: Mapping[str, Tensor]) -> tuple[SeedModel, Mapping[str, Any]]:
    """Build the model that a file's metadata describe, no larger than its tensors are, and return both."""
    try:
        content = json.loads(text or "")
        if content["format"] != FORMAT:
            raise WeightsError(f"{path}: model format {content['format']!r}, this version reads {FORMAT!r}.")
        settings, encoder = validated(Train, content["settings"], f"{path}: settings"), dict(content["encoder"])
        dim, blocks = encoder["dim"], settings.network.blocks
        wrong = list(state["mean"].shape) != [dim] or blocks > len(state)
        if wrong or list(state[FIRST].shape) != [settings.network.width * dim, dim]:
            raise WeightsError(f"{path}: its metadata and its tensors disagree. Train the model again.")
        model = SeedModel(dim, settings)
        if "vectors" in content:  # files of before have none
            model.training_stats = validated(TrainingStats, content["vectors"], f"{path}: vectors")
        return model, content | {"encoder": encoder}
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        if isinstance(error, WeightsError):
            raise
        raise WeightsError(f"{path}: not a SEED model ({type(error).__name__}: {error}). Train it again.") from error


def check_encoder(model: ModelFile, attributes: Mapping[str, Any], model_path: Place, store_path: Place) -> None:
    """Raise StoreError unless a store's embeddings come from the encoder that the model was trained on.

    What the model does not know of its encoder is not looked at, see `describe_unknown_encoder`.
    """
    for key in filter(model.encoder.__contains__, SPACE):
        ours, theirs = model.encoder[key], attributes.get(key)
        if ours != theirs:
            raise StoreError(
                f"{store_path}: encoder {key} is {theirs!r}, but {model_path} was trained on {ours!r}."
                " Train a model on this encoder."
            )


def describe_unknown_encoder(encoder: Mapping[str, Any], attributes: Mapping[str, Any]) -> str | None:
    """Say so if a model does not know its encoder's weights, see `ModelFile.encoder`: a store's may be of others."""
    if "weights_sha256" in encoder:
        return None
    ours, theirs = (each.get("encoder") for each in (encoder, attributes))
    return (
        f"knows its encoder by the name {ours!r} only, so that nobody checked whether vectors of {theirs!r} are of the"
        " same weights. Convert it with --store to be sure"
    )


def describe_denoiser_mismatch(encoder: Mapping[str, Any], attributes: Mapping[str, Any]) -> str | None:
    """Say so if a store's audio was denoised otherwise than a model's training, see `ModelFile.encoder`; no error."""
    ours, theirs = (each.get(DENOISE) or "no denoiser" for each in (encoder, attributes))
    return f"trained on vectors of {ours}, applied to vectors of {theirs}" if ours != theirs else None


_MAPS: Mapping[str, str] = {
    "none": "taken as they are",
    "center": "less a mean vector",
    "whiten": "less a mean vector, and multiplied by a matrix in which noise is about equally large in all directions",
    "project": "less a mean vector, and without the directions in which noise moves them most",
    "ridge": "less a mean vector, and multiplied by the matrix of a regression from noisy to clean vectors",
    "wiener": "less a mean vector, and multiplied by the matrix of a Wiener filter from noisy to clean vectors",
}
"""What `train.network.precondition` does to vectors."""


def scale_policy(dim: int, settings: Train) -> dict[str, str]:
    """Return what `input`, `network` and `output` of a model are, a sentence each."""
    trained = " (in training they kept their length)" if settings.scale == "sampling" else ""
    return {
        "input": "vectors as the encoder gives them, at the length that it gives them: neither normalised, scaled nor"
        " centred by the caller.",
        "network": f"vectors are {_MAPS[settings.network.precondition]}, then scaled to L2 norm sqrt({dim}) ="
        f" {dim**0.5:.4f}{trained}.",
        "output": "with strength 0 the raw vectors; with strength 1 the network's output, of L2 norm about"
        f" sqrt({dim}), in the space of that map; in between, a point on the great circle from the raw to the network's"
        " direction, at the raw vector's length. Compare enhanced vectors by cosine with vectors enhanced by the same"
        " model at the same strength, never with raw ones.",
    }
