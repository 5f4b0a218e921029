"""Training at growing gaps: SEED trained on one noise view at a time, with several seeds each."""

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
from pipeline.data.trials.table import Trials, make_all_pairs
from pipeline.errors import TrainingError
from pipeline.metrics import eer, roc_of
from pipeline.model.apply import enhance_vectors
from pipeline.model.diffusion.sampler import Sampling
from pipeline.report.limits.gaps import CLEAN, read_corruptions
from pipeline.scoring.comparison import cosine_scores, mean_units, unit_crops
from pipeline.scoring.sampling import read_selected_rows
from pipeline.store import checksums
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.training.train import hold_out, train
from pipeline.utils.array_types import Float32Array, IntArray
from pipeline.utils.atomic import write_json

TrainingRow = dict[str, Any]
"""The figures of one training."""

FIGURES = (
    *("epochs", "best_epoch", "untrained_loss", "best_loss", "final_loss", "gradient_mean", "gradient_max"),
    *("held_out_raw_eer", "held_out_seed_eer"),
)
"""The figures of a training. Losses are those of held-out speakers, in the space of the model's preconditioner."""


@dataclass(frozen=True)
class TestData:
    """Whole utterances of other speakers."""

    vectors: Mapping[str, Float32Array]
    """Raw embeddings [N, crops, D] by condition."""
    trials: Trials

    def checksum(self) -> str:
        """Return the checksum of all vectors and trials."""
        assert self.trials.target is not None  # all pairs have labels
        trials = self.trials.enrol, self.trials.test, self.trials.target
        return checksums.hash_texts([*self.vectors, checksums.hash_arrays([*self.vectors.values(), *trials])])


def read_snr_levels(store: EmbeddingStore, seed: int) -> dict[str, float]:
    """Return the SNR in dB of every noisy view by name, lowest first.

    Raises:
        TrainingError: a view has no SNR, or several.
    """
    names, _, snrs = read_corruptions(store, store.ok, CLEAN)
    levels = {}
    for view, name in enumerate(names[1:], start=1):
        values = np.unique(snrs[:, :, view])
        if len(values) != 1 or np.isnan(values[0]):
            raise TrainingError(f"{store.path}: view {name} is not noise of one SNR. Extract with params/snr.yaml.")
        levels[name] = float(values[0])
    return dict(sorted(levels.items(), key=lambda each: each[1]))


def train_on_views(
    store: EmbeddingStore,
    speakers: Mapping[str, str | None],
    test: TestData,
    params: Params,
    seeds: Sequence[int],
    longer: int,
    folder: Path,
    progress: Callable[[int], None] | None = None,
) -> list[TrainingRow]:
    """Train on every noisy view with every seed, and return a row for each; rows in `folder` are reused.

    Args:
        store: training store with the clean view first; each other view has noise of one SNR.
        speakers: speakers of its utterances.
        test: data to measure on.
        params: parameters of training and enhancement.
        seeds: seeds of weights, order, noise, and the choice of held-out speakers.
        longer: factor for the number of epochs in the parameters.
        folder: folder with one file for each training, named after all that it depends on.
        progress: called with 1 after each training.

    Raises:
        StoreError: the store is damaged.
        TrainingError: see `read_snr_levels`.
    """
    torch.set_num_threads(params.train.threads)
    settings = extend_epochs(params, longer)
    contents = [
        checksums.hash_store(store),
        checksums.hash_texts(f"{name}\t{speaker}" for name, speaker in sorted(speakers.items())),
        test.checksum(),
    ]
    rows = []
    for view, snr in read_snr_levels(store, params.seed).items():
        for seed in seeds:
            path = folder / f"{_key(settings, view, seed, contents)}.json"
            if path.exists():
                row = json.loads(path.read_text(encoding="utf-8"))
            else:
                row = train_on_view(store, speakers, test, settings, view, seed)
                write_json(path, row)
            rows.append({"view": view, "snr": snr, "seed": seed} | row)
            if progress:
                progress(1)
    return rows


def extend_epochs(params: Params, factor: int) -> Params:
    """Return parameters with `factor` times as many epochs, and without early stopping.

    A smaller store then gets as many steps as a larger one. The strength is found on held-out speakers only, because
    folds would take most of the time.
    """
    train = params.train
    epochs = factor * train.max_epochs
    more = {"max_epochs": epochs, "patience": max(1, epochs), "warmup": factor * train.warmup, "folds": 0}
    return params.model_copy(update={"train": train.model_copy(update=more)})


def train_on_view(
    store: EmbeddingStore, speakers: Mapping[str, str | None], test: TestData, params: Params, view: str, seed: int
) -> TrainingRow:
    """Train on the clean view and a noisy one; a training that fails has only its reason, as `failed`."""
    sampling = Sampling(**params.enhance.sampling())
    settings = params.train.model_copy(update={"noisy_views": [view]})
    try:
        trained = train(store, settings, seed, sampling.timestep, speakers)
    except TrainingError as error:
        return {"failed": str(error)}
    curve = trained.curve
    row: TrainingRow = {
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

    def to_seed(crops: Float32Array) -> Float32Array:
        flat = crops.reshape(-1, crops.shape[-1])
        return enhance_vectors(trained.model, flat, sampling, params.seed).reshape(crops.shape)

    held = find_held_out_rows(store, speakers, params.train.validation, seed)
    known = [speakers.get(store.utterances[place]) for place in held]
    if None not in known and len(set(known)) > 1:
        names = read_corruptions(store, held[:1], CLEAN)[0]
        crops = read_selected_rows(store, held)[:, :, [0, names.index(view)]]
        trials = make_all_pairs(list(map(str, known)), params.score.max_trials, params.seed)
        for system, mapped in (("raw", lambda values: values), ("seed", to_seed)):
            row[f"held_out_{system}_eer"] = measure_eer(mapped(crops[:, :, 0]), mapped(crops[:, :, 1]), trials)
    clean = to_seed(test.vectors[CLEAN])
    row["test"] = {
        name: measure_eer(clean, clean if name == CLEAN else to_seed(values), test.trials)
        for name, values in test.vectors.items()
    }
    return row


def find_held_out_rows(store: EmbeddingStore, speakers: Mapping[str, str | None], share: float, seed: int) -> IntArray:
    """Return the rows that a training with this seed holds out for validation."""
    ids = [store.utterances[row] for row in store.ok]
    held, _ = hold_out(ids, speakers, share, np.random.default_rng(seed))
    return store.ok[held]


def measure_eer(enrol: Float32Array, test: Float32Array, trials: Trials) -> float:
    """Return the EER in percent of embeddings [N, crops, D] of both sides, by the cosine of mean unit crops."""
    assert trials.target is not None  # all pairs have labels
    sides = [mean_units(unit_crops(side)) for side in (enrol, test)]
    return 100 * eer(roc_of(cosine_scores(sides[0], sides[1], trials), trials.target))


def format_trainings(encoder: str, rows: Sequence[TrainingRow]) -> Iterator[list[str]]:
    """Yield the rows of a CSV with `training_columns`."""
    for row in rows:
        figures = [row.get(name) for name in FIGURES] + list(row.get("test", {}).values())
        line = [encoder, row["view"], f"{row['snr']:zg}", str(row["seed"])]
        yield line + ["" if value is None else f"{value:z.6g}" for value in figures]


def training_columns(rows: Sequence[TrainingRow]) -> list[str]:
    """Return the columns of a CSV of trainings."""
    tests = dict.fromkeys(f"test {name} eer" for row in rows for name in row.get("test", {}))
    return ["encoder", "view", "snr", "seed", *FIGURES, *tests]


def _key(params: Params, view: str, seed: int, contents: Sequence[str]) -> str:
    """Return a hash of all that a row depends on: parameters, revisions, and checksums of the data (`contents`)."""
    used = params.model_dump(mode="json", include={"seed", "train", "enhance"})
    for name in ("threads", "device", "memory"):
        used["train"].pop(name)
    used |= {"max_trials": params.score.max_trials, "view": view, "training_seed": seed}
    content = json.dumps([used, *contents, revisions.TRAIN, revisions.ENHANCE], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]
