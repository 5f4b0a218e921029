"""A verdict on a model for some speech, from recordings without labels.

Two crops of one recording are a target trial, crops of two recordings a non-target trial. The enrolment is clean, the
test clean or corrupted. Recordings of one speaker count as different ones, so the rates are not those of speakers, but
they rise and fall with them.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import TrialError
from pipeline.metrics import Ranking, eer, interval, replicates, roc_of
from pipeline.model.adaptation_record import PRIOR_VECTORS
from pipeline.model.apply import enhance_vectors
from pipeline.model.diffusion.sampler import Sampling
from pipeline.model.domain import strength_in_domain
from pipeline.model.seed_model import SeedModel
from pipeline.training.refit import choose_strength, refit_halves
from pipeline.training.strength import MAX_HARM, Crops

RAW, AS_IS, ADAPTED = "raw", "as is", "adapted"
MIN_RECORDINGS = 2 * PRIOR_VECTORS
"""Minimum number of recordings: the model is adapted to one half of them, and tried on the other."""
RESAMPLES = 300


@dataclass(frozen=True)
class Rates:
    """EERs in %: the estimate, and the limits of its 95 % interval over recordings."""

    clean: tuple[float, float, float]
    noisy: tuple[float, float, float]
    """The mean over the noisy views."""


@dataclass(frozen=True)
class Verdict:
    """The error rates of each system, the best system, and the reason for it."""

    rates: Mapping[str, Rates]
    best: str
    """`raw`, `as is` or `adapted`."""
    reason: str
    strength: float
    """The strength of the model as it is."""
    atypicality: float
    """The median atypicality of the clean crops; 1 is usual."""
    adapted_strength: float
    """The strength of the adapted model."""


def try_model(model: SeedModel, crops: Crops, timestep: int, seed: int = 0) -> Verdict:
    """Compare raw vectors with those of a model as it is, and adapted, on recordings without labels.

    Each half of the recordings is enhanced by the model that is refitted to the other half, see
    `pipeline.training.refit`, and compared within that half. Only the strength is chosen on all of them.

    Args:
        model: a trained model.
        crops: raw embeddings [N, draws, views, D], two draws or more, view 0 clean; rates are of the first two draws.
        timestep: timestep of the enhancement.
        seed: seed of the bootstrap over recordings.

    Raises:
        TrialError: there are fewer than 20 recordings.
        ConfigError: the model cannot be adapted, or was refitted to recordings already.
    """
    if len(crops) < MIN_RECORDINGS:
        raise TrialError(f"{len(crops)} readable recordings; at least {MIN_RECORDINGS} are needed.")
    strength, atypicality = strength_in_domain(model, crops[:, :, 0].reshape(-1, model.dim))
    if model.adaptation:
        strength = model.default_strength
    halves, pair = refit_halves(model, crops), crops[:, :2]
    adapted_strength = choose_strength(halves, timestep, seed)
    systems = {RAW: pair, AS_IS: _enhance(model, pair, Sampling(timestep, strength=strength))}
    systems[ADAPTED] = np.empty_like(pair)
    for half, part in enumerate(halves):
        plausible = part.model.adaptation is not None and part.model.adaptation.is_plausible
        sampling = Sampling(timestep, strength=adapted_strength if plausible else 0.0)
        systems[ADAPTED][half::2] = _enhance(part.model, pair[half::2], sampling)
    drawn = _measure(systems, seed)
    rates = {
        name: Rates(*((float(values[0, kind]), *interval(values[1:, kind])) for kind in (0, 1)))
        for name, values in drawn.items()
    }
    best, reason = _choose(drawn)
    return Verdict(rates, best, reason, strength, atypicality, adapted_strength)


def _enhance(model: SeedModel, crops: Crops, sampling: Sampling) -> Crops:
    return enhance_vectors(model, crops.reshape(-1, crops.shape[-1]), sampling).reshape(crops.shape)


def _measure(systems: Mapping[str, Crops], seed: int) -> dict[str, NDArray[np.float64]]:
    """Return EERs [1 + resamples, 2] in %, clean and noisy, of each system; the first row is the estimate."""
    count, views = len(systems[RAW]), systems[RAW].shape[2]
    enrol, test = (index.reshape(-1) for index in np.indices((count, count)))
    # Two halves are enhanced by two models, which would move them apart: only trials within a half count.
    within = np.tile(enrol % 2 == test % 2, 2)
    enrol, test = np.tile(enrol, 2)[within], np.tile(test, 2)[within]  # either crop is enrolled
    target = enrol == test
    columns = []
    for view in range(views):
        scores = []
        for crops in systems.values():
            unit = crops / np.linalg.norm(crops, axis=-1, keepdims=True).clip(1e-12)
            both = [unit[:, crop, 0] @ unit[:, 1 - crop, view].T for crop in (0, 1)]
            scores.append(np.concatenate([each.reshape(-1) for each in both])[within])
        rankings = [Ranking.from_scores(each, target) for each in scores]
        estimate = np.array([[eer(roc_of(each, target)) for each in scores]])
        drawn = replicates(rankings, enrol, test, [eer], RESAMPLES, seed)[:, :, 0]
        columns.append(100 * np.concatenate([estimate, drawn]))
    noisy = np.mean(columns[1:], axis=0)
    return {name: np.stack([columns[0][:, row], noisy[:, row]], axis=1) for row, name in enumerate(systems)}


def _choose(drawn: Mapping[str, NDArray[np.float64]]) -> tuple[str, str]:
    """Return the system to use and the reason."""
    raw, relative, points = drawn[RAW], *MAX_HARM
    reasons, usable = [], {}
    for name in (AS_IS, ADAPTED):
        values = drawn[name]
        change = values - raw
        harm = change[0, 0] > max(relative * raw[0, 0], points) and interval(change[1:, 0])[0] > 0
        low, high = interval(change[1:, 1])
        gain = f"{name}, noisy EER {change[0, 1]:+z.1f} points [{low:+z.1f}, {high:+z.1f}]"
        if harm:
            reasons.append(f"{gain}, but clean EER {change[0, 0]:+z.1f} points")
        elif high >= 0:
            reasons.append(f"{gain}, which may be chance")
        else:
            usable[name] = values[0, 1]
            reasons.append(gain)
    return min(usable, key=lambda name: usable[name]) if usable else RAW, "; ".join(reasons)
