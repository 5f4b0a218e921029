"""The journal of a store: a hidden folder beside it for unfinished work, and what may be resumed or replaced."""

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import PlaceError
from pipeline.store.embedding_store import open_array
from pipeline.store.integrity import split_checksums
from pipeline.store.layout import create_store
from pipeline.store.schema import ARRAYS
from pipeline.store.zarr_access import open_group
from pipeline.utils.paths import ENTRY, Place, exists, list_names, read_bytes
from pipeline.utils.shortage import raise_shortage

STORE = "store.zarr"
"""The name of the store in its folder of the journal."""

PUBLISHING = "publishing"
"""The name of an object in the journal that exists while a remote store is replaced, object by object."""


def journal_of(target: Place) -> Place:
    """Return the journal of a store: a hidden folder beside it for unfinished work."""
    return target.parent / f".{target.name}.journal"


def is_replaceable(target: Place, publishing: Place) -> bool:
    """Return True if nothing is there, one of our stores, or the rest of one that was `publishing`."""
    names, known = list_names(target), {ENTRY, *ARRAYS}
    if not names <= known:
        return False
    if ENTRY not in names:
        return not names or exists(publishing)  # a run was about to replace its objects
    try:
        return "schema" in json.loads(read_bytes(target / ENTRY))["attributes"]
    except (OSError, ValueError, KeyError, TypeError):
        return False


def is_undamaged(
    store: Place,
    utterances: Sequence[str],
    shape: tuple[int, int, int],
    shard: int,
    attributes: Mapping[str, Any],
    of_audio: bool,
) -> bool:
    """Return True if what was written when an unfinished store was created is what would be written now."""
    with tempfile.TemporaryDirectory() as name:
        new = Path(name) / STORE
        create_store(new, utterances, shape, shard, attributes, of_audio, whole=False)
        made = [(new, store), *((new / array, store / array) for array in ARRAYS if (new / array).exists())]
        try:
            for ours, theirs in made:
                found = json.loads(read_bytes(theirs / ENTRY))
                found["attributes"], _ = split_checksums(found["attributes"])
                if found != json.loads(read_bytes(ours / ENTRY)):
                    return False
            ids = [np.asarray(open_array(open_group(place, "r"), "utterances")[:]) for place in (new, store)]
            return np.array_equal(ids[0], ids[1])
        except PlaceError:
            raise
        except Exception as error:  # Zarr may raise any error
            raise_shortage(error, store)
            return False
