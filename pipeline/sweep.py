"""Compare trainings on cached vectors: one row a set of parameters and seed, each run once and kept."""

import hashlib
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np
import torch
from pydantic import Field

from pipeline.bench import utterances_of
from pipeline.comparison import cosine_scores, mean_units, unit_crops
from pipeline.config import Params
from pipeline.diffusion.sampler import Sampling
from pipeline.enhance import enhance, enhanced
from pipeline.errors import ConfigError
from pipeline.evaluation import evaluate, every_pair, usable
from pipeline.manifest import Utterance
from pipeline.metrics import eer, roc_of
from pipeline.model import SeedModel, save_model
from pipeline.places import Place
from pipeline.report import write_json
from pipeline.spaces import open_spaces
from pipeline.store import EmbeddingStore
from pipeline.train import hold_out, train
from pipeline.train_settings import WATCHING
from pipeline.trials import all_pairs
from pipeline.validation import Frozen, load_yaml, validated

Changes = dict[str, Any]
"""Parameters that differ from those of the parameter file, by dotted names."""
CLEAN = "clean"


class Grid(Frozen):
    """What a grid file says."""

    seeds: list[int] = Field([0, 1, 2], min_length=1)
    grid: dict[str, list[Any]] = Field({})
    """Every combination of these values."""
    runs: list[dict[str, Any]] = Field([])
    """And these, one by one."""


@dataclass(frozen=True)
class Data:
    """What all runs are trained and measured on."""

    store: EmbeddingStore
    """Of training pairs."""
    speakers: Mapping[str, str | None]
    """Of its utterances."""
    conditions: Place
    """Folder of the raw stores that are measured, `<condition>.zarr`."""
    manifest: Sequence[Utterance]
    manifest_path: Path


def read_grid(path: Path) -> tuple[list[Changes], list[int]]:
    """Return the sets of changes that a grid file asks for, each once, and the seeds of each.

    Raises:
        ConfigError: it is no such file, or asks for nothing.
    """
    grid = validated(Grid, load_yaml(path), str(path))
    crossed = [dict(zip(grid.grid, values, strict=True)) for values in itertools.product(*grid.grid.values())]
    wanted = (crossed if grid.grid else []) + [dict(run) for run in grid.runs]
    unique = {json.dumps(changes, sort_keys=True): changes for changes in wanted}
    if not unique:
        raise ConfigError(f"{path}: has neither a grid nor runs. Name parameters and their values.")
    return list(unique.values()), grid.seeds


def changed(params: Params, changes: Mapping[str, Any]) -> Params:
    """Return parameters with changes by dotted names.

    Raises:
        ConfigError: a name or a value that there is not.
    """
    content = params.model_dump(mode="json")
    for name, value in changes.items():
        *sections, last = name.split(".")
        place: Any = content
        for section in sections:
            place = place.get(section) if isinstance(place, dict) else None
        if not isinstance(place, dict) or last not in place:
            raise ConfigError(f"{name}: no such parameter. Names are those of params.yaml, joined by dots.")
        place[last] = value
    shown = ", ".join(f"{name}={value}" for name, value in changes.items()) or "no changes"
    return validated(Params, content, shown)


def run_all(
    grid: Sequence[Changes],
    seeds: Sequence[int],
    params: Params,
    data: Data,
    folder: Path,
    progress: Callable[[int], None] | None = None,
) -> list[dict[str, Any]]:
    """Return a row for every set of changes and seed; what `folder` has already is not run again.

    Args:
        grid: see `read_grid`.
        seeds: of each.
        params: what is changed.
        data: trained and measured on.
        folder: where a file a row is kept, by what it depends on.
        progress: called with 1 as each is done.

    Raises:
        ConfigError: see `changed`; all of them are looked at before the first run.
    """
    planned = [(changes, seed, changed(params, {**changes, "seed": seed})) for changes in grid for seed in seeds]
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for changes, seed, settings in planned:
        path = folder / f"{_key(settings, data)}.json"
        if path.exists():
            row = json.loads(path.read_text(encoding="utf-8"))
        else:
            row = run(settings, data)
            write_json(path, row)
        rows.append({"parameters": changes, "seed": seed} | row)
        if progress:
            progress(1)
    return rows


def run(params: Params, data: Data) -> dict[str, Any]:
    """Train with some parameters, enhance all conditions and measure them against the raw ones.

    `held_out_…` are EERs among the held-out training speakers, clean views as enrolment: what may be chosen by. The
    others are of the test set, and may not.
    """
    how = Sampling(**params.enhance.model_dump())
    torch.set_num_threads(params.train.threads)
    started = perf_counter()
    trained = train(data.store, params.train, params.seed, how.timestep, data.speakers)
    row: dict[str, Any] = {
        "train_seconds": perf_counter() - started,
        "validation_loss": trained.curve[trained.best_epoch].validation_loss,
        "epoch": trained.best_epoch,
        **_held_out(trained.model, params, data, how),
    }
    with TemporaryDirectory() as name:
        folder = Path(name)
        save_model(folder / "m.safetensors", trained.model, data.store.encoder(), {})
        count, taken = 0, 0.0
        for condition in params.conditions:
            opened = EmbeddingStore.open(data.conditions / f"{condition}.zarr")
            started = perf_counter()
            made = folder / "seed" / f"{condition}.zarr"
            count += enhance(opened, folder / "m.safetensors", made, how, params.seed)
            taken += perf_counter() - started
        row["enhance_us"] = 1e6 * taken / count
        spaces = open_spaces({"raw": data.conditions, "seed": folder / "seed"}, params.conditions)
        utterances = utterances_of(next(iter(spaces.values())).ids, data.manifest, data.manifest_path)
        pairs = every_pair(utterances, usable(spaces), params.score.max_trials, params.seed, data.manifest_path)
        score = params.score.model_copy(update={"systems": {}, "groups": {}})
        outcome = evaluate(spaces, {"": pairs}, params.conditions, CLEAN, utterances, score, params.seed)
    figures = {condition: systems["seed"] for condition, systems in outcome.table.items()}
    return row | {"test": figures | ({"mean noisy": outcome.mean_noisy["seed"]} if outcome.mean_noisy else {})}


def _held_out(model: SeedModel, params: Params, data: Data, how: Sampling) -> dict[str, float]:
    """Return the EERs in percent among held-out training speakers, all draws of an utterance averaged."""
    ids = [data.store.utterances[row] for row in data.store.ok]
    held, _ = hold_out(ids, data.speakers, params.train.validation, np.random.default_rng(params.seed))
    rows = np.flatnonzero(held)
    known = [data.speakers.get(ids[row]) for row in rows]
    if None in known or len(set(known)) < 2:
        return {}
    values = data.store.read()[data.store.ok[rows]]
    flat = enhanced(model, values.reshape(-1, values.shape[3]), how, params.seed)
    sides = [mean_units(unit_crops(view)) for view in flat.reshape(values.shape).transpose(2, 0, 1, 3)]
    trials = all_pairs(list(map(str, known)), params.score.max_trials, params.seed)
    assert trials.target is not None  # speakers are known
    eers = [100 * eer(roc_of(cosine_scores(sides[0], side, trials), trials.target)) for side in sides]
    return {"held_out_clean_eer": eers[0], "held_out_noisy_eer": float(np.mean(eers[1:]))}


def _key(params: Params, data: Data) -> str:
    """Return a name for what a row depends on: parameters of training, enhancement and scoring, and the stores."""
    used = params.model_dump(mode="json", include={"seed", "train", "enhance", "score", "conditions"})
    for name in WATCHING:
        del used["train"][name]
    stores = [data.store, *(EmbeddingStore.open(data.conditions / f"{name}.zarr") for name in params.conditions)]
    made_of = [dict(store.attributes) for store in stores]
    return hashlib.sha256(json.dumps([used, made_of], sort_keys=True).encode()).hexdigest()[:16]
