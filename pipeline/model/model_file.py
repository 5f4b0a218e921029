"""Read and write model files."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from pipeline.config.train import WATCHING
from pipeline.errors import ConfigError, OutputError, SeedWarning, StoreError, WeightsError
from pipeline.model.compact import compact_state, expand_state
from pipeline.model.metadata import FORMAT, Metadata
from pipeline.model.seed_model import SeedModel
from pipeline.store.schema import DENOISE, SPACE
from pipeline.utils.atomic import replacing, sha256_of
from pipeline.utils.checkpoint import load_state
from pipeline.utils.device import default_float32_cpu
from pipeline.utils.paths import Place, local_copy
from pipeline.utils.shortage import raise_shortage
from pipeline.utils.tensor_file import DigestError, read_tensor_file, write_tensor_file
from pipeline.utils.validation import validated

TIMESTEP = 50
"""The timestep for models whose files name none."""
_INPUT_WEIGHT = "network.input_proj.weight"
_TYPES = (torch.float32, torch.float16)
"""The types of a model's tensors: single precision, or half in compact files."""


@dataclass(frozen=True)
class ModelFile:
    """A model and the metadata of its file."""

    model: SeedModel
    encoder: Mapping[str, Any]
    """The encoder of the training, see `EmbeddingStore.encoder`; converted models leave out unknown facts."""
    sha256: str
    """SHA-256 of the file."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """All metadata: `settings`, `encoder`, `training`, except in files of older versions `strength` and `vectors` (see
    `TrainingStats`), and in those of adapted models `adaptation` (see `Adaptation`)."""

    @property
    def base_sha256(self) -> str:
        """SHA-256 of the file of the model as it was trained: vectors of all its adaptations can be compared.

        A model that was refitted to recordings is a model of its own.
        """
        return (self.model.adaptation.comparable_sha256 if self.model.adaptation else "") or self.sha256

    @property
    def timestep(self) -> int:
        """The timestep of enhancement that it was trained for."""
        return int(self.metadata.get("training", {}).get("timestep", TIMESTEP))


def save_model(
    path: Place, model: SeedModel, encoder: Mapping[str, Any], summary: Mapping[str, Any], compact: bool = False
) -> None:
    """Write a model with its configuration in the metadata, whole or not at all.

    If `compact`, it is written in half precision for the timestep of `summary`, see `pipeline.model.compact`. The file
    has a digest of its tensors and metadata, which `load_model` checks. So this is also the way to change a model's
    tensors or metadata: load it, change `ModelFile.model`, and save that.

    Raises:
        ConfigError: `encoder` or `summary` has a value of a wrong type.
        OutputError: the disk is full, or `path` is not a file.
    """
    content = {
        "format": FORMAT,
        "settings": model.settings.model_dump(exclude={"device", "threads", "memory", *WATCHING}),
        "encoder": dict(encoder),
        "training": dict(summary),
        "strength": round(float(model.strength), 6),
    }
    if model.training_stats:
        content["vectors"] = model.training_stats.model_dump()
    if model.adaptation:
        content["adaptation"] = model.adaptation.model_dump()
    timestep = int(summary.get("timestep", TIMESTEP))
    if compact or model.only_timestep is not None:
        content["only_timestep"] = timestep if compact else model.only_timestep
    validated(Metadata, content, f"{path}: metadata")
    state = compact_state(model, timestep) if compact else model.state_dict()
    if model.adaptation:
        state |= {"shift": model.shift} | ({"noise_axes": model.noise_axes} if model.noise_axes.shape[1] else {})
    tensors = {name: tensor if tensor.dtype in _TYPES else tensor.float() for name, tensor in state.items()}
    with replacing(path) as temporary:
        try:
            write_tensor_file(temporary, content, tensors)
        except SafetensorError as error:  # raised when the disk is full
            raise OutputError(f"{path}: cannot be written ({error}). Free some space and train again.") from error


@default_float32_cpu()
def load_model(path: Place, device: torch.device | None = None) -> ModelFile:
    """Read a model file, in evaluation mode on `device` (the CPU if not given).

    Raises:
        WeightsError: the file is missing, damaged, or no SEED model.
        ResourceError: the machine lacks handles or memory, or refuses access.
        PlaceError: a remote place does not answer, or refuses.
    """
    try:
        with local_copy(path) as local:
            file, sha256 = read_tensor_file(local), sha256_of(local)
    except FileNotFoundError:
        raise WeightsError(f"{path}: no such model. Train it with `seed train`.") from None
    except (SafetensorError, OSError, MemoryError, RecursionError) as error:
        raise_shortage(error, path)
        raise WeightsError(f"{path}: not a readable safetensors file ({error}). Train the model again.") from error
    except DigestError as error:
        raise WeightsError(f"{path}: was damaged or edited: {error}. Copy or train the model again.") from error
    except ValueError as error:
        raise WeightsError(f"{path}: not a SEED model ({error}). Train it again.") from error
    state = file.tensors
    model, content = _build_model(path, file.content, state)
    adaptation = {name: state.pop(name, None) for name in ("shift", "noise_axes")} if model.adaptation else {}
    load_state(model, expand_state(state, model), str(path))
    _set_adaptation(model, adaptation, path)
    if not all(torch.isfinite(tensor).all() for tensor in state.values()):
        raise WeightsError(f"{path}: holds NaN or infinite weights. Train the model again.")
    if not 0 <= float(model.strength) <= 1:
        raise WeightsError(f"{path}: its strength is {float(model.strength):g}, not from 0 to 1. Train it again.")
    if content.get("strength") not in (None, round(float(model.strength), 6)):
        differ = f"its strength is {float(model.strength):g}, but its metadata say {content['strength']:g}"
        raise WeightsError(f"{path}: {differ}. Copy or train the model again.")
    if not file.has_digest:
        _warn_unchecked(str(path))
    model = model.eval().requires_grad_(False).to(device or torch.device("cpu"))
    return ModelFile(model, content["encoder"], sha256, content)


@cache
def _warn_unchecked(path: str) -> None:
    """Warn once that a file has no digest."""
    warnings.warn(
        f"{path}: was saved by a version that wrote no checksum, so damage would go unnoticed. Save or adapt it again,"
        " or compare its SHA-256 with that of its origin.",
        SeedWarning,
        stacklevel=2,
    )


def _build_model(
    path: Place, content: Mapping[str, Any], state: Mapping[str, Tensor]
) -> tuple[SeedModel, Mapping[str, Any]]:
    """Return the model that a file's metadata describes, and the metadata; it must match the tensors."""
    if content.get("format") != FORMAT and "settings" in content:
        raise WeightsError(f"{path}: model format {content.get('format')!r}, this version reads {FORMAT!r}.")
    try:
        known = validated(Metadata, content, "its metadata")
    except ConfigError as error:
        raise WeightsError(f"{path}: not a SEED model; {error}. Train it again.") from error
    dim, network = known.encoder.dim, known.settings.network
    given = [list(state[name].shape) if name in state else None for name in ("mean", _INPUT_WEIGHT)]
    if given != [[dim], [network.width * dim, dim]] or network.blocks > len(state):
        raise WeightsError(f"{path}: its metadata and its tensors disagree. Train the model again.")
    for name, tensor in state.items():
        if tensor.dtype not in _TYPES:
            kind = str(tensor.dtype).removeprefix("torch.")
            raise WeightsError(f"{path}: {name} holds {kind} in place of floats. Copy or train the model again.")
    model = SeedModel(dim, known.settings)
    model.training_stats, model.adaptation = known.vectors, known.adaptation
    model.only_timestep = known.only_timestep
    return model, {"training": {}, **content}


def _set_adaptation(model: SeedModel, tensors: Mapping[str, Tensor | None], path: Place) -> None:
    """Set the shifts of an adapted model and the axes that choose among them; there are none without adaptation."""
    shift, axes = (tensors.get(name) for name in ("shift", "noise_axes"))
    if shift is None:
        return
    axes, shift = torch.zeros(model.dim, 0) if axes is None else axes, shift[None] if shift.ndim == 1 else shift
    fits = shift.ndim == axes.ndim == 2 and shift.shape[1] == axes.shape[0] == model.dim
    finite = all(bool(torch.isfinite(tensor).all()) for tensor in (shift, axes))
    if not fits or not finite or not 1 <= len(shift) <= 2 or (len(shift) == 2 and not axes.shape[1]):
        raise WeightsError(f"{path}: its adaptation is damaged. Adapt the model again.")
    model.shift, model.noise_axes = shift.float(), axes.float()


def check_encoder(model: ModelFile, attributes: Mapping[str, Any], model_path: Place, store_path: Place) -> None:
    """Raise StoreError if a store's embeddings are not from the encoder that the model was trained on.

    Facts that the model does not know about its encoder are skipped, see `describe_unknown_encoder`.
    """
    for key in filter(model.encoder.__contains__, SPACE):
        ours, theirs = model.encoder[key], attributes.get(key)
        if ours != theirs:
            trained = f"{model_path} was trained on {ours!r}"
            raise StoreError(f"{store_path}: encoder {key} is {theirs!r}, but {trained}. Train one on this encoder.")


def describe_unknown_encoder(encoder: Mapping[str, Any], attributes: Mapping[str, Any]) -> str | None:
    """Return a warning if the model does not know its encoder's weights, so that a store's may differ, else None."""
    if "weights_sha256" in encoder:
        return None
    ours, theirs = (each.get("encoder") for each in (encoder, attributes))
    return (
        f"knows only the name of its encoder, {ours!r}, so vectors of {theirs!r} may come from other weights. Convert"
        " it with --store to be sure"
    )


def describe_denoiser_mismatch(encoder: Mapping[str, Any], attributes: Mapping[str, Any]) -> str | None:
    """Return a warning if the store's audio was denoised differently from the model's training audio, else None."""
    ours, theirs = (each.get(DENOISE) or "no denoiser" for each in (encoder, attributes))
    return f"trained on vectors of {ours}, applied to vectors of {theirs}" if ours != theirs else None
