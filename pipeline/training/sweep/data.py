"""What the runs of a sweep are trained and measured on: looked at, cut down, and known again by its content."""

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
from pipeline.training.sweep.grid import Part, read_speakers
from pipeline.utils.paths import Place


@dataclass(frozen=True)
class SweepData:
    """What all runs are trained and measured on."""

    store: EmbeddingStore
    """Of training pairs."""
    speakers: Mapping[str, str | None]
    """Of its utterances."""
    conditions: Place
    """Folder of the raw stores that are measured, `<condition>.zarr`."""
    manifest: Sequence[Utterance]
    manifest_path: Path


def check_data(params: Params, data: SweepData) -> None:
    """Raise StoreError or TrialError if nothing could be measured, whatever is trained."""
    raw = open_condition_stores({"raw": data.conditions}, params.conditions)
    for store in (data.store, *raw["raw"].stores.values()):
        store.check_raw()
        for key in SPACE:
            ours, theirs = data.store.attributes.get(key), store.attributes.get(key)
            if ours != theirs:
                raise StoreError(
                    f"{store.path}: encoder {key} is {theirs!r}, but {ours!r} in {data.store.path}. Extract both with"
                    " one encoder."
                )
    utterances = select_utterances(raw["raw"].ids, data.manifest, data.manifest_path)
    pair_utterances(utterances, usable_mask(raw), params.score.max_trials, params.seed, data.manifest_path)


def contents_of(data: SweepData, conditions: Iterable[str]) -> dict[str, str]:
    """Return checksums of what all runs are trained and measured on: vectors, speakers, and both by condition.

    Raises:
        StoreError: a store is missing or damaged.
    """
    stores = {f"{name}.zarr": EmbeddingStore.open(data.conditions / f"{name}.zarr") for name in sorted(conditions)}
    return {
        "store": checksums.hash_store(data.store),
        "speakers": checksums.hash_texts(f"{name}\t{speaker}" for name, speaker in sorted(data.speakers.items())),
        "manifest": checksums.hash_texts(map(repr, data.manifest)),
        **{name: checksums.hash_store(store) for name, store in stores.items()},
    }


def part_of(data: SweepData, part: Part, seed: int, folder: Path) -> EmbeddingStore:
    """Return the training store with some of its speakers and draws only, as a store in a folder.

    The speakers are a seeded choice, those of a smaller number being among those of a larger one.
    """
    store = data.store
    if part == Part():
        return store
    path = folder / f"speakers{part.speakers}-draws{part.draws}-seed{seed}.zarr"
    rows = list(range(len(store.utterances)))
    if part.speakers is not None:
        names = read_speakers(store, data.speakers)
        chosen = set(np.random.default_rng(seed).permutation(names)[: part.speakers].tolist())
        rows = [row for row, name in enumerate(store.utterances) if data.speakers.get(name) in chosen]
    attributes = {key: value for key, value in store.attributes.items() if key != "schema"}
    ids, status = [store.utterances[row] for row in rows], store.status[rows]
    write_store(path, ids, store.read()[rows, : part.draws], status, attributes)
    return EmbeddingStore.open(path)
