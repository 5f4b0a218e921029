"""The data that all runs of a sweep share: checks, subsets, and checksums."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.config.params import Params
from pipeline.data.manifest import Utterance
from pipeline.data.utterances import select_utterances
from pipeline.errors import StoreError
from pipeline.scoring.condition_stores import open_condition_stores
from pipeline.scoring.evaluation import pair_utterances, usable_mask
from pipeline.store import checksums
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.store.schema import SPACE
from pipeline.store.writer import write_store
from pipeline.training.sweep.grid import DataSubset, list_speakers
from pipeline.utils.paths import Place


@dataclass(frozen=True)
class SweepData:
    """The data that all runs of a sweep train and measure on."""

    store: EmbeddingStore
    """The store of training pairs."""
    speakers: Mapping[str, str | None]
    """The speaker by utterance of that store."""
    conditions: Place
    """The folder of the raw test stores, `<condition>.zarr`."""
    manifest: Sequence[Utterance]
    manifest_path: Path


def check_data(params: Params, data: SweepData) -> None:
    """Raise StoreError or TrialError if no model could be measured on the data."""
    raw = open_condition_stores({"raw": data.conditions}, params.conditions)
    for store in (data.store, *raw["raw"].stores.values()):
        store.check_raw()
        for key in SPACE:
            ours, theirs = data.store.attributes.get(key), store.attributes.get(key)
            if ours != theirs:
                other = f"{ours!r} in {data.store.path}"
                raise StoreError(f"{store.path}: encoder {key} is {theirs!r}, but {other}. Use one encoder for both.")
    utterances = select_utterances(raw["raw"].ids, data.manifest, data.manifest_path)
    pair_utterances(utterances, usable_mask(raw), params.score.max_trials, params.seed, data.manifest_path)


def hash_data(data: SweepData, conditions: Iterable[str]) -> dict[str, str]:
    """Return checksums of the training store, its speakers, the manifest, and the store of each condition.

    Raise StoreError if a store is missing or damaged.
    """
    stores = {f"{name}.zarr": EmbeddingStore.open(data.conditions / f"{name}.zarr") for name in sorted(conditions)}
    return {
        "store": checksums.hash_store(data.store),
        "speakers": checksums.hash_texts(f"{name}\t{speaker}" for name, speaker in sorted(data.speakers.items())),
        "manifest": checksums.hash_texts(map(repr, data.manifest)),
        **{name: checksums.hash_store(store) for name, store in stores.items()},
    }


def write_subset(data: SweepData, subset: DataSubset, seed: int, folder: Path) -> EmbeddingStore:
    """Write a store with some speakers and draws of the training store to a folder, and return it.

    The speakers are chosen at random by the seed; a larger number includes those of a smaller one.
    """
    store = data.store
    if subset == DataSubset():
        return store
    path = folder / f"speakers{subset.speakers}-draws{subset.draws}-seed{seed}.zarr"
    rows = list(range(len(store.utterances)))
    if subset.speakers is not None:
        names = list_speakers(store, data.speakers)
        chosen = set(np.random.default_rng(seed).permutation(names)[: subset.speakers].tolist())
        rows = [row for row, name in enumerate(store.utterances) if data.speakers.get(name) in chosen]
    attributes = {key: value for key, value in store.attributes.items() if key != "schema"}
    ids, status = [store.utterances[row] for row in rows], store.status[rows]
    write_store(path, ids, store.read()[rows, : subset.draws], status, attributes)
    return EmbeddingStore.open(path)
