"""Gaps between clean and corrupted embeddings, |x0 - y0| of unit vectors, by view and SNR."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.config.conditions import condition_snr, condition_steps, is_condition
from pipeline.metrics.quantiles import PERCENTS, percentiles
from pipeline.scoring.comparison import mean_units, unit_crops
from pipeline.scoring.distances import OTHER, SAME, draw_speaker_pairs
from pipeline.scoring.sampling import read_selected_rows
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.utils.array_types import Float32Array, Float64Array, IntArray

SpaceMaps = Mapping[str, Callable[[Float32Array], Float32Array]]
"""The vector spaces in which distances are measured: functions that map raw embeddings [N, crops, D], by name."""

RAW, PREPARED, ENHANCED = "raw", "prepared", "enhanced"
CLEAN = "clean"


class Gap(NamedTuple):
    """Distances under one kind of corruption in one range of SNRs."""

    group: str
    """The name of the group of utterances."""
    view: str
    """The view or condition."""
    kind: str
    """The kind of the corruption, or of pairs of clean vectors: same speaker, another speaker."""
    snr: tuple[float, float]
    """The lowest and highest SNR in dB; NaN if there is none."""
    space: str
    vectors: int
    mean: float
    quantiles: tuple[float, ...]
    """The percentiles `PERCENTS`."""


COLUMNS = (
    *("encoder", "set", "view", "kind", "snr_low", "snr_high", "space", "vectors", "mean"),
    *(f"p{percent}" for percent in PERCENTS),
)


def measure_crop_gaps(store: EmbeddingStore, rows: IntArray, group: str, maps: SpaceMaps, width: float) -> list[Gap]:
    """Measure the crops of a training store's rows: each corrupted view against the clean view of the same crop.

    Args:
        store: training store, whose view 0 is clean.
        rows: rows of encoded utterances, rising.
        group: name of the group.
        maps: vector spaces in which to measure.
        width: width of the bins of SNRs in dB, if a view has several SNRs.

    Raises:
        StoreError: a shard is damaged.
    """
    names, kinds, snrs = read_corruptions(store, rows, group)
    values = read_selected_rows(store, rows)
    crops = values.reshape(-1, *values.shape[2:])
    gaps = []
    for space, mapped in maps.items():
        units = unit_crops(mapped(crops))
        for view in range(1, values.shape[2]):
            lengths = np.linalg.norm(units[:, view] - units[:, 0], axis=1).astype(np.float64)
            corruption = kinds[..., view].ravel(), snrs[..., view].ravel()
            gaps += bin_by_snr(group, names[view], *corruption, space, lengths, width)
    return gaps


def measure_utterance_gaps(
    stores: Mapping[str, EmbeddingStore], rows: IntArray, group: str, maps: SpaceMaps, width: float
) -> tuple[list[Gap], dict[tuple[str, str], Float64Array]]:
    """Measure whole utterances: the mean unit crop in every condition against the clean one.

    Also returns the distances [rows] themselves by (condition, space).

    Args:
        stores: stores by condition with the same utterances in the same order; one condition is `CLEAN`.
        rows: rows of utterances that are encoded in all stores, rising.
        group: name of the group.
        maps: vector spaces in which to measure.
        width: width of the bins of SNRs in dB, if a condition has several SNRs.

    Raises:
        StoreError: a shard is damaged.
    """
    gaps, lengths = [], {}
    clean = {space: read_mapped_vectors(stores[CLEAN], rows, mapped) for space, mapped in maps.items()}
    for condition, store in stores.items():
        if condition == CLEAN:
            continue
        _, kinds, snrs = read_corruptions(store, rows, condition)
        for space, mapped in maps.items():
            distances = np.linalg.norm(read_mapped_vectors(store, rows, mapped) - clean[space], axis=1).astype(
                np.float64
            )
            gaps += bin_by_snr(group, condition, kinds[:, 0, 0], snrs[:, 0, 0], space, distances, width)
            lengths[condition, space] = distances
    return gaps, lengths


def measure_references(
    store: EmbeddingStore, rows: IntArray, speakers: Sequence[str | None], group: str, maps: SpaceMaps, seed: int
) -> list[Gap]:
    """Measure distances between clean utterances of one speaker and of two, for comparison with gaps."""
    pairs, gaps = draw_speaker_pairs(list(speakers), seed), []
    for space, mapped in maps.items():
        units = read_mapped_vectors(store, rows, mapped)
        for kind in (SAME, OTHER):
            left, right = pairs[kind]
            if len(left):
                distances = np.linalg.norm(units[left] - units[right], axis=1).astype(np.float64)
                gaps.append(_summarise(group, CLEAN, kind, (np.nan, np.nan), space, distances))
    return gaps


def read_mapped_vectors(
    store: EmbeddingStore, rows: IntArray, mapped: Callable[[Float32Array], Float32Array]
) -> Float32Array:
    """Return one unit vector for each utterance [rows, D], the mean of its mapped unit crops."""
    return mean_units(unit_crops(mapped(read_selected_rows(store, rows)[:, :, 0])))


def read_corruptions(
    store: EmbeddingStore, rows: IntArray, name: str
) -> tuple[list[str], NDArray[np.object_], Float64Array]:
    """Return the names of a store's views, and the kind of corruption and SNR of every vector [rows, draw, view].

    The SNR is in dB, and NaN unless exactly one step has one. Kinds and SNRs come from the store's traces; if it has
    none, from the name of its condition.
    """
    recipe = store.attributes.get("recipe") or {}
    shape = (len(rows), *store.shape[1:3])
    names = [str(view["name"]) for view in recipe.get("views", [])] or [f"view {n}" for n in range(shape[2])]
    kinds, snrs = np.full(shape, "", dtype=object), np.full(shape, np.nan)
    traces = store.traces(rows)
    if traces is None:
        kinds[...] = "unknown"
        if is_condition(name):
            kinds[...] = "+".join(step.kind for step in condition_steps(name)) or CLEAN
            snr = condition_snr(name)
            snrs[...] = np.nan if snr is None else snr
        return names, kinds, snrs
    for place, text in np.ndenumerate(traces):
        done = json.loads(text)["steps"]
        kinds[place] = "+".join(step["kind"] for step in done) or CLEAN
        levels = [step["snr"] for step in done if "snr" in step]
        if len(levels) == 1:
            snrs[place] = levels[0]
    return names, kinds, snrs


def bin_by_snr(
    group: str,
    view: str,
    kinds: NDArray[np.object_],
    snrs: Float64Array,
    space: str,
    lengths: Float64Array,
    width: float,
) -> list[Gap]:
    """Return one row for each kind [M] and bin of SNRs [M]; a kind with a single SNR has one bin."""
    gaps = []
    for kind in sorted(set(kinds.tolist())):
        chosen = kinds == kind
        own = snrs[chosen]
        if np.isnan(own).any():
            gaps.append(_summarise(group, view, kind, (np.nan, np.nan), space, lengths[chosen]))
        elif np.ptp(own) == 0:
            gaps.append(_summarise(group, view, kind, (own[0], own[0]), space, lengths[chosen]))
        else:
            bins = np.floor(own / width)
            for low in np.unique(bins):
                edges = low * width, (low + 1) * width
                gaps.append(_summarise(group, view, kind, edges, space, lengths[chosen][bins == low]))
    return gaps


def format_gaps(encoder: str, gaps: Sequence[Gap]) -> Iterator[tuple[object, ...]]:
    """Yield the rows of a CSV with `COLUMNS`."""
    for row in gaps:
        snr = ("" if np.isnan(edge) else f"{edge:zg}" for edge in row.snr)
        figures = (f"{value:z.6f}" for value in (row.mean, *row.quantiles))
        yield encoder, row.group, row.view, row.kind, *snr, row.space, row.vectors, *figures


def _summarise(group: str, view: str, kind: str, snr: tuple[float, float], space: str, lengths: Float64Array) -> Gap:
    edges = float(snr[0]), float(snr[1])
    return Gap(group, view, kind, edges, space, len(lengths), float(lengths.mean()), percentiles(lengths))
