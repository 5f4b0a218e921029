"""Enhance a store of embeddings with a trained model."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from pipeline.errors import OutputError, StoreError
from pipeline.model.apply import AS_TRAINED, check_sampling, describe_sampling, enhance_vectors
from pipeline.model.diagnostics import ZERO
from pipeline.model.diffusion.sampler import Sampling
from pipeline.model.domain import strength_in_domain
from pipeline.model.model_file import check_encoder, describe_denoiser_mismatch, describe_unknown_encoder, load_model
from pipeline.model.training_stats import doubt_of_length
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.utils.paths import Place


@dataclass(frozen=True)
class EnhanceSummary:
    """What enhancement has done."""

    vectors: int
    strength: float
    """How far from raw to enhanced embeddings it went."""
    atypicality: float
    """Median over the domain, see `SeedModel.atypicality`."""


def enhance_store(
    store: EmbeddingStore,
    model_path: Place,
    out: Place,
    how: Sampling = AS_TRAINED,
    seed: int = 0,
    device: torch.device | None = None,
    progress: Callable[[int], None] | None = None,
    domain: EmbeddingStore | None = None,
    warn: Callable[[str], None] | None = None,
) -> EnhanceSummary:
    """Write the enhanced copy of a store, row for row.

    Failed rows stay failed. The new store's attributes are the old one's and the model's checksum. Without a strength
    in `how`, it goes as far as training found best, and less or not at all where the speech is not of the kind that the
    model was trained on, see `pipeline.model.domain`. Stores that will be compared with each other need the same
    `domain`.

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
    from pipeline.store.writer import write_store  # and with it Zarr, which `enhance_vectors` does without

    if out.resolve() == store.path.resolve():
        raise OutputError(f"{out}: is the store to enhance; give another place for the enhanced one.")
    loaded = load_model(model_path, device or torch.device("cpu"))
    for each in (store, domain or store):
        each.check_raw()
        check_encoder(loaded, each.attributes, model_path, each.path)
    for doubt in (describe_unknown_encoder, describe_denoiser_mismatch):
        if (said := doubt(loaded.encoder, store.attributes)) and warn:
            warn(f"{model_path}: {said}")
    check_sampling(loaded.model, how, model_path)
    values = store.read()
    rows = values[store.ok]
    flat = rows.reshape(-1, store.dim)
    familiar = flat if domain is None else domain.read()[domain.ok].reshape(-1, store.dim)
    norms = torch.linalg.vector_norm(torch.from_numpy(flat), dim=1)
    if (said := doubt_of_length(loaded.model.training_stats, norms[norms >= ZERO])) and warn:
        warn(f"{store.path}: {said}")
    strength, atypicality = strength_in_domain(loaded.model, familiar)
    if how.strength is None:
        how = replace(how, strength=strength)
    values[store.ok] = enhance_vectors(loaded.model, flat, how, seed, progress).reshape(rows.shape)
    if not np.isfinite(values[store.ok]).all():
        raise StoreError(f"{store.path}: {model_path} gives NaN or infinite vectors for it. Train the model again.")
    attributes = {key: value for key, value in store.attributes.items() if key != "schema"}
    attributes |= {"enhanced_by_sha256": loaded.sha256, **describe_sampling(how, seed)}
    write_store(out, store.utterances, values, store.status, attributes)
    return EnhanceSummary(len(flat), float(how.strength or 0.0), atypicality)
