"""Enhance a store of embeddings with a trained model, by one reverse step."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from pipeline.files import sha256_of
from pipeline.model import check_encoder, load_model
from pipeline.store import EmbeddingStore, write_store

_BATCH = 4096


def enhance(
    store: EmbeddingStore,
    model_path: Path,
    out: Path,
    timestep: int,
    device: torch.device | None = None,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Write the enhanced copy of a store, row for row, and return the number of vectors enhanced.

    Failed rows stay failed. The new store's attributes are the old one's and the model's checksum.

    Raises:
        WeightsError: the model cannot be read.
        StoreError: the store is damaged, or of another encoder than the model's.
    """
    device = device or torch.device("cpu")
    loaded = load_model(model_path, device)
    check_encoder(loaded, store.attributes, model_path, store.path)
    values = store.read()
    rows = values[store.ok]
    flat = torch.from_numpy(rows.reshape(-1, store.dim))
    done = []
    with torch.inference_mode():
        for start in range(0, len(flat), _BATCH):
            batch = flat[start : start + _BATCH]
            done.append(loaded.model(batch.to(device), timestep).cpu())
            if progress:
                progress(len(batch))
    enhanced = np.full_like(values, np.nan)
    if done:
        enhanced[store.ok] = torch.cat(done).numpy().reshape(rows.shape)
    attributes = {key: value for key, value in store.attributes.items() if key != "schema"}
    attributes |= {"enhanced_by_sha256": sha256_of(model_path), "timestep": timestep}
    write_store(out, store.utterances, enhanced, store.status, attributes)
    return len(flat)
