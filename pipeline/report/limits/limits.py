"""All that is found of one encoder: its stores, model and speakers in, gaps, gains, trainings and transfer out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.config.params import Params
from pipeline.data.manifest import read_manifest
from pipeline.data.utterances import Utterances, read_speakers, select_utterances
from pipeline.errors import ConfigError, StoreError, TrialError
from pipeline.model.seed_model import prepare_pairs
from pipeline.report.limits import stability, transfer
from pipeline.report.limits.gain import Bin, Turn, by_gap, quantile_edges, turns
from pipeline.report.limits.gaps import CLEAN, ENHANCED, PREPARED, RAW, Gap, Maps, of_crops, of_utterances, references
from pipeline.report.limits.groups import FIXED, PAIRS, TEST, TRAIN, build_groups, matched, raw_like
from pipeline.scoring.comparison import cosine_scores, mean_units, unit_crops
from pipeline.scoring.condition_stores import ConditionStores, open_condition_stores
from pipeline.scoring.evaluation import every_pair, usable
from pipeline.scoring.sampling import sample_rows
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.store.schema import OK

ROWS = 2048
"""Utterances that stand for a larger training store."""


@dataclass(frozen=True)
class Places:
    """Where an encoder's things lie."""

    embeddings: Path
    """Folder of raw stores: train.zarr, and `<condition>.zarr`."""
    enhanced: Path
    """Folder of what the model made of those of the conditions."""
    model: Path
    train_manifest: Path
    manifest: Path
    """Of the conditions."""
    more: Path
    """Folder of what is not made by the pipeline, each where it is wanted: snr.zarr, a training store of noise of one
    SNR a view; train/<condition>.zarr, utterances of the training speakers corrupted by training sounds; and
    test/<condition>.zarr, those of the test speakers, corrupted by training sounds."""


@dataclass(frozen=True)
class Options:
    """How finely to look."""

    bins: int
    """Of equally many test vectors, by distance."""
    width: float
    """Of bins of SNRs, in dB."""
    max_trials: int
    """Of a condition."""
    seeds: Sequence[int]
    """Of the trainings at one SNR."""
    longer: int | None = None
    """How many times as many epochs these have as the parameters say; None: as make up for the smaller store."""


@dataclass(frozen=True)
class Findings:
    """What was found of one encoder."""

    gaps: list[Gap]
    bins: dict[str, list[Bin]]
    """By where distances were measured."""
    turns: dict[str, tuple[Turn, Turn]]
    trainings: list[stability.Row]
    """At one SNR each."""
    groups: list[transfer.Result]
    kept: list[transfer.Kept]
    matched: list[tuple[str, str, Bin]]
    """Sounds of training against others at the same gap: group, condition, and a range of gaps."""


def analyse(
    places: Places, params: Params, options: Options, runs: Path, step: Callable[[str], None] = lambda what: None
) -> Findings:
    """Measure all that there are stores for.

    Args:
        places: of the encoder's stores, model and manifests.
        params: conditions, bootstrap and seed; and of trainings at one SNR.
        options: how finely to look.
        runs: folder where trainings are kept.
        step: told what is done next.

    Raises:
        ConfigError: no bootstrap, or no corrupted condition.
        StoreError: a store is missing, damaged, or does not go with the others.
        TrialError: a speaker is unknown, or there are no trials of one class.
        WeightsError: the model cannot be read.
    """
    noisy = [name for name in params.conditions if name != CLEAN]
    if params.score.bootstrap < 1 or not noisy:
        raise ConfigError("score.bootstrap must be 1 or more, and conditions must hold a corrupted one, to analyse.")
    step("gaps")
    spaces = open_condition_stores(
        {"raw": places.embeddings, "seed": places.enhanced}, [CLEAN, *noisy], models=[places.model]
    )
    space, train = spaces["seed"], _training(places, spaces["raw"])
    maps = maps_of(space)
    speakers = read_speakers(train, places.train_manifest)
    utterances = select_utterances(space.ids, read_manifest(places.manifest), places.manifest)
    ready = usable(spaces)
    rows = np.flatnonzero(ready)
    known = [utterances.speakers[row] for row in rows]
    tests = spaces["raw"].stores
    gaps = of_crops(train, sample_rows(train.status == OK, ROWS, params.seed), TRAIN, maps, options.width)
    found, lengths = of_utterances(tests, rows, TEST, maps, options.width)
    gaps += found + references(tests[CLEAN], rows, known, TEST, maps, params.seed)
    fixed = places.more / "snr.zarr"
    snr_store = raw_like(EmbeddingStore.open(fixed), space, places.model) if fixed.exists() else None
    if snr_store:
        total = len(stability.levels(snr_store, params.seed)) * len(options.seeds)
        chosen = sample_rows(snr_store.status == OK, ROWS, params.seed)
        gaps += of_crops(snr_store, chosen, FIXED, maps, options.width)
    step("gain by gap")
    bins, turned = _gains(spaces, utterances, ready, lengths, maps, params, options, places.manifest)
    step("transfer")
    groups = build_groups(places.more, places.model, space, train, speakers, tests, rows, utterances, params.seed)
    results, drawn = list[transfer.Result](), transfer.Drawn()
    for group in groups:
        made = transfer.measure(group, space.of_raw, options.max_trials, params.score.bootstrap, params.seed)
        results, drawn = results + made[0], drawn | made[1]
    step("the same gap")
    same_gap = matched(groups, space, options.bins // 2, options.max_trials, params.score.bootstrap, params.seed)
    trained = []
    if snr_store:
        test = _test(tests, utterances, ready, params, options, places.manifest)
        done = iter(range(1, total + 1))
        step(f"training 0 of {total}")
        trained = stability.run_all(
            *(snr_store, speakers, test, params, options.seeds, options.longer or _ratio(train, snr_store), runs),
            lambda count: step(f"training {next(done)} of {total}"),
        )
    return Findings(gaps, bins, turned, trained, results, transfer.kept(results, drawn, PAIRS), same_gap)


def maps_of(space: ConditionStores) -> Maps:
    """Return where distances are measured: as encoded, as the model sees it, and as it enhances."""
    model = space.made_by().model
    return {
        RAW: lambda values: values,
        PREPARED: lambda values: prepare_pairs(model, values).cpu().numpy(),
        ENHANCED: space.of_raw,
    }


def _training(places: Places, raw: ConditionStores) -> EmbeddingStore:
    store = EmbeddingStore.open(places.embeddings / "train.zarr")
    store.check_raw()
    raw.check_encoder_of(store.attributes, store.path)
    if store.shape[2] < 2 or len(store.ok) == 0:
        raise StoreError(f"{store.path}: has no corrupted views. Extract it as the set train.")
    return store


def _ratio(large: EmbeddingStore, small: EmbeddingStore) -> int:
    """Return how many times as many pairs one store holds as another, at least 1."""
    pairs = [len(store.ok) * store.shape[1] for store in (large, small)]
    return max(1, round(pairs[0] / max(1, pairs[1])))


def _gains(
    spaces: Mapping[str, ConditionStores],
    utterances: Utterances,
    ready: NDArray[np.bool_],
    lengths: Mapping[tuple[str, str], NDArray[np.float64]],
    maps: Maps,
    params: Params,
    options: Options,
    manifest: Path,
) -> tuple[dict[str, list[Bin]], dict[str, tuple[Turn, Turn]]]:
    """Pool the trials of all conditions, and measure them by how far the test side was moved."""
    trials = every_pair(utterances, ready, options.max_trials, params.seed, manifest)
    assert trials.target is not None  # of all pairs
    numbers = utterances.numbers()
    who = numbers[trials.enrol], numbers[trials.test]
    conditions = list(spaces["raw"].stores)
    scores: dict[str, list[NDArray[np.float32]]] = {name: [] for name in spaces}
    for name, space in spaces.items():
        units = {each: mean_units(unit_crops(store.read()[:, :, 0])) for each, store in space.stores.items()}
        scores[name] = [cosine_scores(units[CLEAN], units[each], trials) for each in conditions]
    joined = {name: np.concatenate(parts) for name, parts in scores.items()}
    speakers = np.tile(who[0], len(conditions)), np.tile(who[1], len(conditions))
    target = np.tile(trials.target, len(conditions))
    places = np.full(len(ready), -1)
    places[ready] = np.arange(int(ready.sum()))
    tested = places[trials.test]
    found, turned = {}, {}
    for where in (RAW, PREPARED):
        own = {each: lengths[each, where] for each in conditions if each != CLEAN}
        edges = quantile_edges(np.concatenate(list(own.values())), options.bins)
        moved = np.concatenate([own[each][tested] if each in own else np.zeros(len(trials)) for each in conditions])
        bins, drawn = by_gap(
            *(moved, edges, joined["raw"], joined["seed"], target, speakers),
            *(params.score.bootstrap, params.seed),
        )
        if not bins:
            raise TrialError("no range of distances has trials of both classes; take fewer --bins.")
        found[where] = bins
        turned[where] = turns([each.mean for each in bins], [each.gain[0] for each in bins], drawn)
    return found, turned


def _test(
    tests: Mapping[str, EmbeddingStore],
    utterances: Utterances,
    ready: NDArray[np.bool_],
    params: Params,
    options: Options,
    manifest: Path,
) -> stability.Test:
    """Return what trainings at one SNR are measured on: all conditions."""
    trials = every_pair(utterances, ready, options.max_trials, params.seed, manifest)
    vectors = {name: store.read()[:, :, 0] for name, store in tests.items()}
    return stability.Test(vectors, trials)
