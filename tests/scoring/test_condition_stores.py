from pathlib import Path

import numpy as np
import pytest

from pipeline.config.train import NetworkSettings, Train
from pipeline.model.diffusion.sampler import Sampling
from pipeline.model.enhance_store import enhance_store
from pipeline.model.model_file import save_model
from pipeline.model.seed_model import SeedModel
from pipeline.scoring.condition_stores import open_condition_stores
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.store.schema import OK
from pipeline.store.writer import write_store


@pytest.mark.parametrize("scale", ["sampling", "both"])
def test_originals_have_the_lengths_that_the_network_was_trained_on(tmp_path: Path, scale: str) -> None:
    values = 5 * np.random.default_rng(0).standard_normal((6, 2, 1, 8)).astype(np.float32)
    encoder = {"encoder": "toy", "weights_sha256": "ab", "dim": 8}
    write_store(tmp_path / "raw/clean.zarr", list("abcdef"), values, np.full(6, OK, np.uint8), encoder)
    raw = EmbeddingStore.open(tmp_path / "raw/clean.zarr")
    settings = Train.model_validate({"scale": scale, "network": NetworkSettings(precondition="none").model_dump()})
    save_model(tmp_path / "m.safetensors", SeedModel(8, settings), encoder, {})
    enhance_store(raw, tmp_path / "m.safetensors", tmp_path / "seed/clean.zarr", Sampling())
    source = open_condition_stores({"seed": tmp_path / "seed"}, ["clean"], [tmp_path / "m.safetensors"])["seed"]
    crops = values[:, :, 0]
    scaled = crops / np.linalg.norm(crops, axis=2, keepdims=True) * 8**0.5
    np.testing.assert_allclose(source.prepare_originals(crops), scaled, rtol=1e-5)
    own = crops if scale == "sampling" else scaled
    np.testing.assert_allclose(source.prepare_originals(crops, own_lengths=True), own, rtol=1e-5)
