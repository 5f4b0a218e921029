"""Groups of utterances that are more and more unlike training, in their speakers and corrupting sounds."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pipeline.data.trials.table import make_all_pairs
from pipeline.data.utterances import Utterances
from pipeline.model.model_file import check_encoder
from pipeline.report.limits.gain import GapBin, measure_by_gap, quantile_edges
from pipeline.report.limits.gaps import CLEAN
from pipeline.report.limits.stability import find_held_out_rows
from pipeline.report.limits.transfer import TransferGroup, make_unit_vectors
from pipeline.scoring.comparison import cosine_scores
from pipeline.scoring.condition_stores import ConditionStores, check_same_utterances
from pipeline.scoring.sampling import read_selected_rows
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.store.schema import OK
from pipeline.utils.array_types import Float32Array, IntArray

TRAIN, HELD, TRAINED = "training crops", "held-out training speakers", "training speakers"
SAME_SOUNDS, TEST = "test speakers, training sounds", "test speakers, other sounds"
FIXED = "one SNR a view"
HELD_CROPS = "held-out training speakers, crops"

PAIRS = ((TRAINED, HELD), (HELD, SAME_SOUNDS), (SAME_SOUNDS, TEST), (HELD, TEST), (HELD_CROPS, TEST))
"""The pairs of groups whose gains are compared, from and to."""


def build_groups(
    more: Path,
    model: Path,
    source: ConditionStores,
    train: EmbeddingStore,
    speakers: Mapping[str, str | None],
    tests: Mapping[str, EmbeddingStore],
    rows: IntArray,
    utterances: Utterances,
    seed: int,
) -> list[TransferGroup]:
    """Return the groups for which there are stores, ordered by similarity to training."""
    groups = list[TransferGroup]()
    held = find_held_out_rows(train, speakers, source.require_model().model.settings.validation, seed)
    known = {row: speakers.get(train.utterances[row]) for row in train.ok}
    train_stores, test_stores = (_open_stores(more / name, source, model) for name in ("train", "test"))
    # All groups have the same conditions, so that their means can be compared.
    shared = [name for name in tests if name in train_stores and name in test_stores]
    if None not in known.values() and len({known[row] for row in held}) > 1:
        crops = read_selected_rows(train, held)
        names = [str(view["name"]) for view in (train.attributes.get("recipe") or {}).get("views", [])]
        names = [CLEAN, *(names or [f"view {n}" for n in range(train.shape[2])])[1:]]
        by_view = {name: crops[:, :, view] for view, name in enumerate(names)}
        groups.append(TransferGroup(HELD_CROPS, by_view, [str(known[row]) for row in held]))
        unseen = {known[row] for row in held}
        for name, is_held in ((TRAINED, False), (HELD, True)) if CLEAN in train_stores and shared else ():
            stores = {each: train_stores[each] for each in (CLEAN, *shared)}
            chosen = _usable_rows(stores)
            ids = next(iter(stores.values())).utterances
            chosen = chosen[[(speakers.get(ids[row]) in unseen) == is_held for row in chosen]]
            labels = [str(speakers.get(ids[row])) for row in chosen]
            groups.append(TransferGroup(name, _read_crops(stores, chosen), labels))
    if test_stores and shared:
        stores = {CLEAN: tests[CLEAN], **{each: test_stores[each] for each in shared}}
        check_same_utterances([*stores.values()])
        chosen = np.intersect1d(rows, _usable_rows(stores))
        groups.append(TransferGroup(SAME_SOUNDS, _read_crops(stores, chosen), _read_speakers(utterances, chosen)))
    stores = {each: tests[each] for each in ([CLEAN, *shared] if shared else tests)}
    groups.append(TransferGroup(TEST, _read_crops(stores, rows), _read_speakers(utterances, rows)))
    return groups


def measure_matched_gaps(
    groups: Sequence[TransferGroup], source: ConditionStores, bins: int, limit: int, resamples: int, seed: int
) -> list[tuple[str, str, GapBin]]:
    """Measure test speakers under training sounds and under other sounds at the same gaps."""
    pair = [group for group in groups if group.name in (SAME_SOUNDS, TEST)]
    if len(pair) < 2:
        return []
    rows = []
    for condition in pair[0].vectors.keys() - {CLEAN}:
        units = {group.name: make_unit_vectors(group, condition, source.convert_raw) for group in pair}
        gaps = {name: np.linalg.norm(raw[1] - raw[0], axis=1).astype(np.float64) for name, (raw, _) in units.items()}
        edges = quantile_edges(np.concatenate(list(gaps.values())), max(2, bins))
        for group in pair:
            trials = make_all_pairs(list(group.speakers), limit, seed)
            assert trials.target is not None  # speakers are known
            numbers = np.unique(np.asarray(group.speakers), return_inverse=True)[1]
            raw, enhanced = (cosine_scores(*side, trials) for side in units[group.name])
            pairs = numbers[trials.enrol], numbers[trials.test]
            gap_bins, _ = measure_by_gap(
                *(gaps[group.name][trials.test], edges, raw, enhanced, trials.target, pairs), *(resamples, seed)
            )
            rows += [(group.name, condition, each) for each in gap_bins]
    order = {name: place for place, name in enumerate(pair[0].vectors)}
    return sorted(rows, key=lambda row: (order[row[1]], row[2].low))


def check_raw_store(store: EmbeddingStore, source: ConditionStores, model: Path) -> EmbeddingStore:
    """Return a store after checking that it is raw, and from the encoder that the model was trained on."""
    store.check_raw()
    check_encoder(source.require_model(), store.attributes, model, store.path)
    return store


def _open_stores(folder: Path, source: ConditionStores, model: Path) -> dict[str, EmbeddingStore]:
    """Open the raw stores of a folder by condition; none if the folder does not exist."""
    stores = {path.stem: EmbeddingStore.open(path) for path in sorted(folder.glob("*.zarr"))}
    for store in stores.values():
        check_raw_store(store, source, model)
    check_same_utterances([*stores.values()])
    return stores


def _usable_rows(stores: Mapping[str, EmbeddingStore]) -> IntArray:
    return np.flatnonzero(np.all([store.status == OK for store in stores.values()], axis=0))


def _read_crops(stores: Mapping[str, EmbeddingStore], rows: IntArray) -> dict[str, Float32Array]:
    return {name: read_selected_rows(store, rows)[:, :, 0] for name, store in stores.items()}


def _read_speakers(utterances: Utterances, rows: IntArray) -> list[str]:
    return [str(utterances.speakers[row]) for row in rows]
