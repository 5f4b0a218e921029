"""How far corruption moves embeddings, |x0 - y0| of unit vectors, by view and SNR."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.config.conditions import condition_snr, condition_steps, is_condition
from pipeline.data.trials.table import Index
from pipeline.metrics.quantiles import PERCENTS
from pipeline.scoring.comparison import Vectors, mean_units, unit_crops
from pipeline.scoring.distances import OTHER, SAME, pairs_of
from pipeline.scoring.sampling import read_some
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.store.traces import read_traces

Floats = NDArray[np.float64]
Maps = Mapping[str, Callable[[Vectors], Vectors]]
"""Where distances are measured, by name: what becomes of raw embeddings [N, crops, D] there."""

RAW, PREPARED, ENHANCED = "raw", "prepared", "enhanced"
CLEAN = "clean"


class Gap(NamedTuple):
    """Distances of one kind of corruption at about one SNR."""

    group: str
    """Of utterances."""
    view: str
    """Or condition."""
    kind: str
    """Of the corruption; or of pairs of clean vectors: same speaker, another speaker."""
    snr: tuple[float, float]
    """Lowest and highest in dB; NaN where there is none."""
    space: str
    vectors: int
    mean: float
    quantiles: tuple[float, ...]
    """At `PERCENTS`."""


COLUMNS = (
    *("encoder", "set", "view", "kind", "snr_low", "snr_high", "space", "vectors", "mean"),
    *(f"p{percent}" for percent in PERCENTS),
)


def of_crops(store: EmbeddingStore, rows: Index, group: str, maps: Maps, width: float) -> list[Gap]:
    """Measure the crops of a training store's rows: each corrupted view against the clean view of the same crop.

    Args:
        store: view 0 is clean.
        rows: rising, of utterances that were encoded.
        group: what to call them.
        maps: where to measure.
        width: of the bins of SNRs in dB, where a view has many.

    Raises:
        StoreError: a shard is damaged.
    """
    names, kinds, snrs = corruptions(store, rows, group)
    values = read_some(store, rows)
    crops = values.reshape(-1, *values.shape[2:])
    found = []
    for space, mapped in maps.items():
        units = unit_crops(mapped(crops))
        for view in range(1, values.shape[2]):
            lengths = np.linalg.norm(units[:, view] - units[:, 0], axis=1).astype(np.float64)
            what = kinds[..., view].ravel(), snrs[..., view].ravel()
            found += binned(group, names[view], *what, space, lengths, width)
    return found


def of_utterances(
    stores: Mapping[str, EmbeddingStore], rows: Index, group: str, maps: Maps, width: float
) -> tuple[list[Gap], dict[tuple[str, str], Floats]]:
    """Measure whole utterances: the mean unit crop in every condition against that of the clean one.

    Returns also the distances [rows] themselves by (condition, space).

    Args:
        stores: by condition, `CLEAN` among them, of the same utterances in the same order.
        rows: rising, of utterances that were encoded in all.
        group: what to call them.
        maps: where to measure.
        width: of the bins of SNRs in dB, where a condition has many.

    Raises:
        StoreError: a shard is damaged.
    """
    found, lengths = [], {}
    rest = {space: vectors_of(stores[CLEAN], rows, mapped) for space, mapped in maps.items()}
    for condition, store in stores.items():
        if condition == CLEAN:
            continue
        _, kinds, snrs = corruptions(store, rows, condition)
        for space, mapped in maps.items():
            apart = np.linalg.norm(vectors_of(store, rows, mapped) - rest[space], axis=1).astype(np.float64)
            found += binned(group, condition, kinds[:, 0, 0], snrs[:, 0, 0], space, apart, width)
            lengths[condition, space] = apart
    return found, lengths


def references(
    store: EmbeddingStore, rows: Index, speakers: Sequence[str | None], group: str, maps: Maps, seed: int
) -> list[Gap]:
    """Measure distances between clean utterances of one speaker and of two: what a gap is to be held against."""
    pairs, found = pairs_of(list(speakers), seed), []
    for space, mapped in maps.items():
        units = vectors_of(store, rows, mapped)
        for kind in (SAME, OTHER):
            left, right = pairs[kind]
            if len(left):
                apart = np.linalg.norm(units[left] - units[right], axis=1).astype(np.float64)
                found.append(_row(group, CLEAN, kind, (np.nan, np.nan), space, apart))
    return found


def vectors_of(store: EmbeddingStore, rows: Index, mapped: Callable[[Vectors], Vectors]) -> Vectors:
    """Return one unit vector an utterance [rows, D]: the mean of its unit crops, after a map."""
    return mean_units(unit_crops(mapped(read_some(store, rows)[:, :, 0])))


def corruptions(store: EmbeddingStore, rows: Index, name: str) -> tuple[list[str], NDArray[np.object_], Floats]:
    """Return a store's views by name, and of every vector [rows, draw, view] what kinds of steps it went through.

    The third is the SNR in dB, NaN unless exactly one step has one. All is from the store's traces; of a store without
    them, from the name of its condition, if it is one.
    """
    recipe = store.attributes.get("recipe") or {}
    shape = (len(rows), *store.shape[1:3])
    names = [str(view["name"]) for view in recipe.get("views", [])] or [f"view {n}" for n in range(shape[2])]
    kinds, snrs = np.full(shape, "", dtype=object), np.full(shape, np.nan)
    traces = read_traces(store.path, rows)
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


def binned(
    group: str, view: str, kinds: NDArray[np.object_], snrs: Floats, space: str, lengths: Floats, width: float
) -> list[Gap]:
    """Return a row a kind [M] and bin of SNRs [M]; where a kind has but one SNR, that is its bin."""
    found = []
    for kind in sorted(set(kinds.tolist())):
        chosen = kinds == kind
        own = snrs[chosen]
        if np.isnan(own).any():
            found.append(_row(group, view, kind, (np.nan, np.nan), space, lengths[chosen]))
        elif np.ptp(own) == 0:
            found.append(_row(group, view, kind, (own[0], own[0]), space, lengths[chosen]))
        else:
            bins = np.floor(own / width)
            for low in np.unique(bins):
                edges = low * width, (low + 1) * width
                found.append(_row(group, view, kind, edges, space, lengths[chosen][bins == low]))
    return found


def cells(encoder: str, found: Sequence[Gap]) -> Iterator[tuple[object, ...]]:
    """Yield the rows of a CSV of `COLUMNS`."""
    for row in found:
        snr = ("" if np.isnan(edge) else f"{edge:g}" for edge in row.snr)
        figures = (f"{value:.6f}" for value in (row.mean, *row.quantiles))
        yield encoder, row.group, row.view, row.kind, *snr, row.space, row.vectors, *figures


def _row(group: str, view: str, kind: str, snr: tuple[float, float], space: str, lengths: Floats) -> Gap:
    quantiles = tuple(map(float, np.percentile(lengths, PERCENTS)))
    edges = float(snr[0]), float(snr[1])
    return Gap(group, view, kind, edges, space, len(lengths), float(lengths.mean()), quantiles)
