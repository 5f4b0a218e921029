"""Apply a model to arrays of embeddings."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.errors import ConfigError
from pipeline.model.diagnostics import ZERO, unusable_mask
from pipeline.model.diffusion.sampler import Sampling
from pipeline.model.seed_model import SeedModel
from pipeline.utils.arrays import MAX_ABS, restore_like, to_rows
from pipeline.utils.paths import Place

BATCH = 4096
"""Vectors that are enhanced at a time."""


_NOISES = 8
"""Of one vector, how many are drawn before batches become smaller."""


AS_TRAINED = Sampling(strength=None)


def check_sampling(model: SeedModel, how: Sampling, path: Place) -> None:
    """Raise ConfigError if a model, read from `path`, cannot enhance in this way."""
    if wrong := model.settings.find_timestep_conflict(how.timestep):
        raise ConfigError(f"timestep {how.timestep}: of {path}, {wrong}.")
    if wrong := model.settings.find_sampling_conflict(how.steps, how.noise):
        raise ConfigError(f"enhance: {wrong}, as {path} was trained on it.")


def describe_sampling(how: Sampling, seed: int) -> dict[str, Any]:
    """Return what a store of enhanced embeddings says of how they were made; of the plain single step, the timestep."""
    told: dict[str, Any] = {"timestep": how.timestep}
    if how != Sampling(how.timestep):
        told["sampling"] = {name: value for name, value in asdict(how).items() if name != "timestep"}
    if how.noise:
        told["sampling"]["seed"] = seed
    return told


def read_sampling(attributes: Mapping[str, Any]) -> tuple[Sampling, int]:
    """Return how a store's embeddings were enhanced, and the seed of it."""
    rest = dict(attributes.get("sampling", {}))
    seed = rest.pop("seed", 0)
    return Sampling(attributes["timestep"], **rest), seed


@torch.inference_mode()
def enhance_vectors(
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
        usual = bool(((norms >= ZERO) & (norms <= MAX_ABS)).all())
        rows = None if usual else to_rows(vectors[part], model.dim, device)
        inputs = rows.values if rows else inputs
        draws: Sequence[Sequence[Tensor]] = ()
        if rng:
            drawn = rng.standard_normal((len(inputs), how.noise, noises // how.noise, model.dim), dtype=np.float32)
            draws = [list(each) for each in torch.from_numpy(drawn).permute(1, 2, 0, 3).to(device)]
        result = model(inputs, how, draws)
        if rows:
            peak = float(result.abs().amax())
            done[part] = restore_like(vectors[part], rows, result, peak, share < 1, unusable_mask(rows))
        else:
            done[part] = result.cpu().numpy()
        if progress:
            progress(len(done[part]))
    return done
