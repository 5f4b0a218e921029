"""How training behaves as the gap grows: SEED trained on one noise view at a time, several seeds of each."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline import revisions
from pipeline.config.params import Params
from pipeline.data.trials.table import Index, Trials, make_all_pairs
from pipeline.errors import TrainingError
from pipeline.metrics import eer, roc_of
from pipeline.model.apply import enhance_vectors
from pipeline.model.diffusion.sampler import Sampling
from pipeline.report.limits.gaps import CLEAN, corruptions
from pipeline.scoring.comparison import Vectors, cosine_scores, mean_units, unit_crops
from pipeline.scoring.sampling import read_some
from pipeline.store import checksums
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.training.train import hold_out, train
from pipeline.utils.atomic import write_json

Row = dict[str, Any]
"""What came of one training."""

FIGURES = (
    *("epochs", "best_epoch", "untrained_loss", "best_loss", "final_loss", "gradient_mean", "gradient_max"),
    *("held_out_raw_eer", "held_out_seed_eer"),
)
"""Losses are of held-out speakers, in the space of each model's own preconditioner."""


@dataclass(frozen=True)
class Test:
    """Other speakers, whole utterances."""

    vectors: Mapping[str, Vectors]
    """Raw embeddings [N, crops, D] by condition."""
    trials: Trials

    def checksum(self) -> str:
        """Return that of all vectors and trials."""
        assert self.trials.target is not None  # of all pairs
        trials = self.trials.enrol, self.trials.test, self.trials.target
        return checksums.hash_texts([*self.vectors, checksums.hash_arrays([*self.vectors.values(), *trials])])


def levels(store: EmbeddingStore, seed: int) -> dict[str, float]:
    """Return the SNR in dB of every noisy view, by its name, lowest first.

    Raises:
        TrainingError: a view has no SNR, or many.
    """
    names, _, snrs = corruptions(store, store.ok, CLEAN)
    found = {}
    for view, name in enumerate(names[1:], start=1):
        values = np.unique(snrs[:, :, view])
        if len(values) != 1 or np.isnan(values[0]):
            raise TrainingError(f"{store.path}: view {name} is not noise of one SNR. Extract with params/snr.yaml.")
        found[name] = float(values[0])
    return dict(sorted(found.items(), key=lambda each: each[1]))


def run_all(
    store: EmbeddingStore,
    speakers: Mapping[str, str | None],
    test: Test,
    params: Params,
    seeds: Sequence[int],
    longer: int,
    folder: Path,
    progress: Callable[[int], None] | None = None,
) -> list[Row]:
    """Return a row for every noisy view and seed; what `folder` has already is not trained again.

    Args:
        store: clean view first, each other one noise of one SNR.
        speakers: of its utterances.
        test: to measure on.
        params: of training and enhancement.
        seeds: of weights, order, noise and of which speakers are held out.
        longer: how many times as many epochs there are to be as the parameters say.
        folder: where a file a training is kept, by what it depends on.
        progress: called with 1 as each is done.

    Raises:
        StoreError: the store is damaged.
        TrainingError: see `levels`.
    """
    torch.set_num_threads(params.train.threads)
    settings = lengthened(params, longer)
    contents = [
        checksums.hash_store(store),
        checksums.hash_texts(f"{name}\t{speaker}" for name, speaker in sorted(speakers.items())),
        test.checksum(),
    ]
    rows = []
    for view, snr in levels(store, params.seed).items():
        for seed in seeds:
            path = folder / f"{_key(settings, view, seed, contents)}.json"
            if path.exists():
                row = json.loads(path.read_text(encoding="utf-8"))
            else:
                row = run(store, speakers, test, settings, view, seed)
                write_json(path, row)
            rows.append({"view": view, "snr": snr, "seed": seed} | row)
            if progress:
                progress(1)
    return rows


def lengthened(params: Params, times: int) -> Params:
    """Return parameters of so many times as many epochs, so that a smaller store gets as many steps, all of them.

    The strength is found by held-out speakers alone; folds would take most of the time of so many trainings.
    """
    train = params.train
    epochs = times * train.max_epochs
    more = {"max_epochs": epochs, "patience": max(1, epochs), "warmup": times * train.warmup, "folds": 0}
    return params.model_copy(update={"train": train.model_copy(update=more)})


def run(
    store: EmbeddingStore, speakers: Mapping[str, str | None], test: Test, params: Params, view: str, seed: int
) -> Row:
    """Train on the clean view and one other; a training that breaks off at once has its reason as `failed`."""
    how = Sampling(**params.enhance.model_dump())
    settings = params.train.model_copy(update={"noisy_views": [view]})
    try:
        trained = train(store, settings, seed, how.timestep, speakers)
    except TrainingError as error:
        return {"failed": str(error)}
    curve = trained.curve
    row: Row = {
        "epochs": len(curve) - 1,
        "best_epoch": trained.best_epoch,
        "untrained_loss": curve[0].validation_loss,
        "best_loss": curve[trained.best_epoch].validation_loss,
        "final_loss": curve[-1].validation_loss,
    }
    if len(curve) > 1:
        row["gradient_mean"] = float(np.mean([epoch.gradient_norm for epoch in curve[1:]]))
        row["gradient_max"] = max(epoch.gradient_peak for epoch in curve[1:])
    if trained.stopped:
        row["stopped"] = trained.stopped

    def to_seed(crops: Vectors) -> Vectors:
        flat = crops.reshape(-1, crops.shape[-1])
        return enhance_vectors(trained.model, flat, how, params.seed).reshape(crops.shape)

    held = held_out(store, speakers, params.train.validation, seed)
    known = [speakers.get(store.utterances[place]) for place in held]
    if None not in known and len(set(known)) > 1:
        names = corruptions(store, held[:1], CLEAN)[0]
        crops = read_some(store, held)[:, :, [0, names.index(view)]]
        trials = make_all_pairs(list(map(str, known)), params.score.max_trials, params.seed)
        for system, mapped in (("raw", lambda same: same), ("seed", to_seed)):
            row[f"held_out_{system}_eer"] = error_rate(mapped(crops[:, :, 0]), mapped(crops[:, :, 1]), trials)
    clean = to_seed(test.vectors[CLEAN])
    row["test"] = {
        name: error_rate(clean, clean if name == CLEAN else to_seed(values), test.trials)
        for name, values in test.vectors.items()
    }
    return row


def held_out(store: EmbeddingStore, speakers: Mapping[str, str | None], share: float, seed: int) -> Index:
    """Return the rows that a training of this seed keeps for validation."""
    ids = [store.utterances[row] for row in store.ok]
    held, _ = hold_out(ids, speakers, share, np.random.default_rng(seed))
    return store.ok[held]


def error_rate(enrol: Vectors, test: Vectors, trials: Trials) -> float:
    """Return the EER in percent, by the cosine of mean unit crops, of embeddings [N, crops, D] of both sides."""
    assert trials.target is not None  # of all pairs
    sides = [mean_units(unit_crops(side)) for side in (enrol, test)]
    return 100 * eer(roc_of(cosine_scores(sides[0], sides[1], trials), trials.target))


def table(encoder: str, rows: Sequence[Row]) -> Iterator[list[str]]:
    """Yield the rows of a CSV of `columns`."""
    for row in rows:
        figures = [row.get(name) for name in FIGURES] + list(row.get("test", {}).values())
        line = [encoder, row["view"], f"{row['snr']:g}", str(row["seed"])]
        yield line + ["" if value is None else f"{value:.6g}" for value in figures]


def columns(rows: Sequence[Row]) -> list[str]:
    """Return the columns of that."""
    tests = dict.fromkeys(f"test {name} eer" for row in rows for name in row.get("test", {}))
    return ["encoder", "view", "snr", "seed", *FIGURES, *tests]


def _key(params: Params, view: str, seed: int, contents: Sequence[str]) -> str:
    """Return a name for what a row depends on, contents being checksums of all that it is trained and measured on."""
    used = params.model_dump(mode="json", include={"seed", "train", "enhance"})
    for name in ("threads", "device", "memory"):
        used["train"].pop(name)
    used |= {"max_trials": params.score.max_trials, "view": view, "training_seed": seed}
    content = json.dumps([used, *contents, revisions.TRAIN, revisions.ENHANCE], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]
