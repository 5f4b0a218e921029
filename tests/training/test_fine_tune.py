import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from pipeline.config.train import NetworkSettings
from pipeline.errors import ConfigError, StoreError, WeightsError
from pipeline.model.model_file import load_model, save_model
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.store.writer import write_store
from pipeline.training.train import train
from pipeline.utils.atomic import sha256_of
from stages.cli import main
from tests.training.test_batches import in_shards, least
from tests.training.test_resume import command
from tests.training.test_train import ENCODER, QUICK, make_store


@pytest.fixture
def first(tmp_path: Path) -> Path:
    """A model of some speakers, beside a store of theirs in which noise is another."""
    store, speakers = make_store(tmp_path / "old.zarr")
    trained = train(store, QUICK.model_copy(update={"max_epochs": 15}), 0, 50, speakers)
    save_model(tmp_path / "first.safetensors", trained.model, store.encoder(), {})
    values = store.read()
    values[:, :, 1:] += 0.3 * np.random.default_rng(1).standard_normal(values[:, :, 1:].shape, dtype=np.float32)
    write_store(tmp_path / "s.zarr", store.utterances, values, store.status, ENCODER)
    return tmp_path / "first.safetensors"


@pytest.mark.parametrize("stream", [False, True])
def test_fine_tuning_starts_from_the_model_and_keeps_its_preconditioner(first: Path, stream: bool) -> None:
    store, given = EmbeddingStore.open(first.parent / "s.zarr"), QUICK
    if stream:
        store = in_shards(first.parent / "t.zarr", store, 2)
        given = least(store, QUICK)
    old = load_model(first).model
    nothing = train(store, given.model_copy(update={"max_epochs": 0}), 0, 50, init=first)
    for name, value in nothing.model.network.state_dict().items():
        assert torch.equal(value, old.network.state_dict()[name])
    tuned = train(store, given.model_copy(update={"max_epochs": 10}), 0, 50, init=first)
    assert torch.equal(tuned.model.matrix, old.matrix)
    assert torch.equal(tuned.model.mean, old.mean)
    assert tuned.curve[0].validation_loss == nothing.curve[0].validation_loss
    assert tuned.curve[tuned.best_epoch].validation_loss < tuned.curve[0].validation_loss
    assert tuned.init_sha256 == sha256_of(first)
    fresh = train(store, given.model_copy(update={"max_epochs": 1}), 0, 50)
    assert not torch.equal(fresh.model.matrix, old.matrix)


def test_settings_that_must_match_are_named_and_others_may_change(first: Path) -> None:
    store = EmbeddingStore.open(first.parent / "s.zarr")
    for changes, says in (
        ({"objective": "dae"}, "train.objective is dae, but .*first.safetensors was trained with seed. Set it to seed"),
        ({"timesteps": 100}, "train.timesteps is 100, .* with 1000"),
        ({"scale": "sampling"}, "train.scale is sampling, .* with both"),
        ({"network": NetworkSettings(blocks=2)}, "train.network.blocks is 2, .* with 1"),
        ({"network": NetworkSettings(precondition="none")}, "train.network.precondition is none, .* with whiten"),
    ):
        with pytest.raises(ConfigError, match=says):
            train(store, QUICK.model_copy(update=changes), 0, 50, init=first)
    free = {
        "loss": "l2",
        "network": NetworkSettings(dropout=0.5),
        "learning_rate": 1e-5,
        "batch_size": 8,
        "max_epochs": 1,
    }
    assert train(store, QUICK.model_copy(update=free), 0, 50, init=first).curve[1:]


def test_another_encoders_embeddings_are_refused(first: Path) -> None:
    store = EmbeddingStore.open(first.parent / "s.zarr")
    strange = ENCODER | {"weights_sha256": "cd"}
    write_store(first.parent / "o.zarr", store.utterances, store.read(), store.status, strange)
    with pytest.raises(StoreError, match=r"weights_sha256 is 'cd', but .*first.safetensors was trained on 'ab'"):
        train(EmbeddingStore.open(first.parent / "o.zarr"), QUICK, 0, 50, init=first)
    with pytest.raises(WeightsError, match="no such model"):
        train(store, QUICK, 0, 50, init=first.with_name("none.safetensors"))


def test_seed_train_init_notes_the_origin_and_refuses_to_replace_it(
    first: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = first.parent
    plain = "warmup: 0, max_timestep: null, contrast: 0.0, target: crop, swap: 0.0"
    (folder / "p.yaml").write_text(f"train: {{batch_size: 32, threads: 1, max_epochs: 2, {plain}}}\n")
    main(command(folder, "--init", str(first)))
    assert "(as given " in capsys.readouterr().out
    with safe_open(folder / "m.safetensors", framework="pt") as file:
        summary = json.loads(file.metadata()["seed"])["training"]
    assert summary["init_sha256"] == sha256_of(first)
    (row, *_) = csv.DictReader((folder / "m.curve.csv").open())
    store = EmbeddingStore.open(folder / "s.zarr")
    start = train(store, QUICK.model_copy(update={"max_epochs": 0}), 0, 50, init=first).curve[0]
    assert float(row["validation_loss"]) == pytest.approx(start.validation_loss, abs=1e-6)
    with pytest.raises(SystemExit):
        main(command(folder, "--init", str(first), name="first"))
    assert "--init and --out are the same file" in capsys.readouterr().err
