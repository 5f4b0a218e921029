from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.errors import StoreError
from pipeline.model.model_file import load_model
from pipeline.model.seed_model import SeedModel
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.store.schema import FAILED
from pipeline.store.writer import write_store
from pipeline.training.aligned_stores import AlignedStores, align_stores, join_speakers
from pipeline.training.batches import StreamedBatches, open_batches
from pipeline.training.train import train
from stages.cli import main
from tests.training.test_batches import in_shards, least
from tests.training.test_train import DIM, ENCODER, QUICK, make_store

DRIFT = np.linspace(-3, 3, DIM).astype(np.float32)
SETTINGS = QUICK.model_copy(update={"max_epochs": 2, "folds": 0})


@pytest.fixture
def stores(tmp_path: Path) -> list[EmbeddingStore]:
    """Return two domains, with a row that failed: the second one is the first, drifted."""
    first, _ = make_store(tmp_path / "a.zarr", failed=5)
    write_store(tmp_path / "b.zarr", first.utterances, first.read() + DRIFT, first.status, ENCODER)
    return [first, EmbeddingStore.open(tmp_path / "b.zarr")]


def test_a_single_store_stays_as_it_is(stores: list[EmbeddingStore]) -> None:
    assert align_stores(stores[:1]) is stores[0]
    assert join_speakers([{"a": "b"}]) == {"a": "b"}


def test_the_clean_means_of_all_stores_become_one(stores: list[EmbeddingStore]) -> None:
    joined = align_stores(stores)
    assert isinstance(joined, AlignedStores)
    count = len(stores[0].utterances)
    assert joined.shape == (2 * count, *stores[0].shape[1:])
    values = joined.read()
    np.testing.assert_allclose(values[:count], values[count:], atol=1e-5)  # the drift is gone
    np.testing.assert_allclose(values[:count], stores[0].read(), atol=1e-6)  # the first one stays where it is
    assert np.flatnonzero(joined.status == FAILED).tolist() == [5, count + 5]
    assert (joined.utterances[0], joined.utterances[count]) == ("0/s0/0", "1/s0/0")
    for rows in [*joined.shards(), range(count - 3, count + 4)]:
        np.testing.assert_array_equal(joined.read_rows(rows), values[rows.start : rows.stop])
    assert [row for rows in joined.shards() for row in rows] == list(range(2 * count))


def test_the_corpora_of_one_store_are_domains(stores: list[EmbeddingStore], tmp_path: Path) -> None:
    first = stores[0]
    odd = np.arange(len(first.utterances)) % 2 == 1
    mixed = first.read() + odd[:, None, None, None] * DRIFT
    write_store(tmp_path / "c.zarr", first.utterances, mixed, first.status, ENCODER)
    store = EmbeddingStore.open(tmp_path / "c.zarr")
    corpora = {name: "odd" if one else None for name, one in zip(first.utterances, odd, strict=True)}
    assert align_stores([store], [dict.fromkeys(first.utterances)]) is store
    joined = align_stores([store], [corpora])
    assert joined.utterances == first.utterances
    assert [(each["corpus"], each["utterances"]) for each in joined.attributes["domains"]] == [(None, 40), ("odd", 39)]
    means = [joined.read()[[row for row in joined.ok if odd[row] == one]][:, :, 0].mean(axis=(0, 1)) for one in (0, 1)]
    np.testing.assert_allclose(means[0], means[1], atol=1e-5)
    even = store.ok[store.ok % 2 == 0]
    np.testing.assert_allclose(joined.read()[even], first.read()[even])
    for rows in (*joined.shards(), range(3, 9)):
        np.testing.assert_array_equal(joined.read_rows(rows), joined.read()[rows.start : rows.stop])


def test_stores_that_do_not_go_together_are_refused(stores: list[EmbeddingStore], tmp_path: Path) -> None:
    first = stores[0]
    for name, values, other, says in (
        ("views", first.read()[:, :, :2], {}, "2 and 2 draws, and views 4 and 2"),
        ("encoder", first.read(), {"weights_sha256": "cd"}, "encoder weights_sha256 is 'ab' and 'cd'"),
        ("enhanced", first.read(), {"enhanced_by_sha256": "ef"}, "enhanced embeddings already"),
    ):
        write_store(tmp_path / f"{name}.zarr", first.utterances, values, first.status, ENCODER | other)
        with pytest.raises(StoreError, match=says):
            align_stores([first, EmbeddingStore.open(tmp_path / f"{name}.zarr")])
    failed = np.full(len(first.utterances), FAILED, np.uint8)
    write_store(tmp_path / "f.zarr", first.utterances, first.read() * np.nan, failed, ENCODER)
    with pytest.raises(StoreError, match=r"f\.zarr: has no encoded utterance"):
        align_stores([first, EmbeddingStore.open(tmp_path / "f.zarr")])


def test_training_sees_no_drift(stores: list[EmbeddingStore]) -> None:
    same = [stores[0], stores[0]]
    plain, drifted = (train(align_stores(each), SETTINGS, 0, 50).model for each in (same, stores))
    for name, value in plain.network.state_dict().items():
        torch.testing.assert_close(value, drifted.network.state_dict()[name], atol=2e-3, rtol=0)
    torch.testing.assert_close(plain.matrix, drifted.matrix, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(drifted.mean - plain.mean, torch.zeros(DIM), atol=1e-4, rtol=0)


def test_several_stores_are_streamed_if_memory_is_small(stores: list[EmbeddingStore], tmp_path: Path) -> None:
    joined = align_stores([in_shards(tmp_path / f"{number}.zarr", store, 2) for number, store in enumerate(stores)])
    held = np.arange(len(joined.ok)) % 5 == 0
    models = [SeedModel(DIM, SETTINGS), SeedModel(DIM, least(joined, SETTINGS))]
    batches = [open_batches(joined, held, model, np.random.default_rng(0)) for model in models]
    assert isinstance(batches[1], StreamedBatches)
    torch.testing.assert_close(models[0].matrix, models[1].matrix, atol=1e-4, rtol=1e-4)
    sums = [sum(float(batch.sum()) for batch in each.epoch(np.random.default_rng(0))) for each in batches]
    assert sums[0] == pytest.approx(sums[1], rel=1e-3)


def test_the_command_takes_a_manifest_for_each_store(
    stores: list[EmbeddingStore], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [f"{name},{name}.wav,{name.split('/')[0]}\n" for name in stores[0].utterances]
    (tmp_path / "m.csv").write_text("utterance,path,speaker\n" + "".join(rows))
    (tmp_path / "p.yaml").write_text("train: {threads: 1, max_epochs: 1, folds: 0}\n")
    command = ["train", "--params", str(tmp_path / "p.yaml"), "--out", str(tmp_path / "m.safetensors")]
    for store in stores:
        command += ["--store", str(store.path), "--manifest", str(tmp_path / "m.csv")]
    main(command)
    assert "4 of 40 speakers held out" in capsys.readouterr().out
    training = load_model(tmp_path / "m.safetensors").metadata["training"]
    assert (training["domains"], training["speakers"], training["utterances"]) == (2, 40, 158)
    assert "| domains, each moved to one mean | 2 |" in (tmp_path / "m.md").read_text()
    with pytest.raises(SystemExit) as left:
        main(command[:-2])
    assert left.value.code == 2
    assert "1 --manifest for 2 --store" in capsys.readouterr().err


def test_the_command_reads_corpora_from_the_manifest(
    stores: list[EmbeddingStore], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        f"{name},{name}.wav,{name.split('/')[0]},{'ab'[number % 2]}\n"
        for number, name in enumerate(stores[0].utterances)
    ]
    (tmp_path / "m.csv").write_text("utterance,path,speaker,corpus\n" + "".join(rows))
    (tmp_path / "p.yaml").write_text("train: {threads: 1, max_epochs: 1, folds: 0}\n")
    command = ["train", "--params", str(tmp_path / "p.yaml"), "--out", str(tmp_path / "m.safetensors")]
    main([*command, "--store", str(stores[0].path), "--manifest", str(tmp_path / "m.csv")])
    assert "2 of 20 speakers held out" in capsys.readouterr().out
    assert load_model(tmp_path / "m.safetensors").metadata["training"]["domains"] == 2
