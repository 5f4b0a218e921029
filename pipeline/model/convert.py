"""Convert SEED networks trained with the code of the paper's authors to model files.

A checkpoint holds only the weights of the network; the type of prediction, the schedule and the encoder must be given.
This project's network has the same tensors under the same names, so only wrappers around them are removed.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.config.encoder import EncoderDefinition
from pipeline.config.params import Params
from pipeline.config.train import NetworkSettings, Train
from pipeline.encoders.families import FAMILIES
from pipeline.encoders.registry import families, load_encoder
from pipeline.encoders.weights import find_weights
from pipeline.errors import ConfigError, StoreError, WeightsError
from pipeline.model.diffusion.network import DiffusionNetwork
from pipeline.model.seed_model import SeedModel
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.store.schema import SPACE
from pipeline.utils.atomic import sha256_of
from pipeline.utils.checkpoint import check_state, read_checkpoint
from pipeline.utils.validation import validated

PAPER = Train(
    network=NetworkSettings(predict="sample", precondition="none", blocks=3, width=2, dropout=0.0),
    objective="seed",
    contrast=0.0,
    temperature=0.1,
    scale="sampling",
    target="crop",
    swap=0.0,
    noise_per="view",
    max_timestep=None,
    batch_size=300,
    drop_last=True,
    epoch_crops="one",
    learning_rate=5e-4,
    clip=9999.0,
    warmup=0,
    schedule="constant",
    ema=0.0,
    max_epochs=301,
    patience=None,
    validation=0.01,
    folds=0,
    keep_every=1,
)
"""The settings of the paper's networks, `train` of params/paper.yaml."""
_DEPTH = 3
"""Depth of nested dictionaries that are searched for weights."""
_MAX_WIDTH = 64
"""Largest width of hidden layers, as a multiple of D."""
_NAME = re.compile(
    r"(?P<prefix>(.*\.)?)(time_embed\.[02]|input_proj|out\.[02]"
    r"|res_blocks\.\d+\.(in_layers\.[02]|emb_layers\.1|out_layers\.[03]))\.(weight|bias)"
)
_ADVICE = "pass the network exactly as the authors' code saved it; D and depth are read from it"


@dataclass(frozen=True)
class ConvertedModel:
    """A model converted from a checkpoint."""

    model: SeedModel
    sha256: str
    """SHA-256 of the checkpoint."""
    prefix: str
    """The prefix that was removed from the weights' names."""


def convert(path: Path, settings: Train = PAPER, average: bool = True) -> ConvertedModel:
    """Return a model with the weights of a checkpoint, in evaluation mode.

    The dimension of embeddings, the number of blocks and their width are read from the checkpoint. The training speech
    is unknown: `domain_matrix` stays zero, so every atypicality is 0 and the model is always trusted; its strength is
    1.

    Args:
        path: a PyTorch file of tensors, or safetensors by suffix.
        settings: the settings that a checkpoint does not contain.
        average: prefer a moving average of the weights (a prefix with `ema`) if the file has one.

    Raises:
        WeightsError: the file is damaged or would run code, or its tensors are not finite or not those of the network.
    """
    state, prefix = extract_network_state(read_checkpoint(path), path, average)
    dim, blocks, width = _read_shape(state, path)
    with torch.device("meta"):  # allocates no memory, whatever shapes the file claims
        check_state(DiffusionNetwork(dim, blocks, width=width), state, str(path), _ADVICE)
    for name, tensor in state.items():
        if not _is_usable(tensor):
            raise WeightsError(f"{path}: {name} holds NaN, infinite or no weights. Get the checkpoint again.")
    shape = settings.network.model_dump() | {"blocks": blocks, "width": width}
    full = validated(Train, settings.model_dump() | {"network": shape}, f"{path}: settings")
    model = SeedModel(dim, full)
    model.network.load_state_dict(state)
    return ConvertedModel(model.eval(), sha256_of(path), prefix)


def extract_network_state(
    checkpoint: Mapping[str, Any], path: Path, average: bool = True
) -> tuple[dict[str, Tensor], str]:
    """Return the tensors of the network in a checkpoint under this project's names, and the prefix that they had.

    The network is where most of its names are, below dictionaries (`state_dict`, `model` …) and prefixes (`module.`,
    `diffusion_network.` …). Other tensors, such as those of an encoder, are left out. Raise WeightsError if there is no
    network, or if there are several different ones.
    """
    counts = Counter[tuple[str, str]]()
    places = dict(_iterate_dictionaries(checkpoint))
    for place, content in places.items():
        counts.update((place, match["prefix"]) for key in content if (match := _NAME.fullmatch(key)))
    if not counts:
        first = ", ".join([key for content in places.values() for key in content][:3]) or "no tensors"
        raise WeightsError(f"{path}: holds {first}, no SEED network; {_ADVICE}.")
    most = max(counts.values())
    states = {}
    for place, prefix in (each for each, count in counts.items() if count == most):
        named = {key.removeprefix(prefix): value for key, value in places[place].items() if key.startswith(prefix)}
        states[f"{place}{prefix}"] = named
    if any(f"{prefix.removesuffix('network.')}domain_matrix" in places[""] for prefix in states):
        raise WeightsError(f"{path}: is a model that `seed enhance` accepts as it is; there is nothing to convert.")
    averages = [prefix for prefix in states if "ema" in re.split(r"[._]", prefix.lower())]
    kept = [prefix for prefix in states if (prefix in averages) == (average and bool(averages))]
    chosen, *others = kept or list(states)
    for other in others:
        if not _are_equal(states[chosen], states[other]):
            raise WeightsError(f"{path}: holds several networks, {chosen}* and {other}*; save one to its own file.")
    return states[chosen], chosen


def describe_encoder(name: str, params: Params, dim: int) -> dict[str, Any]:
    """Return the known facts about an encoder, in the form of `EmbeddingStore.encoder`.

    They come from the definition of the name in the parameters, else from the family of that name. Weights are hashed
    but not loaded if the family provides all other facts.

    Raises:
        ConfigError: the definition is wrong, or its vectors do not have dimension `dim`.
        WeightsError: its weights are not available.
    """
    definition = params.definition(name)
    if definition.dim not in (None, dim):
        raise ConfigError(f"encoder {name}: its dim is set to {definition.dim}, but the network takes {dim} numbers.")
    if definition.family in FAMILIES:
        family = FAMILIES[definition.family]
        published = family.dim if family.weights and definition.weights is None else None
        if published not in (None, dim):
            raise ConfigError(f"encoder {name}: gives {published}-d embeddings, but the network takes {dim} numbers.")
        sha256 = _weights_sha256(definition)
        known = {"family": definition.family, "front_end": None, **({"weights_sha256": sha256} if sha256 else {})}
    elif name in params.encoder or name in families():
        encoder = load_encoder(name, definition)
        if encoder.dim != dim:
            raise ConfigError(f"encoder {name}: gives {encoder.dim}-d embeddings, but the network takes {dim} numbers.")
        known = {key: getattr(encoder, key) for key in SPACE}
    else:
        known = {}
    return {"encoder": name, **known, "dim": dim}


def describe_store_encoder(store: EmbeddingStore, name: str | None, dim: int) -> dict[str, Any]:
    """Return the facts about a store's encoder, renamed to `name` if given; a denoiser is left out.

    Raise StoreError if the store holds enhanced vectors, or vectors whose dimension is not `dim`.
    """
    store.check_raw()
    if store.dim != dim:
        raise StoreError(f"{store.path}: holds vectors of {store.dim} numbers, but the network takes {dim}.")
    known = store.encoder()
    return {key: known[key] for key in SPACE} | {"encoder": name or known["encoder"]}


def _weights_sha256(definition: EncoderDefinition) -> str | None:
    """Return the SHA-256 of the weights that a definition refers to, if any."""
    family = FAMILIES[definition.family]
    if definition.sha256:
        return definition.sha256.lower()
    if definition.weights:
        return find_weights(definition.weights).sha256
    return family.sha256


def _iterate_dictionaries(
    content: Mapping[str, Any], place: str = "", depth: int = _DEPTH
) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yield the tensors of a dictionary and of its nested dictionaries, with their dotted paths."""
    yield place, {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    for key, value in content.items():
        if isinstance(value, Mapping) and depth:
            yield from _iterate_dictionaries(value, f"{place}{key}.", depth - 1)


def _read_shape(state: Mapping[str, Tensor], path: Path) -> tuple[int, int, int]:
    """Return D, the number of blocks, and their width as a multiple of D."""
    weight = state.get("input_proj.weight")
    if weight is None or weight.ndim != 2 or 0 in weight.shape:
        raise WeightsError(f"{path}: holds no SEED network: input_proj.weight is not a matrix; {_ADVICE}.")
    hidden, dim = weight.shape
    blocks = len({name.split(".")[1] for name in state if name.startswith("res_blocks.")})
    if hidden % dim or hidden > _MAX_WIDTH * dim:
        raise WeightsError(
            f"{path}: its hidden layers are {hidden} wide for {dim}-d embeddings; the width must be 1 to {_MAX_WIDTH}"
            " times the dimension."
        )
    return dim, blocks, hidden // dim


def _is_usable(tensor: Tensor) -> bool:
    """Return True if weights are stored completely, floating-point, and finite as float32."""
    if tensor.is_meta or tensor.layout is not torch.strided or not tensor.is_floating_point():
        return False
    stored = tensor.untyped_storage().nbytes() >= tensor.numel() * tensor.element_size()  # False for expanded tensors
    return stored and bool(torch.isfinite(tensor.float()).all())


def _are_equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
