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
from pipeline.model.adaptation_record import Adaptation
from pipeline.model.compact import compact_state, expand_state
from pipeline.model.seed_model import SeedModel
from pipeline.model.training_stats import TrainingStats
from pipeline.store.schema import DENOISE, SPACE
from pipeline.utils.atomic import replacing, sha256_of
from pipeline.utils.checkpoint import load_state
from pipeline.utils.device import default_float32_cpu
from pipeline.utils.paths import Place, local_copy
from pipeline.utils.validation import validated

FORMAT = "seed-2"
TIMESTEP = 50
"""The timestep for models whose files name none."""
_INPUT_WEIGHT = "network.input_proj.weight"


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

    If `compact`, it is written in half precision for the timestep of `summary`, see `pipeline.model.compact`.
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
    # A single key, because safetensors keeps metadata in a hash map, whose order differs from run to run.
    metadata = {"seed": json.dumps(content, sort_keys=True)}
    state = compact_state(model, timestep) if compact else model.state_dict()
    if model.adaptation:
        state |= {"shift": model.shift} | ({"noise_axes": model.noise_axes} if model.noise_axes.shape[1] else {})
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(state.items())}
    with replacing(path) as temporary:
        try:
            save_file(tensors, temporary, metadata)
        except SafetensorError as error:  # raised when the disk is full
            raise OutputError(f"{path}: cannot be written ({error}). Free some space and train again.") from error


@default_float32_cpu()
def load_model(path: Place, device: torch.device | None = None) -> ModelFile:
    """Read a model file, in evaluation mode on `device` (the CPU if not given).

    Raises:
        WeightsError: the file is missing, damaged, or no SEED model.
        PlaceError: a remote place does not answer, or refuses.
    """
    try:
        with local_copy(path) as local, safe_open(local, framework="pt") as file:
            metadata, sha256 = file.metadata() or {}, sha256_of(local)
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise WeightsError(f"{path}: no such model. Train it with `seed train`.") from None
    except (SafetensorError, OSError, RecursionError) as error:
        raise WeightsError(f"{path}: not a readable safetensors file ({error}). Train the model again.") from error
    model, content = _build_model(path, metadata.get("seed"), state)
    adaptation = {name: state.pop(name, None) for name in ("shift", "noise_axes")} if model.adaptation else {}
    load_state(model, expand_state(state, model), str(path))
    _set_adaptation(model, adaptation, path)
    if not all(torch.isfinite(tensor).all() for tensor in state.values()):
        raise WeightsError(f"{path}: holds NaN or infinite weights. Train the model again.")
    if not 0 <= float(model.strength) <= 1:
        raise WeightsError(f"{path}: its strength is {float(model.strength):g}, not from 0 to 1. Train it again.")
    model = model.eval().requires_grad_(False).to(device or torch.device("cpu"))
    return ModelFile(model, content["encoder"], sha256, content)


def _build_model(path: Place, text: str | None, state: Mapping[str, Tensor]) -> tuple[SeedModel, Mapping[str, Any]]:
    """Return the model that a file's metadata describes, and the metadata; it must match the tensors' size."""
    try:
        content = json.loads(text or "")
        if content["format"] != FORMAT:
            raise WeightsError(f"{path}: model format {content['format']!r}, this version reads {FORMAT!r}.")
        settings, encoder = validated(Train, content["settings"], f"{path}: settings"), dict(content["encoder"])
        dim, blocks = encoder["dim"], settings.network.blocks
        mismatch = list(state["mean"].shape) != [dim] or blocks > len(state)
        if mismatch or list(state[_INPUT_WEIGHT].shape) != [settings.network.width * dim, dim]:
            raise WeightsError(f"{path}: its metadata and its tensors disagree. Train the model again.")
        model = SeedModel(dim, settings)
        if "vectors" in content:  # missing in files of older versions
            model.training_stats = validated(TrainingStats, content["vectors"], f"{path}: vectors")
        if "only_timestep" in content:
            model.only_timestep = int(content["only_timestep"])
        if "adaptation" in content:
            model.adaptation = validated(Adaptation, content["adaptation"], f"{path}: adaptation")
        return model, content | {"encoder": encoder}
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        if isinstance(error, WeightsError):
            raise
        raise WeightsError(f"{path}: not a SEED model ({type(error).__name__}: {error}). Train it again.") from error


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
