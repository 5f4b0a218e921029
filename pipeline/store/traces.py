"""The array `traces [utterance, draw, view]` of a store: each view's corruptions as JSON, empty for failed rows."""

import json
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec, ZstdCodec

from pipeline.errors import StoreError
from pipeline.store.read_errors import store_errors
from pipeline.store.schema import TRACES
from pipeline.store.zarr_access import open_group
from pipeline.utils.paths import Place

_CODECS = (ZstdCodec(level=9), Crc32cCodec())  # traces repeat paths; compressed, they are small beside the embeddings


def create_traces(group: zarr.Group, shape: tuple[int, int, int], shard: int) -> None:
    """Create an empty array of `shape` (utterances, draws, views), in chunks of `shard` rows."""
    group.create_array(
        TRACES,
        shape=shape,
        chunks=(shard, *shape[1:]),
        dtype=str,
        fill_value="",
        compressors=_CODECS,
        dimension_names=("utterance", "draw", "view"),
    )


def read_trace(store: Place, utterance: str, row: int) -> list[list[dict[str, Any]]]:
    """Return the traces [draw][view] of a row, which holds `utterance`; raise StoreError for none or damaged ones."""
    with store_errors(store):
        array = open_group(store, "r").get(TRACES)
        texts = np.asarray(array[row]) if isinstance(array, zarr.Array) else np.array("")
        traces = [[json.loads(str(text)) for text in draw] for draw in texts] if texts.all() else None
    if traces is None:
        raise StoreError(f"{store}: holds no trace of {utterance}: it failed, or the store's vectors are enhanced.")
    return traces


def read_traces(store: Place, rows: NDArray[np.int64]) -> NDArray[np.object_] | None:
    """Return the traces [rows, draw, view] of some rows as JSON, empty for failed ones; None if the store has none.

    Raise StoreError if they are damaged.
    """
    with store_errors(store):
        array = open_group(store, "r").get(TRACES)
        return np.asarray(array.oindex[rows]).astype(object) if isinstance(array, zarr.Array) else None
