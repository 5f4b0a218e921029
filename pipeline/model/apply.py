"""Apply a model to arrays of embeddings."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.errors import ConfigError
from pipeline.model.diagnostics import MIN_NORM, unusable_mask
from pipeline.model.diffusion.sampler import Sampling
from pipeline.model.seed_model import SeedModel
from pipeline.utils.arrays import MAX_ABS, restore_like, to_rows
from pipeline.utils.paths import Place

BATCH = 4096
"""Number of vectors in a batch."""
_MAX_NOISES = 8
"""Number of noise vectors per embedding above which batches become smaller."""
AS_TRAINED = Sampling(strength=None)


def check_sampling(model: SeedModel, sampling: Sampling, path: Place) -> None:
    """Raise ConfigError if a model, read from `path`, does not support the sampling."""
    if conflict := model.settings.find_timestep_conflict(sampling.timestep):
        raise ConfigError(f"timestep {sampling.timestep}: cannot be used with {path}, {conflict}.")
    if model.only_timestep is not None and (sampling.timestep, sampling.steps) != (model.only_timestep, 1):
        raise ConfigError(
            f"{path}: is a compact model, which enhances in one step from timestep {model.only_timestep} only. Use that"
            " timestep, or train a model."
        )
    if conflict := model.settings.find_sampling_conflict(sampling.steps, sampling.noise):
        raise ConfigError(f"enhance: {conflict}, because {path} was trained on it.")


def describe_sampling(sampling: Sampling, seed: int) -> dict[str, Any]:
    """Return the attributes of a store of enhanced embeddings; a plain single step has the timestep only."""
    attributes: dict[str, Any] = {"timestep": sampling.timestep}
    if sampling != Sampling(sampling.timestep):
        attributes["sampling"] = {name: value for name, value in asdict(sampling).items() if name != "timestep"}
    if sampling.noise:
        attributes["sampling"]["seed"] = seed
    return attributes


def read_sampling(attributes: Mapping[str, Any]) -> tuple[Sampling, int]:
    """Return the sampling and the seed of a store's enhanced embeddings."""
    rest = dict(attributes.get("sampling", {}))
    seed = rest.pop("seed", 0)
    return Sampling(attributes["timestep"], **rest), seed


@torch.inference_mode()
def enhance_vectors(
    model: SeedModel,
    vectors: NDArray[np.float32],
    sampling: Sampling,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> NDArray[np.float32]:
    """Return enhanced vectors [N, D], computed on the model's device; zero and NaN vectors are returned unchanged.

    Noise is drawn vector by vector on the CPU, so that it depends only on the seed and the vector's index.
    """
    device, enhanced = model.mean.device, np.empty_like(vectors)
    rng = np.random.default_rng(seed) if sampling.noise else None
    strength = model.default_strength if sampling.strength is None else sampling.strength
    noises = sampling.noise * (1 + sampling.steps if sampling.eta > 0 else 1)
    size = BATCH if noises <= _MAX_NOISES else max(1, BATCH * _MAX_NOISES // noises)  # noise takes most of the memory
    for start in range(0, len(vectors), size):
        part = slice(start, start + size)
        inputs = torch.from_numpy(vectors[part]).to(device)
        norms = torch.linalg.vector_norm(inputs, dim=1)
        # True for nearly every batch, and never with NaN: such a batch needs no other checks.
        usable = bool(((norms >= MIN_NORM) & (norms <= MAX_ABS)).all())
        rows = None if usable else to_rows(vectors[part], model.dim, device)
        inputs = rows.values if rows else inputs
        draws: Sequence[Sequence[Tensor]] = ()
        if rng:
            shape = (len(inputs), sampling.noise, noises // sampling.noise, model.dim)
            noise = torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))
            draws = [list(each) for each in noise.permute(1, 2, 0, 3).to(device)]
        result = model(inputs, sampling, draws)
        if rows:
            peak = float(result.abs().amax())
            enhanced[part] = restore_like(vectors[part], rows, result, peak, strength < 1, unusable_mask(rows))
        else:
            enhanced[part] = result.cpu().numpy()
        if progress:
            progress(len(result))
    return enhanced
