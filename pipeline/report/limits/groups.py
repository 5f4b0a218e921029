"""Groups of utterances from like training to unlike it: by who speaks, and by what sounds corrupt them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pipeline.data.trials.table import Index, make_all_pairs
from pipeline.data.utterances import Utterances
from pipeline.errors import StoreError
from pipeline.model.model_file import check_encoder
from pipeline.report.limits.gain import Bin, by_gap, quantile_edges
from pipeline.report.limits.gaps import CLEAN
from pipeline.report.limits.stability import held_out
from pipeline.report.limits.transfer import Group, sides
from pipeline.scoring.comparison import Vectors, cosine_scores
from pipeline.scoring.condition_stores import ConditionStores
from pipeline.scoring.sampling import read_some
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.store.schema import OK

TRAIN, HELD, TRAINED = "training crops", "held-out training speakers", "training speakers"
SAME_SOUNDS, TEST = "test speakers, training sounds", "test speakers, other sounds"
FIXED = "one SNR a view"
HELD_CROPS = "held-out training speakers, crops"

PAIRS = (
    (TRAINED, HELD),
    (HELD, SAME_SOUNDS),
    (SAME_SOUNDS, TEST),
    (HELD, TEST),
    (HELD_CROPS, TEST),
)
"""Groups whose gains are compared, from and to."""


def build_groups(
    more: Path,
    model: Path,
    space: ConditionStores,
    train: EmbeddingStore,
    speakers: Mapping[str, str | None],
    tests: Mapping[str, EmbeddingStore],
    rows: Index,
    utterances: Utterances,
    seed: int,
) -> list[Group]:
    """Return the groups that there are stores for, in the order in which they get less like training."""
    groups = list[Group]()
    held = held_out(train, speakers, space.made_by().model.settings.validation, seed)
    known = {row: speakers.get(train.utterances[row]) for row in train.ok}
    seen, ours = (_stores(more / name, space, model) for name in ("train", "test"))
    shared = [name for name in tests if name in seen and name in ours]  # the mean is to be over the same conditions
    if None not in known.values() and len({known[row] for row in held}) > 1:
        crops = read_some(train, held)
        names = [str(view["name"]) for view in (train.attributes.get("recipe") or {}).get("views", [])]
        names = [CLEAN, *(names or [f"view {n}" for n in range(train.shape[2])])[1:]]
        by_view = {name: crops[:, :, view] for view, name in enumerate(names)}
        groups.append(Group(HELD_CROPS, by_view, [str(known[row]) for row in held]))
        unseen = {known[row] for row in held}
        for name, wanted in ((TRAINED, False), (HELD, True)) if CLEAN in seen and shared else ():
            stores = {each: seen[each] for each in (CLEAN, *shared)}
            chosen = _usable(stores)
            ids = next(iter(stores.values())).utterances
            chosen = chosen[[(speakers.get(ids[row]) in unseen) == wanted for row in chosen]]
            labels = [str(speakers.get(ids[row])) for row in chosen]
            groups.append(Group(name, _read(stores, chosen), labels))
    if ours and shared:
        stores = {CLEAN: tests[CLEAN], **{each: ours[each] for each in shared}}
        _same_utterances(stores)
        chosen = np.intersect1d(rows, _usable(stores))
        groups.append(Group(SAME_SOUNDS, _read(stores, chosen), _labels(utterances, chosen)))
    stores = {each: tests[each] for each in ([CLEAN, *shared] if shared else tests)}
    groups.append(Group(TEST, _read(stores, rows), _labels(utterances, rows)))
    return groups


def matched(
    groups: Sequence[Group], space: ConditionStores, bins: int, limit: int, resamples: int, seed: int
) -> list[tuple[str, str, Bin]]:
    """Measure test speakers under sounds of training and under others, by gap: do sounds differ beyond that?"""
    pair = [group for group in groups if group.name in (SAME_SOUNDS, TEST)]
    if len(pair) < 2:
        return []
    found = []
    for condition in pair[0].vectors.keys() - {CLEAN}:
        both = {group.name: sides(group, condition, space.of_raw) for group in pair}
        gaps = {name: np.linalg.norm(raw[1] - raw[0], axis=1).astype(np.float64) for name, (raw, _) in both.items()}
        edges = quantile_edges(np.concatenate(list(gaps.values())), max(2, bins))
        for group in pair:
            trials = make_all_pairs(list(group.speakers), limit, seed)
            assert trials.target is not None  # speakers are known
            numbers = np.unique(np.asarray(group.speakers), return_inverse=True)[1]
            raw, enhanced = (cosine_scores(*side, trials) for side in both[group.name])
            who = numbers[trials.enrol], numbers[trials.test]
            ranges, _ = by_gap(
                *(gaps[group.name][trials.test], edges, raw, enhanced, trials.target, who),
                *(resamples, seed),
            )
            found += [(group.name, condition, one) for one in ranges]
    order = {name: place for place, name in enumerate(pair[0].vectors)}
    return sorted(found, key=lambda row: (order[row[1]], row[2].low))


def raw_like(store: EmbeddingStore, space: ConditionStores, model: Path) -> EmbeddingStore:
    """Return a raw store of the encoder that the model was trained on."""
    store.check_raw()
    check_encoder(space.made_by(), store.attributes, model, store.path)
    return store


def _stores(folder: Path, space: ConditionStores, model: Path) -> dict[str, EmbeddingStore]:
    """Open the raw stores of a folder, by condition; none if it is not there."""
    stores = {path.stem: EmbeddingStore.open(path) for path in sorted(folder.glob("*.zarr"))}
    for store in stores.values():
        raw_like(store, space, model)
    if stores:
        _same_utterances(stores)
    return stores


def _same_utterances(stores: Mapping[str, EmbeddingStore]) -> None:
    first, *others = stores.values()
    for store in others:
        if store.utterances != first.utterances:
            raise StoreError(f"{store.path} and {first.path} hold other utterances. Extract both from one manifest.")


def _usable(stores: Mapping[str, EmbeddingStore]) -> Index:
    return np.flatnonzero(np.all([store.status == OK for store in stores.values()], axis=0))


def _read(stores: Mapping[str, EmbeddingStore], rows: Index) -> dict[str, Vectors]:
    return {name: read_some(store, rows)[:, :, 0] for name, store in stores.items()}


def _labels(utterances: Utterances, rows: Index) -> list[str]:
    return [str(utterances.speakers[row]) for row in rows]
