"""Enhance a store of embeddings with a trained model."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from pipeline.errors import OutputError, StoreError
from pipeline.model.adaptation import adapt_model, leads_away
from pipeline.model.adaptation_record import Adaptation
from pipeline.model.apply import AS_TRAINED, check_sampling, describe_sampling, enhance_vectors
from pipeline.model.diagnostics import MIN_NORM
from pipeline.model.diffusion.sampler import Sampling
from pipeline.model.domain import strength_in_domain
from pipeline.model.model_file import check_encoder, describe_denoiser_mismatch, describe_unknown_encoder, load_model
from pipeline.model.training_stats import describe_norm_mismatch
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.store.zeros import list_first, zero_mask
from pipeline.utils.paths import ENTRY, Place, exists, to_place


@dataclass(frozen=True)
class EnhanceSummary:
    """The summary of an enhancement."""

    vectors: int
    strength: float
    """The interpolation weight from raw to enhanced embeddings."""
    atypicality: float
    """Median over the vectors that decided the strength, see `SeedModel.atypicality`."""
    adaptation: Adaptation | None
    """The adaptation of the model, if any."""


def find_reference(name: str | None, store: Place) -> Place | None:
    """Return the store that `enhance.adapt` names for a store to enhance.

    It is a store ….zarr, or that of a set beside the store to enhance; None if there is none, or without a name.
    """
    if name is None or name.endswith(".zarr"):
        return to_place(name) if name else None
    reference = store.parent / f"{name}.zarr"
    return reference if exists(reference / ENTRY) else None


def find_clean(store: EmbeddingStore) -> EmbeddingStore | None:
    """Return the store `clean.zarr` beside a store if it holds raw embeddings of the same encoder, else None.

    Conditions in one folder thus get one strength. Nobody asked for this store, so an unsuitable one is no error.
    """
    place = find_reference("clean", store.path)
    clean = EmbeddingStore.open(place) if place else None
    return clean if clean and clean.encoder() == store.encoder() and not clean.is_enhanced else None


def enhance_store(
    store: EmbeddingStore,
    model_path: Place,
    out: Place,
    sampling: Sampling = AS_TRAINED,
    seed: int = 0,
    device: torch.device | None = None,
    progress: Callable[[int], None] | None = None,
    adapt: EmbeddingStore | None = None,
    reference: EmbeddingStore | None = None,
    warn: Callable[[str], None] | None = None,
) -> EnhanceSummary:
    """Write the enhanced copy of a store, row for row.

    Failed rows stay failed. The new store has the attributes of the old one, and the checksum of the model as it was
    trained. If `sampling` has no strength, it is the model's own. A model that is not adapted uses less of it, down to
    0, if the speech is out of domain, see `pipeline.model.domain`.

    Args:
        store: a store of raw embeddings.
        model_path: the model file.
        out: the store to write.
        sampling: timestep, steps and strength.
        seed: seed of the noise.
        device: the device to compute on; the CPU if not given.
        progress: called with the number of vectors of each finished batch.
        adapt: raw embeddings to adapt the model to, see `pipeline.model.adaptation`: unlabelled, preferably clean.
        reference: raw embeddings of the same speech, preferably clean, that decide the strength without adaptation, and
            whether an adaptation suits; `store` if not given. Stores that will be compared with each other need the
            same one. If an adaptation suits neither them nor `store`, the strength is 0, see `adaptation.leads_away`.
        warn: called with a warning if the training audio was denoised differently, the encoder may be another one, the
            vectors are much longer or shorter than those of training, or those to adapt to are few or implausible.

    Raises:
        WeightsError: the model cannot be read.
        ConfigError: the model does not support the sampling, or cannot be adapted.
        VectorError: there are too few vectors to adapt to.
        StoreError: a store is damaged, of another encoder than the model's, or enhanced already; or the model returns
            NaN.
        OutputError: `out` is the store itself, or exists and is not a store.
        PlaceError: a remote place does not answer, or refuses.
    """
    from pipeline.store.writer import write_store  # imports Zarr, which the rest does not need

    if out.resolve() == store.path.resolve():
        raise OutputError(f"{out}: is the store to enhance; give another path for the enhanced one.")
    loaded = load_model(model_path, device or torch.device("cpu"))
    for each in filter(None, (store, adapt, reference)):
        each.check_raw()
        check_encoder(loaded, each.attributes, model_path, each.path)
    for describe in (describe_unknown_encoder, describe_denoiser_mismatch):
        if (warning := describe(loaded.encoder, store.attributes)) and warn:
            warn(f"{model_path}: {warning}")
    check_sampling(loaded.model, sampling, model_path)
    values = store.read()
    rows = values[store.ok]
    zero = [store.utterances[row] for row in store.ok[zero_mask(rows)]]
    if zero and warn:
        warn(
            f"{store.path}: {len(zero):,} of {len(rows):,} utterances have a vector of zeros, which stays as it is and"
            f" cannot be scored, first: {list_first(zero)}."
        )
    flat = rows.reshape(-1, store.dim)
    norms = torch.linalg.vector_norm(torch.from_numpy(flat), dim=1)
    if (warning := describe_norm_mismatch(loaded.model.training_stats, norms[norms >= MIN_NORM])) and warn:
        warn(f"{store.path}: {warning}")
    model = loaded.model
    others = reference.read()[reference.ok].reshape(-1, store.dim) if reference else None
    if adapt:
        raw = adapt.read()[adapt.ok].reshape(-1, store.dim)
        model = adapt_model(model, raw, loaded.base_sha256, f"{model_path} with {adapt.path}")
    if model.adaptation:
        strength, atypicality = round(model.default_strength, 6), model.adaptation.atypicality
        source = adapt.path if adapt else model_path
        if (problem := model.adaptation.describe_problem()) and warn:
            warn(f"{source}: {problem}.")
        if sampling.strength is None and leads_away(model, flat) and (others is None or leads_away(model, others)):
            strength = 0.0
            if warn:
                warn(
                    f"{store.path}: {source} is not adapted to speech like this: it takes these vectors away from those"
                    " of training, so they are returned raw. Adapt to this speech, or set the strength with --strength."
                )
    else:
        strength, atypicality = strength_in_domain(model, flat if others is None else others)
    if sampling.strength is None:
        sampling = replace(sampling, strength=strength)
    values[store.ok] = enhance_vectors(model, flat, sampling, seed, progress).reshape(rows.shape)
    bad = store.ok[~np.isfinite(values[store.ok]).all(axis=(1, 2, 3))]
    if len(bad):
        first = list_first([store.utterances[row] for row in bad])
        raise StoreError(
            f"{store.path}: {model_path} returns NaN or infinite vectors for {len(bad):,} of {len(store.ok):,}"
            f" utterances, first: {first}. Train the model again."
        )
    attributes = {key: value for key, value in store.attributes.items() if key != "schema"}
    attributes |= {"enhanced_by_sha256": loaded.base_sha256, **describe_sampling(sampling, seed)}
    if model.adaptation:
        attributes |= {"adaptation": model.adaptation.model_dump(), "shift": model.shift.cpu().tolist()}
    elif 0 < atypicality < np.inf:
        attributes["atypicality"] = round(atypicality, 2)
    write_store(out, store.utterances, values, store.status, attributes)
    return EnhanceSummary(len(flat), float(sampling.strength or 0.0), atypicality, model.adaptation)
