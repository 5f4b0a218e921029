"""Runs of a sweep: train and measure with each set of parameters and seed, once, and keep the result."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline import revisions
from pipeline.config.params import Params
from pipeline.config.train import WATCHING
from pipeline.data.utterances import select_utterances
from pipeline.errors import ConfigError, StoreError, TrainingError, TrialError
from pipeline.model.apply import enhance_vectors
from pipeline.model.diffusion.sampler import Sampling
from pipeline.model.enhance_store import enhance_store, find_reference
from pipeline.model.model_file import save_model
from pipeline.model.seed_model import SeedModel
from pipeline.scoring.condition_stores import open_condition_stores
from pipeline.scoring.evaluation import evaluate, pair_utterances, usable_mask
from pipeline.store import checksums
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.training.loop import Trained
from pipeline.training.strength import FoldModel, measure_crop_eers
from pipeline.training.sweep.data import SweepData, check_data, hash_data, write_subset
from pipeline.training.sweep.grid import DataSubset, ParameterChanges, plan_runs
from pipeline.training.train import train
from pipeline.utils.atomic import write_json
from pipeline.utils.device import choose_device

SweepRow = dict[str, Any]
"""The figures of one run."""
TrainedModels = dict[str, tuple[Trained, float]]
"""Trained models with the seconds that training took, by seed, parameters and store."""
MAX_MODELS = 8
"""Maximum number of trained models to keep in memory."""
FAILURES = TrainingError, ConfigError, StoreError, TrialError
"""Errors that end one run but not the sweep, such as a loss, vectors or scores that are not finite."""
CLEAN = "clean"
TIMED, REPEATS = 1024, 9
"""Number of vectors to time enhancement with, and of repetitions."""
REVISIONS = revisions.TRAIN, revisions.ENHANCE, revisions.SCORE
"""Code revisions that results depend on."""


def run_sweep(
    grid: Sequence[ParameterChanges],
    seeds: Sequence[int],
    params: Params,
    data: SweepData,
    folder: Path,
    progress: Callable[[int], None] | None = None,
) -> list[SweepRow]:
    """Return a row for each set of changes and each seed; runs whose row is in `folder` are skipped.

    The row of a failed run has the reason as `failed` and no figures, and is not kept.

    Args:
        grid: sets of changes, see `read_grid`.
        seeds: seeds to run each set with.
        params: parameters to change.
        data: training and test data.
        folder: folder for one file per row, named by a hash of everything that the row depends on.
        progress: called with 1 after each run.

    Raises:
        ConfigError: see `plan_runs`; all runs are checked before the first.
        StoreError: a store is missing or damaged, or does not fit the others.
        TrialError: the manifest lacks an utterance or a speaker, or there are no target or no non-target trials.
    """
    planned = plan_runs(grid, seeds, params, data.store, data.speakers)
    for each in {tuple(each.params.conditions): each for each in planned}.values():
        check_data(each.params, data)
    hashes = hash_data(data, {name for each in planned for name in each.params.conditions})
    folder.mkdir(parents=True, exist_ok=True)
    rows, models = [], TrainedModels()
    for each in planned:
        path = folder / f"{_compute_key(each.params, each.subset, hashes)}.json"
        row = _read_row(path)
        if row is None:
            try:
                store = write_subset(data, each.subset, each.seed, folder.parent / "parts")
                row = run_one(each.params, replace(data, store=store), models)
                write_json(path, row)
            except FAILURES as error:
                row = {"failed": str(error)}
        rows.append({"parameters": each.changes, "seed": each.seed} | row)
        if progress:
            progress(1)
    return rows


def _read_row(path: Path) -> SweepRow | None:
    """Return the row in a file; None if it is missing or damaged."""
    try:
        row = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return row if isinstance(row, dict) and {"validation_loss", "test", "train_seconds"} <= row.keys() else None


def run_one(params: Params, data: SweepData, models: TrainedModels) -> SweepRow:
    """Train with some parameters, enhance all conditions, and compare them with the raw ones.

    `models` keeps the last models, so runs that differ only in enhancement share one training.

    `held_out_…` are EERs among held-out training speakers, with clean views as enrolment; `select_parameters` uses
    these. With `train.folds` each speaker is held out from one of the models that find the strength. The other EERs are
    those of the test set, which must not guide the choice.

    Raises:
        ConfigError: the model cannot be trained or used with these parameters.
        StoreError: a store is damaged, or the model returns vectors that are not finite.
        TrainingError: training fails, see `train`.
        TrialError: scores are not finite.
    """
    sampling = Sampling(**params.enhance.sampling())
    torch.set_num_threads(params.train.threads)
    key = json.dumps([params.seed, params.train.model_dump(mode="json"), sampling.timestep, str(data.store.path)])
    if key not in models:
        while len(models) >= MAX_MODELS:
            del models[next(iter(models))]
        started = perf_counter()
        device = choose_device(params.train.device)
        model = train(data.store, params.train, params.seed, sampling.timestep, data.speakers, device)
        models[key] = model, perf_counter() - started
    trained, seconds = models[key]
    resolved = _resolve_strength(sampling, trained.model)
    row: SweepRow = {
        "train_seconds": seconds,
        "validation_loss": trained.curve[trained.best_epoch].validation_loss,
        "epoch": trained.best_epoch,
        "strength": float(trained.model.strength),
        **_measure_held_out(trained.fold_models, params, data, resolved),
    }
    with TemporaryDirectory() as name:
        folder = Path(name)
        save_model(folder / "m.safetensors", trained.model, data.store.encoder(), {})
        clean = EmbeddingStore.open(data.conditions / f"{CLEAN}.zarr")
        domain = find_reference(params.enhance.adapt, clean.path)
        adapt = EmbeddingStore.open(domain) if domain else None
        for condition in params.conditions:
            opened = EmbeddingStore.open(data.conditions / f"{condition}.zarr")
            made = folder / "seed" / f"{condition}.zarr"
            enhance_store(opened, folder / "m.safetensors", made, sampling, params.seed, adapt=adapt, reference=clean)
        row["enhance_us"] = time_enhancement(trained.model, clean.read()[clean.ok].reshape(-1, clean.dim), resolved)
        sources = open_condition_stores({"raw": data.conditions, "seed": folder / "seed"}, params.conditions)
        utterances = select_utterances(next(iter(sources.values())).ids, data.manifest, data.manifest_path)
        usable, most = usable_mask(sources), params.score.max_trials
        pairs = pair_utterances(utterances, usable, most, params.seed, data.manifest_path)
        score = params.score.model_copy(update={"systems": {}, "groups": {}, "both_sides": False})
        outcome = evaluate(sources, {"": pairs}, params.conditions, CLEAN, utterances, score, params.seed)
    figures = {condition: systems["seed"] for condition, systems in outcome.table.items()}
    return row | {"test": figures | ({"mean noisy": outcome.mean_noisy["seed"]} if outcome.mean_noisy else {})}


def time_enhancement(model: SeedModel, raw: NDArray[np.float32], sampling: Sampling) -> float:
    """Return the median time in microseconds to enhance a vector of [N, D] in memory, in batches of `TIMED`."""
    vectors, seconds = np.resize(raw, (TIMED, model.dim)), []
    for _ in range(1 + REPEATS):
        started = perf_counter()
        enhance_vectors(model, vectors, sampling)
        seconds.append(perf_counter() - started)
    return 1e6 * float(np.median(seconds[1:])) / TIMED  # the first is a warm-up


def _measure_held_out(folds: Sequence[FoldModel], params: Params, data: SweepData, sampling: Sampling) -> SweepRow:
    """Return mean EERs of held-out training speakers (%), their number, and a hash of shape and held-out utterances."""
    ids, measured = [data.store.utterances[row] for row in data.store.ok], []
    encoded = data.store.read()[data.store.ok]
    for fold in folds:
        rows = np.flatnonzero(fold.held)
        known = [data.speakers.get(ids[row]) for row in rows]
        values = encoded[rows]
        flat = enhance_vectors(fold.model, values.reshape(-1, values.shape[3]), sampling, params.seed)
        eers, raw = (measure_crop_eers(crops, known, params.seed) for crops in (flat.reshape(values.shape), values))
        if eers is None or raw is None:
            return {}
        measured.append((*eers, raw[0]))
    names = ("held_out_clean_eer", "held_out_noisy_eer", "held_out_raw_clean_eer")
    parts = sorted(checksums.hash_texts([ids[row] for row in np.flatnonzero(fold.held)]) for fold in folds)
    speakers = {data.speakers[ids[row]] for fold in folds for row in np.flatnonzero(fold.held)}
    return {
        **dict(zip(names, np.mean(measured, axis=0).tolist(), strict=True)),
        "held_out_speakers": len(speakers),
        "held_out_of": checksums.hash_texts([str(encoded.shape[1:]), *parts])[:16],
    }


def _resolve_strength(sampling: Sampling, model: SeedModel) -> Sampling:
    """Return the sampling with the model's own strength filled in, for use with its fold models."""
    return replace(sampling, strength=float(model.strength)) if sampling.strength is None else sampling


def _compute_key(params: Params, subset: DataSubset, hashes: Mapping[str, str]) -> str:
    """Return a hash of everything that a row depends on: parameters of training, enhancement and scoring, and data."""
    used = params.model_dump(mode="json", include={"seed", "train", "enhance", "score", "conditions"})
    for name in WATCHING:
        del used["train"][name]
    used |= subset.model_dump(exclude_none=True)
    stores = [f"{name}.zarr" for name in params.conditions]
    inputs = {name: hashes[name] for name in ("store", "speakers", "manifest", *stores)}
    return hashlib.sha256(json.dumps([used, inputs, REVISIONS], sort_keys=True).encode()).hexdigest()[:16]
