"""Analysis of the limits of one encoder: gaps, gains, trainings and transfer, from its stores and its model."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.config.params import Params
from pipeline.data.manifest import read_manifest
from pipeline.data.trials.table import Trials
from pipeline.data.utterances import read_speakers_and_corpora, select_utterances
from pipeline.errors import ConfigError, StoreError, TrialError
from pipeline.model.seed_model import prepare_pairs
from pipeline.report.limits import gaps, stability, transfer
from pipeline.report.limits.gain import GapBin, SignChange, find_sign_changes, measure_by_gap, quantile_edges
from pipeline.report.limits.gaps import CLEAN, ENHANCED, PREPARED, RAW
from pipeline.report.limits.groups import FIXED, PAIRS, TEST, TRAIN, build_groups, check_raw_store, measure_matched_gaps
from pipeline.scoring.comparison import cosine_scores, mean_units, unit_crops
from pipeline.scoring.condition_stores import ConditionStores, open_condition_stores
from pipeline.scoring.evaluation import find_failed, pair_utterances, usable_mask
from pipeline.scoring.sampling import sample_rows
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.store.schema import OK
from pipeline.training.aligned_stores import align_stores
from pipeline.utils.array_types import BoolArray, Float32Array, Float64Array, IntArray

ROWS = 2048
"""Number of utterances that are sampled from a larger training store."""


@dataclass(frozen=True)
class AnalysisPaths:
    """The files and folders of an encoder."""

    embeddings: Path
    """The folder of raw stores: train.zarr, and `<condition>.zarr`."""
    enhanced: Path
    """The folder of enhanced stores, `<condition>.zarr`."""
    model: Path
    train_manifest: Path
    manifest: Path
    """The manifest of the conditions."""
    more: Path
    """The folder of optional stores, which the pipeline does not make: snr.zarr, a training store with noise of one SNR
    in each view; train/<condition>.zarr, utterances of the training speakers corrupted by training sounds; and
    test/<condition>.zarr, utterances of the test speakers corrupted by training sounds."""


@dataclass(frozen=True)
class AnalysisOptions:
    """The resolution of the analysis."""

    bins: int
    """Number of ranges of the gap, with equal numbers of test vectors."""
    width: float
    """The width of ranges of SNRs in dB."""
    max_trials: int
    """Maximum number of trials of a condition."""
    seeds: Sequence[int]
    """The seeds of the trainings at one SNR."""
    longer: int | None = None
    """The factor for the number of epochs of these trainings; None compensates for a smaller store."""


@dataclass(frozen=True)
class Findings:
    """The results for one encoder."""

    gaps: list[gaps.Gap]
    bins: dict[str, list[GapBin]]
    """The gains by gap, by vector space of the gap."""
    sign_changes: dict[str, tuple[SignChange, SignChange]]
    """The gaps from which and up to which enhancement helps, by vector space."""
    trainings: list[stability.TrainingRow]
    """The trainings at one SNR each."""
    groups: list[transfer.TransferResult]
    retained: list[transfer.RetainedShare]
    matched: list[tuple[str, str, GapBin]]
    """The gains under training sounds and under others at the same gap: group, condition, and range of gaps."""
    failed: list[str]
    """Test utterances that failed in a store, and are in no trial."""


def analyse(
    paths: AnalysisPaths,
    params: Params,
    options: AnalysisOptions,
    runs: Path,
    progress: Callable[[str], None] = lambda step: None,
) -> Findings:
    """Measure everything for which there are stores.

    Args:
        paths: stores, model and manifests of the encoder.
        params: conditions, bootstrap and seed, and parameters of trainings at one SNR.
        options: resolution of the analysis.
        runs: folder in which the results of trainings are kept.
        progress: called with the name of each step at its start.

    Raises:
        ConfigError: there is no bootstrap or no corrupted condition.
        StoreError: a store is missing, damaged, or does not match the others.
        TrialError: a speaker is unknown, or there are no trials of one class.
        WeightsError: the model cannot be read.
    """
    noisy = [name for name in params.conditions if name != CLEAN]
    if params.score.bootstrap < 1 or not noisy:
        raise ConfigError(
            "score.bootstrap must be 1 or more, and conditions must include a corrupted one, for this analysis."
        )
    progress("gaps")
    sources = open_condition_stores(
        {"raw": paths.embeddings, "seed": paths.enhanced}, [CLEAN, *noisy], models=[paths.model]
    )
    source, train = sources["seed"], _open_training_store(paths, sources["raw"])
    maps = build_space_maps(source)
    speakers, corpora = read_speakers_and_corpora(train, paths.train_manifest)
    train = align_stores([train], [corpora])
    utterances = select_utterances(source.ids, read_manifest(paths.manifest), paths.manifest)
    usable = usable_mask(sources)
    rows = np.flatnonzero(usable)
    known = [utterances.speakers[row] for row in rows]
    tests = sources["raw"].stores
    sampled = sample_rows(train.status == OK, ROWS, params.seed)
    gap_rows = gaps.measure_crop_gaps(train, sampled, TRAIN, maps, options.width)
    utterance_gaps, lengths = gaps.measure_utterance_gaps(tests, rows, TEST, maps, options.width)
    gap_rows += utterance_gaps + gaps.measure_references(tests[CLEAN], rows, known, TEST, maps, params.seed)
    fixed = paths.more / "snr.zarr"
    snr_store = check_raw_store(EmbeddingStore.open(fixed), source, paths.model) if fixed.exists() else None
    if snr_store:
        total = len(stability.read_snr_levels(snr_store, params.seed)) * len(options.seeds)
        chosen = sample_rows(snr_store.status == OK, ROWS, params.seed)
        gap_rows += gaps.measure_crop_gaps(snr_store, chosen, FIXED, maps, options.width)
    progress("gain by gap")
    trials = pair_utterances(utterances, usable, options.max_trials, params.seed, paths.manifest)
    bins, sign_changes = _measure_gains(sources, trials, utterances.numbers(), usable, lengths, params, options)
    progress("transfer")
    groups = build_groups(paths.more, paths.model, source, train, speakers, tests, rows, utterances, params.seed)
    results, replicates = list[transfer.TransferResult](), transfer.ReductionReplicates()
    for group in groups:
        measured, resampled = transfer.measure_group(
            group, source.convert_raw, options.max_trials, params.score.bootstrap, params.seed
        )
        results, replicates = results + measured, replicates | resampled
    progress("the same gap")
    matched = measure_matched_gaps(
        groups, source, options.bins // 2, options.max_trials, params.score.bootstrap, params.seed
    )
    trainings = []
    if snr_store:
        test = stability.TestData({name: store.read()[:, :, 0] for name, store in tests.items()}, trials)
        done = iter(range(1, total + 1))
        progress(f"training 0 of {total}")
        longer = options.longer or _pair_ratio(train, snr_store)
        trainings = stability.train_on_views(
            *(snr_store, speakers, test, params, options.seeds, longer, runs),
            lambda count: progress(f"training {next(done)} of {total}"),
        )
    retained = transfer.measure_retained(results, replicates, PAIRS)
    failed = find_failed(sources)
    return Findings(gap_rows, bins, sign_changes, trainings, results, retained, matched, failed)


def build_space_maps(source: ConditionStores) -> gaps.SpaceMaps:
    """Return the vector spaces for distances: raw, preconditioned by the model, and enhanced."""
    model = source.require_model().model
    return {
        RAW: lambda values: values,
        PREPARED: lambda values: prepare_pairs(model, values).cpu().numpy(),
        ENHANCED: source.convert_raw,
    }


def _open_training_store(paths: AnalysisPaths, raw: ConditionStores) -> EmbeddingStore:
    store = EmbeddingStore.open(paths.embeddings / "train.zarr")
    store.check_raw()
    raw.check_same_encoder(store.attributes, store.path)
    if store.shape[2] < 2 or len(store.ok) == 0:
        raise StoreError(f"{store.path}: has no corrupted views, or no encoded utterances. Extract the set train.")
    return store


def _pair_ratio(large: EmbeddingStore, small: EmbeddingStore) -> int:
    """Return the ratio of the numbers of pairs in two stores, rounded, at least 1."""
    pairs = [len(store.ok) * store.shape[1] for store in (large, small)]
    return max(1, round(pairs[0] / max(1, pairs[1])))


def _measure_gains(
    sources: Mapping[str, ConditionStores],
    trials: Trials,
    numbers: IntArray,
    usable: BoolArray,
    lengths: Mapping[tuple[str, str], Float64Array],
    params: Params,
    options: AnalysisOptions,
) -> tuple[dict[str, list[GapBin]], dict[str, tuple[SignChange, SignChange]]]:
    """Pool the trials of all conditions, and measure the gain by the gap of the test side."""
    assert trials.target is not None  # all pairs have labels
    conditions = list(sources["raw"].stores)
    scores: dict[str, list[Float32Array]] = {name: [] for name in sources}
    for name, source in sources.items():
        units = {each: mean_units(unit_crops(store.read()[:, :, 0])) for each, store in source.stores.items()}
        scores[name] = [cosine_scores(units[CLEAN], units[each], trials) for each in conditions]
    joined = {name: np.concatenate(parts) for name, parts in scores.items()}
    speakers = np.tile(numbers[trials.enrol], len(conditions)), np.tile(numbers[trials.test], len(conditions))
    target = np.tile(trials.target, len(conditions))
    places = np.full(len(usable), -1)
    places[usable] = np.arange(int(usable.sum()))
    tested = places[trials.test]
    gains, sign_changes = {}, {}
    for space in (RAW, PREPARED):
        own = {each: lengths[each, space] for each in conditions if each != CLEAN}
        edges = quantile_edges(np.concatenate(list(own.values())), options.bins)
        moved = np.concatenate([own[each][tested] if each in own else np.zeros(len(trials)) for each in conditions])
        bins, resampled = measure_by_gap(
            *(moved, edges, joined["raw"], joined["seed"], target, speakers), *(params.score.bootstrap, params.seed)
        )
        if not bins:
            raise TrialError("no range of distances has trials of both classes. Use fewer --bins.")
        gains[space] = bins
        sign_changes[space] = find_sign_changes(
            [each.mean for each in bins], [each.gain[0] for each in bins], resampled
        )
    return gains, sign_changes
