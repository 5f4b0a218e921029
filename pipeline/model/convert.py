"""SEED networks trained by the paper's own code, as model files of ours.

A checkpoint holds the weights of the network and nothing else: what it predicts, its schedule and its encoder have to
be told. Our network has the same tensors by the same names, so that only what wraps these is taken off.
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
    network=NetworkSettings(predict="sample", precondition="none", blocks=3, width=2),
    objective="seed",
    contrast=0.0,
    temperature=0.1,
    scale="sampling",
    target="crop",
    swap=0.0,
    max_timestep=None,
    batch_size=300,
    learning_rate=5e-4,
    warmup=0,
    schedule="constant",
    max_epochs=60,
    folds=0,
)
"""How the paper's networks were trained, `train` of params/paper.yaml."""
TIMESTEP = 50
"""At which they enhance."""

_DEPTH = 3
"""Of dictionaries in each other that weights are looked for in."""
_WIDEST = 64
"""Of hidden layers, in lengths of an embedding."""
_NAME = re.compile(
    r"(?P<prefix>(.*\.)?)(time_embed\.[02]|input_proj|out\.[02]"
    r"|res_blocks\.\d+\.(in_layers\.[02]|emb_layers\.1|out_layers\.[03]))\.(weight|bias)"
)
_ADVICE = "give the network of the authors' code as it was saved, D and depth are read from it"


@dataclass(frozen=True)
class Converted:
    """A model made of a checkpoint."""

    model: SeedModel
    sha256: str
    """Of the checkpoint."""
    prefix: str
    """What stood in front of the weights' names."""


def convert(path: Path, settings: Train = PAPER, average: bool = True) -> Converted:
    """Return a model with the weights of a checkpoint, in evaluation mode.

    The length of embeddings, the number of blocks and their width are the checkpoint's. Nothing is known of the speech
    that it was trained on: `domain_matrix` stays zero, so that every atypicality is 0 and the model is always trusted;
    its strength is 1.

    Args:
        path: a PyTorch file of tensors, or safetensors by suffix.
        settings: what the checkpoint cannot say.
        average: take a moving average of the weights (a prefix with `ema`) where the file has one as well.

    Raises:
        WeightsError: the file is damaged or wants to run code, or its tensors are not those of such a network, finite.
    """
    state, prefix = network_state(read_checkpoint(path), path, average)
    dim, blocks, width = _shape(state, path)
    with torch.device("meta"):  # so that a file that lies about shapes takes no memory
        check_state(DiffusionNetwork(dim, blocks, width=width), state, str(path), _ADVICE)
    for name, tensor in state.items():
        if not _sound(tensor):
            raise WeightsError(f"{path}: {name} holds NaN, infinite or no weights. Get the checkpoint again.")
    shape = settings.network.model_dump() | {"blocks": blocks, "width": width}
    full = validated(Train, settings.model_dump() | {"network": shape}, f"{path}: settings")
    model = SeedModel(dim, full)
    model.network.load_state_dict(state)
    return Converted(model.eval(), sha256_of(path), prefix)


def network_state(checkpoint: Mapping[str, Any], path: Path, average: bool = True) -> tuple[dict[str, Tensor], str]:
    """Return the tensors of the network in a checkpoint by our names, and the prefix that they had.

    The network is wherever most of its names are, below dictionaries (`state_dict`, `model` …) and prefixes (`module.`,
    `diffusion_network.` …); what is beside it, such as an encoder, is left out.

    Raises:
        WeightsError: there is none, or several that differ.
    """
    found = Counter[tuple[str, str]]()
    places = dict(_dictionaries(checkpoint))
    for place, content in places.items():
        found.update((place, match["prefix"]) for key in content if (match := _NAME.fullmatch(key)))
    if not found:
        first = ", ".join([key for content in places.values() for key in content][:3]) or "no tensors"
        raise WeightsError(f"{path}: holds no SEED network, but {first}; {_ADVICE}.")
    most = max(found.values())
    states = {
        f"{place}{prefix}": {
            key.removeprefix(prefix): value for key, value in places[place].items() if key.startswith(prefix)
        }
        for (place, prefix), count in found.items()
        if count == most
    }
    if any(f"{prefix.removesuffix('network.')}domain_matrix" in places[""] for prefix in states):
        raise WeightsError(f"{path}: is a model that `seed enhance` takes as it is; there is nothing to convert.")
    averages = [prefix for prefix in states if "ema" in re.split(r"[._]", prefix.lower())]
    kept = [prefix for prefix in states if (prefix in averages) == (average and bool(averages))]
    chosen, *others = kept or list(states)
    for other in others:
        if not _same(states[chosen], states[other]):
            raise WeightsError(
                f"{path}: holds several networks, {chosen}* and {other}*; save the one you mean by itself."
            )
    return states[chosen], chosen


def encoder_of(name: str, params: Params, dim: int) -> dict[str, Any]:
    """Return what a store of an encoder's vectors would say of it (`EmbeddingStore.encoder`), as far as is known.

    That comes from the definition of the name in the parameters, else from the family of that name. Weights are hashed
    rather than loaded where the family says all the rest.

    Raises:
        ConfigError: the definition is wrong, or gives vectors of another length than `dim`.
        WeightsError: the weights that it names cannot be had.
    """
    definition = params.definition(name)
    if definition.dim not in (None, dim):
        raise ConfigError(f"encoder {name}: its dim is set to {definition.dim}, but the network takes {dim} numbers.")
    if definition.family in FAMILIES:
        family = FAMILIES[definition.family]
        published = family.dim if family.weights and definition.weights is None else None
        if published not in (None, dim):
            raise ConfigError(f"encoder {name}: gives {published}-d embeddings, but the network takes {dim} numbers.")
        sha256 = _weights_of(definition)
        known = {"family": definition.family, "front_end": None, **({"weights_sha256": sha256} if sha256 else {})}
    elif name in params.encoder or name in families():
        encoder = load_encoder(name, definition)
        if encoder.dim != dim:
            raise ConfigError(f"encoder {name}: gives {encoder.dim}-d embeddings, but the network takes {dim} numbers.")
        known = {key: getattr(encoder, key) for key in SPACE}
    else:
        known = {}
    return {"encoder": name, **known, "dim": dim}


def encoder_of_store(store: EmbeddingStore, name: str | None, dim: int) -> dict[str, Any]:
    """Return what a store says of its encoder, by another name if that is wanted; of denoised audio nothing is said.

    Raises:
        StoreError: it holds enhanced vectors, or such of another length than `dim`.
    """
    store.check_raw()
    if store.dim != dim:
        raise StoreError(f"{store.path}: holds vectors of {store.dim} numbers, but the network takes {dim}.")
    known = store.encoder()
    return {key: known[key] for key in SPACE} | {"encoder": name or known["encoder"]}


def _weights_of(definition: EncoderDefinition) -> str | None:
    """Return the SHA-256 of the weights that a definition of one of our families means, if it means any."""
    family = FAMILIES[definition.family]
    if definition.sha256:
        return definition.sha256.lower()
    if definition.weights:
        return find_weights(definition.weights).sha256
    return family.sha256


def _dictionaries(
    content: Mapping[str, Any], place: str = "", depth: int = _DEPTH
) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yield the tensors of a dictionary and of those in it, with dotted names of where these are."""
    yield place, {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    for key, value in content.items():
        if isinstance(value, Mapping) and depth:
            yield from _dictionaries(value, f"{place}{key}.", depth - 1)


def _shape(state: Mapping[str, Tensor], path: Path) -> tuple[int, int, int]:
    """Return the length of embeddings, the number of blocks and their width in such lengths."""
    weight = state.get("input_proj.weight")
    if weight is None or weight.ndim != 2 or 0 in weight.shape:
        raise WeightsError(f"{path}: holds no SEED network, for its input_proj.weight is no matrix; {_ADVICE}.")
    hidden, dim = weight.shape
    blocks = len({name.split(".")[1] for name in state if name.startswith("res_blocks.")})
    if hidden % dim or hidden > _WIDEST * dim:
        raise WeightsError(
            f"{path}: its hidden layers are {hidden} wide for embeddings of {dim} numbers; 1 to {_WIDEST} times as wide"
            " is what the network can be."
        )
    return dim, blocks, hidden // dim


def _sound(tensor: Tensor) -> bool:
    """Return whether weights are all there, floating-point, and finite as float32."""
    if tensor.is_meta or tensor.layout is not torch.strided or not tensor.is_floating_point():
        return False
    stored = tensor.untyped_storage().nbytes() >= tensor.numel() * tensor.element_size()  # else one stands for many
    return stored and bool(torch.isfinite(tensor.float()).all())


def _same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
