"""Compare trainings on cached vectors: one row a set of parameters and seed, each run once and kept."""

import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np
import torch
from pydantic import Field

from pipeline import checksums
from pipeline.bench import utterances_of
from pipeline.choice import OF_DATA
from pipeline.config import Params
from pipeline.diffusion.sampler import Sampling
from pipeline.enhance import REVISION as ENHANCEMENT
from pipeline.enhance import enhance, enhanced
from pipeline.errors import ConfigError
from pipeline.evaluation import REVISION as EVALUATION
from pipeline.evaluation import evaluate, every_pair, usable
from pipeline.journal import write_store
from pipeline.manifest import Utterance
from pipeline.model import SeedModel, save_model
from pipeline.operating import Judge, crop_eers
from pipeline.optimise import Trained
from pipeline.places import Place
from pipeline.report import write_json
from pipeline.spaces import open_spaces
from pipeline.store import EmbeddingStore
from pipeline.train_settings import WATCHING
from pipeline.training import REVISION as TRAINING
from pipeline.training import train
from pipeline.validation import Frozen, load_yaml, validated

Changes = dict[str, Any]
"""Parameters that differ from those of the parameter file, by dotted names."""
Models = dict[str, tuple[Trained, float]]
"""Models that were trained, and the seconds it took, by what went in."""
KEPT = 8
"""Of them, how many."""
CLEAN = "clean"
REVISIONS = TRAINING, ENHANCEMENT, EVALUATION
"""With others, the same content gives other rows."""


class Grid(Frozen):
    """What a grid file says."""

    seeds: list[int] = Field([0, 1, 2], min_length=1)
    grid: dict[str, list[Any]] = Field({})
    """Every combination of these values."""
    runs: list[dict[str, Any]] = Field([])
    """And these, one by one."""


class Part(Frozen):
    """Some of the training store: `data.speakers` and `data.draws` in a grid."""

    speakers: int | None = Field(None, ge=2)
    draws: int | None = Field(None, ge=1)


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
    planned = []
    for changes in grid:
        part = validated(
            Part,
            {name.removeprefix(OF_DATA): value for name, value in changes.items() if name.startswith(OF_DATA)},
            OF_DATA,
        )
        others = {name: value for name, value in changes.items() if not name.startswith(OF_DATA)}
        planned += [(changes, seed, changed(params, {**others, "seed": seed}), part) for seed in seeds]
    folder.mkdir(parents=True, exist_ok=True)
    contents = contents_of(data, {name for _, _, settings, _ in planned for name in settings.conditions})
    rows, models = [], Models()
    for changes, seed, settings, part in planned:
        path = folder / f"{_key(settings, part, contents)}.json"
        if path.exists():
            row = json.loads(path.read_text(encoding="utf-8"))
        else:
            store = part_of(data, part, seed, folder.parent / "parts")
            row = run(settings, replace(data, store=store), models)
            write_json(path, row)
        rows.append({"parameters": changes, "seed": seed} | row)
        if progress:
            progress(1)
    return rows


def run(params: Params, data: Data, trained: Models | None = None) -> dict[str, Any]:
    """Train with some parameters, enhance all conditions and measure them against the raw ones.

    `trained` keeps the last models, so that what differs in enhancement only is trained once.

    `held_out_…` are EERs among training speakers that a model has not seen, clean views as enrolment: what may be
    chosen by, see `choice`. With `train.folds` each is unseen by one of the models that find the strength. The others
    are of the test set, and may not.
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
            train(data.store, params.train, params.seed, how.timestep, data.speakers),
            perf_counter() - started,
        )
    found, seconds = models[key]
    row: dict[str, Any] = {
        "train_seconds": seconds,
        "validation_loss": found.curve[found.best_epoch].validation_loss,
        "epoch": found.best_epoch,
        "strength": float(found.model.strength),
        **_held_out(found.judges, params, data, _by_itself(how, found.model)),
    }
    with TemporaryDirectory() as name:
        folder = Path(name)
        save_model(folder / "m.safetensors", found.model, data.store.encoder(), {})
        count, taken = 0, 0.0
        domain = EmbeddingStore.open(data.conditions / f"{CLEAN}.zarr")
        for condition in params.conditions:
            opened = EmbeddingStore.open(data.conditions / f"{condition}.zarr")
            started = perf_counter()
            made = folder / "seed" / f"{condition}.zarr"
            done = enhance(opened, folder / "m.safetensors", made, how, params.seed, domain=domain)
            count += done.vectors
            taken += perf_counter() - started
        row["enhance_us"] = 1e6 * taken / count
        spaces = open_spaces({"raw": data.conditions, "seed": folder / "seed"}, params.conditions)
        utterances = utterances_of(next(iter(spaces.values())).ids, data.manifest, data.manifest_path)
        pairs = every_pair(utterances, usable(spaces), params.score.max_trials, params.seed, data.manifest_path)
        score = params.score.model_copy(update={"systems": {}, "groups": {}, "both_sides": False})
        outcome = evaluate(spaces, {"": pairs}, params.conditions, CLEAN, utterances, score, params.seed)
    figures = {condition: systems["seed"] for condition, systems in outcome.table.items()}
    return row | {"test": figures | ({"mean noisy": outcome.mean_noisy["seed"]} if outcome.mean_noisy else {})}


def _held_out(judges: Sequence[Judge], params: Params, data: Data, how: Sampling) -> dict[str, float]:
    """Return EERs in percent among training speakers that a model has not seen, see `crop_eers`; means over models."""
    ids, found = [data.store.utterances[row] for row in data.store.ok], []
    encoded = data.store.read()[data.store.ok]
    for judge in judges:
        rows = np.flatnonzero(judge.held)
        known = [data.speakers.get(ids[row]) for row in rows]
        values = encoded[rows]
        flat = enhanced(judge.model, values.reshape(-1, values.shape[3]), how, params.seed)
        eers, raw = (crop_eers(crops, known, params.seed) for crops in (flat.reshape(values.shape), values))
        if eers is None or raw is None:
            return {}
        found.append((*eers, raw[0]))
    names = ("held_out_clean_eer", "held_out_noisy_eer", "held_out_raw_clean_eer")
    return dict(zip(names, np.mean(found, axis=0).tolist(), strict=True))


def _by_itself(how: Sampling, model: SeedModel) -> Sampling:
    """Return how the model enhances: judges have its strength, not that of their own."""
    return replace(how, strength=float(model.strength)) if how.strength is None else how


def part_of(data: Data, part: Part, seed: int, folder: Path) -> EmbeddingStore:
    """Return the training store with some of its speakers and draws only, as a store in a folder.

    The speakers are a seeded choice, those of a smaller number being among those of a larger one.
    """
    store = data.store
    if part == Part():
        return store
    path = folder / f"speakers{part.speakers}-draws{part.draws}-seed{seed}.zarr"
    names = sorted({str(data.speakers.get(name)) for name in store.utterances})
    chosen = set(np.random.default_rng(seed).permutation(names)[: part.speakers].tolist())
    rows = [row for row, name in enumerate(store.utterances) if str(data.speakers.get(name)) in chosen]
    attributes = {key: value for key, value in store.attributes.items() if key != "schema"}
    ids, status = [store.utterances[row] for row in rows], store.status[rows]
    write_store(path, ids, store.read()[rows, : part.draws], status, attributes)
    return EmbeddingStore.open(path)


def contents_of(data: Data, conditions: Iterable[str]) -> dict[str, str]:
    """Return checksums of what all runs are trained and measured on: vectors, speakers, and both by condition.

    Raises:
        StoreError: a store is missing or damaged.
    """
    stores = {f"{name}.zarr": EmbeddingStore.open(data.conditions / f"{name}.zarr") for name in sorted(conditions)}
    return {
        "store": checksums.of_store(data.store),
        "speakers": checksums.of_texts(f"{name}\t{speaker}" for name, speaker in sorted(data.speakers.items())),
        "manifest": checksums.of_texts(map(repr, data.manifest)),
        **{name: checksums.of_store(store) for name, store in stores.items()},
    }


def _key(params: Params, part: Part, contents: Mapping[str, str]) -> str:
    """Return a name for what a row depends on: parameters of training, enhancement and scoring, and all contents."""
    used = params.model_dump(mode="json", include={"seed", "train", "enhance", "score", "conditions"})
    for name in WATCHING:
        del used["train"][name]
    used |= part.model_dump(exclude_none=True)
    stores = [f"{name}.zarr" for name in params.conditions]
    made_of = {name: contents[name] for name in ("store", "speakers", "manifest", *stores)}
    return hashlib.sha256(json.dumps([used, made_of, REVISIONS], sort_keys=True).encode()).hexdigest()[:16]
