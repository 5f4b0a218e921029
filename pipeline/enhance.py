"""Enhance a store of embeddings with a trained model."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.arrays import HUGE, like, to_rows
from pipeline.bounds import doubt_of_length
from pipeline.diffusion.sampler import Sampling
from pipeline.domain import lowered_strength
from pipeline.errors import ConfigError, OutputError, StoreError
from pipeline.guard import ZERO, unusable
from pipeline.model import (
    SeedModel,
    check_encoder,
    denoised_otherwise,
    load_model,
    unknown_encoder,
)
from pipeline.places import Place
from pipeline.store import EmbeddingStore
from pipeline.train_settings import misfit

REVISION = 5
"""Raise it when the same store and model give other vectors: stored ones are then made anew."""

BATCH = 4096
"""Vectors that are enhanced at a time."""
_NOISES = 8
"""Of one vector, how many are drawn before batches become smaller."""
AS_TRAINED = Sampling(strength=None)


@dataclass(frozen=True)
class Done:
    """What enhancement has done."""

    vectors: int
    strength: float
    """How far from raw to enhanced embeddings it went."""
    atypicality: float
    """Median over the domain, see `SeedModel.atypicality`."""


def enhance(
    store: EmbeddingStore,
    model_path: Place,
    out: Place,
    how: Sampling = AS_TRAINED,
    seed: int = 0,
    device: torch.device | None = None,
    progress: Callable[[int], None] | None = None,
    domain: EmbeddingStore | None = None,
    warn: Callable[[str], None] | None = None,
) -> Done:
    """Write the enhanced copy of a store, row for row.

    Failed rows stay failed. The new store's attributes are the old one's and the model's checksum. Without a strength
    in `how`, it goes as far as training found best, and less or not at all where the speech is not of the kind that the
    model was trained on, see `pipeline.domain`. Stores that will be compared with each other need the same `domain`.

    Args:
        store: of raw embeddings.
        model_path: of the model.
        out: where to write.
        how: steps and strength.
        seed: of noise.
        device: where to enhance; the CPU if not given.
        progress: called with the number of vectors done.
        domain: raw embeddings of the kind of speech, best clean; `store` if not given.
        warn: told where the model was trained on audio denoised otherwise than the store's, may be of another encoder,
            or was trained on vectors much longer or shorter.

    Raises:
        WeightsError: the model cannot be read.
        ConfigError: the model cannot enhance in this way.
        StoreError: a store is damaged, of another encoder than the model's, or enhanced already; or the model gives
            NaN.
        OutputError: `out` is the store itself, or something that is no store.
        PlaceError: a remote place does not answer, or refuses.
    """
    from pipeline.journal import write_store  # and with it Zarr, which `enhanced` does without

    if out.resolve() == store.path.resolve():
        raise OutputError(f"{out}: is the store to enhance; give another place for the enhanced one.")
    loaded = load_model(model_path, device or torch.device("cpu"))
    for each in (store, domain or store):
        each.check_raw()
        check_encoder(loaded, each.attributes, model_path, each.path)
    for doubt in (unknown_encoder, denoised_otherwise):
        if (said := doubt(loaded.encoder, store.attributes)) and warn:
            warn(f"{model_path}: {said}")
    check_way(loaded.model, how, model_path)
    values = store.read()
    rows = values[store.ok]
    flat = rows.reshape(-1, store.dim)
    familiar = flat if domain is None else domain.read()[domain.ok].reshape(-1, store.dim)
    norms = torch.linalg.vector_norm(torch.from_numpy(flat), dim=1)
    if (said := doubt_of_length(loaded.model.bounds, norms[norms >= ZERO])) and warn:
        warn(f"{store.path}: {said}")
    strength, atypicality = lowered_strength(loaded.model, familiar)
    if how.strength is None:
        how = replace(how, strength=strength)
    values[store.ok] = enhanced(loaded.model, flat, how, seed, progress).reshape(rows.shape)
    if not np.isfinite(values[store.ok]).all():
        raise StoreError(f"{store.path}: {model_path} gives NaN or infinite vectors for it. Train the model again.")
    attributes = {key: value for key, value in store.attributes.items() if key != "schema"}
    attributes |= {"enhanced_by_sha256": loaded.sha256, **sampling_attributes(how, seed)}
    write_store(out, store.utterances, values, store.status, attributes)
    return Done(len(flat), float(how.strength or 0.0), atypicality)


def check_way(model: SeedModel, how: Sampling, path: Place) -> None:
    """Raise ConfigError if a model, read from `path`, cannot enhance in this way."""
    if wrong := model.settings.misfit_of_timestep(how.timestep):
        raise ConfigError(f"timestep {how.timestep}: of {path}, {wrong}.")
    if wrong := misfit(model.settings.objective, how.steps, how.noise):
        raise ConfigError(f"enhance: {wrong}, as {path} was trained on it.")


def sampling_attributes(how: Sampling, seed: int) -> dict[str, Any]:
    """Return what a store of enhanced embeddings says of how they were made; of the plain single step, the timestep."""
    told: dict[str, Any] = {"timestep": how.timestep}
    if how != Sampling(how.timestep):
        told["sampling"] = {name: value for name, value in asdict(how).items() if name != "timestep"}
    if how.noise:
        told["sampling"]["seed"] = seed
    return told


def sampling_of(attributes: Mapping[str, Any]) -> tuple[Sampling, int]:
    """Return how a store's embeddings were enhanced, and the seed of it."""
    rest = dict(attributes.get("sampling", {}))
    seed = rest.pop("seed", 0)
    return Sampling(attributes["timestep"], **rest), seed


@torch.inference_mode()
def enhanced(
    model: SeedModel,
    vectors: NDArray[np.float32],
    how: Sampling,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> NDArray[np.float32]:
    """Return vectors [N, D] enhanced wherever the model lives; those without a direction, zeros or NaN, stay so.

    Noise, where there is any, is drawn vector by vector on the CPU, so that it depends on the seed and on a vector's
    place alone.
    """
    device, done = model.mean.device, np.empty_like(vectors)
    rng = np.random.default_rng(seed) if how.noise else None
    share = float(model.strength) if how.strength is None else how.strength
    noises = how.noise * (1 + how.steps if how.eta > 0 else 1)
    size = BATCH if noises <= _NOISES else max(1, BATCH * _NOISES // noises)  # noise is the most of the memory
    for start in range(0, len(vectors), size):
        part = slice(start, start + size)
        inputs = torch.from_numpy(vectors[part]).to(device)
        norms = torch.linalg.vector_norm(inputs, dim=1)
        # As it is nearly always, and NaN is not: one look at the vectors will do then.
        usual = bool(((norms >= ZERO) & (norms <= HUGE)).all())
        rows = None if usual else to_rows(vectors[part], model.dim, device)
        inputs = rows.values if rows else inputs
        draws: Sequence[Sequence[Tensor]] = ()
        if rng:
            drawn = rng.standard_normal((len(inputs), how.noise, noises // how.noise, model.dim), dtype=np.float32)
            draws = [list(each) for each in torch.from_numpy(drawn).permute(1, 2, 0, 3).to(device)]
        result = model(inputs, how, draws)
        if rows:
            peak = float(result.abs().amax())
            done[part] = like(vectors[part], rows, result, peak, share < 1, unusable(rows))
        else:
            done[part] = result.cpu().numpy()
        if progress:
            progress(len(done[part]))
    return done
