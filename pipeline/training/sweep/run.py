"""Compare trainings on cached vectors: one row a set of parameters and seed, each run once and kept."""

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
from pipeline.model.enhance_store import enhance_store
from pipeline.model.model_file import save_model
from pipeline.model.seed_model import SeedModel
from pipeline.scoring.condition_stores import open_condition_stores
from pipeline.scoring.evaluation import evaluate, pair_utterances, usable_mask
from pipeline.store import checksums
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.training.loop import Trained
from pipeline.training.strength import FoldModel, crop_eers
from pipeline.training.sweep.data import SweepData, check_data, contents_of, part_of
from pipeline.training.sweep.grid import Changes, Part, plan_runs
from pipeline.training.train import train
from pipeline.utils.atomic import write_json
from pipeline.utils.device import choose_device

Row = dict[str, Any]
"""What came of one run."""
Models = dict[str, tuple[Trained, float]]
"""Models that were trained, and the seconds it took, by what went in."""
KEPT = 8
"""Of them, how many."""
FAILURES = TrainingError, ConfigError, StoreError, TrialError
"""What one run may end in while others are fine: a loss that is no number, vectors or scores that are none."""
CLEAN = "clean"
TIMED, REPEATS = 1024, 9
"""Vectors by which the time of enhancement is found, and how often."""
REVISIONS = revisions.TRAIN, revisions.ENHANCE, revisions.SCORE
"""With others, the same content gives other rows."""


def run_all(
    grid: Sequence[Changes],
    seeds: Sequence[int],
    params: Params,
    data: SweepData,
    folder: Path,
    progress: Callable[[int], None] | None = None,
) -> list[Row]:
    """Return a row for every set of changes and seed; what `folder` has already is not run again.

    The row of a run that fails has its reason as `failed` and no figures, and is not kept.

    Args:
        grid: see `read_grid`.
        seeds: of each.
        params: what is changed.
        data: trained and measured on.
        folder: where a file a row is kept, by what it depends on.
        progress: called with 1 as each is done.

    Raises:
        ConfigError: see `plan`; all runs are looked at before the first.
        StoreError: a store is missing or damaged, or does not go with the others.
        TrialError: the manifest lacks an utterance or a speaker, or there are no trials of one class.
    """
    planned = plan_runs(grid, seeds, params, data.store, data.speakers)
    for each in {tuple(each.params.conditions): each for each in planned}.values():
        check_data(each.params, data)
    contents = contents_of(data, {name for each in planned for name in each.params.conditions})
    folder.mkdir(parents=True, exist_ok=True)
    rows, models = [], Models()
    for each in planned:
        path = folder / f"{_key(each.params, each.part, contents)}.json"
        row = _kept(path)
        if row is None:
            try:
                store = part_of(data, each.part, each.seed, folder.parent / "parts")
                row = run(each.params, replace(data, store=store), models)
                write_json(path, row)
            except FAILURES as error:
                row = {"failed": str(error)}
        rows.append({"parameters": each.changes, "seed": each.seed} | row)
        if progress:
            progress(1)
    return rows


def _kept(path: Path) -> Row | None:
    """Return a row that was kept, None where it was not, or is damaged: it is then run again."""
    try:
        row = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return row if isinstance(row, dict) and {"validation_loss", "test", "train_seconds"} <= row.keys() else None


def run(params: Params, data: SweepData, trained: Models | None = None) -> Row:
    """Train with some parameters, enhance all conditions and measure them against the raw ones.

    `trained` keeps the last models, so that what differs in enhancement only is trained once.

    `held_out_…` are EERs among training speakers that a model has not seen, clean views as enrolment: what may be
    chosen by, see `choice`. With `train.folds` each is unseen by one of the models that find the strength. The others
    are of the test set, and may not.

    Raises:
        ConfigError: the model cannot be trained or used with these parameters.
        StoreError: a store is damaged, or the model gives vectors that are not finite.
        TrainingError: see `train`.
        TrialError: scores are not finite.
    """
    how = Sampling(**params.enhance.model_dump())
    torch.set_num_threads(params.train.threads)
    models = {} if trained is None else trained
    key = json.dumps([params.seed, params.train.model_dump(mode="json"), how.timestep, str(data.store.path)])
    if key not in models:
        while len(models) >= KEPT:
            del models[next(iter(models))]
        started = perf_counter()
        models[key] = (
            train(
                data.store, params.train, params.seed, how.timestep, data.speakers, choose_device(params.train.device)
            ),
            perf_counter() - started,
        )
    found, seconds = models[key]
    own = _by_itself(how, found.model)
    row: Row = {
        "train_seconds": seconds,
        "validation_loss": found.curve[found.best_epoch].validation_loss,
        "epoch": found.best_epoch,
        "strength": float(found.model.strength),
        **_held_out(found.judges, params, data, own),
    }
    with TemporaryDirectory() as name:
        folder = Path(name)
        save_model(folder / "m.safetensors", found.model, data.store.encoder(), {})
        domain = EmbeddingStore.open(data.conditions / f"{CLEAN}.zarr")
        for condition in params.conditions:
            opened = EmbeddingStore.open(data.conditions / f"{condition}.zarr")
            made = folder / "seed" / f"{condition}.zarr"
            enhance_store(opened, folder / "m.safetensors", made, how, params.seed, domain=domain)
        row["enhance_us"] = microseconds(found.model, domain.read()[domain.ok].reshape(-1, domain.dim), own)
        sources = open_condition_stores({"raw": data.conditions, "seed": folder / "seed"}, params.conditions)
        utterances = select_utterances(next(iter(sources.values())).ids, data.manifest, data.manifest_path)
        pairs = pair_utterances(
            utterances, usable_mask(sources), params.score.max_trials, params.seed, data.manifest_path
        )
        score = params.score.model_copy(update={"systems": {}, "groups": {}, "both_sides": False})
        outcome = evaluate(sources, {"": pairs}, params.conditions, CLEAN, utterances, score, params.seed)
    figures = {condition: systems["seed"] for condition, systems in outcome.table.items()}
    return row | {"test": figures | ({"mean noisy": outcome.mean_noisy["seed"]} if outcome.mean_noisy else {})}


def microseconds(model: SeedModel, raw: NDArray[np.float32], how: Sampling) -> float:
    """Return the median time of enhancing one of raw vectors [N, D] that are in memory, `TIMED` of them at once."""
    vectors, taken = np.resize(raw, (TIMED, model.dim)), []
    for _ in range(1 + REPEATS):
        started = perf_counter()
        enhance_vectors(model, vectors, how)
        taken.append(perf_counter() - started)
    return 1e6 * float(np.median(taken[1:])) / TIMED  # the first was to warm up


def _held_out(judges: Sequence[FoldModel], params: Params, data: SweepData, how: Sampling) -> Row:
    """Return EERs in percent among training speakers that a model has not seen, see `crop_eers`; means over models.

    `held_out_speakers` are so many, and `held_out_of` is the same for the same utterances and draws in the same parts.
    """
    ids, found = [data.store.utterances[row] for row in data.store.ok], []
    encoded = data.store.read()[data.store.ok]
    for judge in judges:
        rows = np.flatnonzero(judge.held)
        known = [data.speakers.get(ids[row]) for row in rows]
        values = encoded[rows]
        flat = enhance_vectors(judge.model, values.reshape(-1, values.shape[3]), how, params.seed)
        eers, raw = (crop_eers(crops, known, params.seed) for crops in (flat.reshape(values.shape), values))
        if eers is None or raw is None:
            return {}
        found.append((*eers, raw[0]))
    names = ("held_out_clean_eer", "held_out_noisy_eer", "held_out_raw_clean_eer")
    parts = sorted(checksums.hash_texts([ids[row] for row in np.flatnonzero(judge.held)]) for judge in judges)
    of_whom = {data.speakers[ids[row]] for judge in judges for row in np.flatnonzero(judge.held)}
    return {
        **dict(zip(names, np.mean(found, axis=0).tolist(), strict=True)),
        "held_out_speakers": len(of_whom),
        "held_out_of": checksums.hash_texts([str(encoded.shape[1:]), *parts])[:16],
    }


def _by_itself(how: Sampling, model: SeedModel) -> Sampling:
    """Return how the model enhances: judges have its strength, not that of their own."""
    return replace(how, strength=float(model.strength)) if how.strength is None else how


def _key(params: Params, part: Part, contents: Mapping[str, str]) -> str:
    """Return a name for what a row depends on: parameters of training, enhancement and scoring, and all contents."""
    used = params.model_dump(mode="json", include={"seed", "train", "enhance", "score", "conditions"})
    for name in WATCHING:
        del used["train"][name]
    used |= part.model_dump(exclude_none=True)
    stores = [f"{name}.zarr" for name in params.conditions]
    made_of = {name: contents[name] for name in ("store", "speakers", "manifest", *stores)}
    return hashlib.sha256(json.dumps([used, made_of, REVISIONS], sort_keys=True).encode()).hexdigest()[:16]
