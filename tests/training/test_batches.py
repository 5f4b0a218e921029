import threading
import time
import tracemalloc
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config.train import NetworkSettings, Train
from pipeline.errors import ConfigError, StoreError
from pipeline.model.seed_model import SeedModel
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.store.schema import FAILED, OK
from pipeline.store.writer import StoreWriter
from pipeline.training.batches import BatchSource, MemoryBatches, StreamedBatches, open_batches
from pipeline.training.memory import GB, IN_MEMORY, find_least_memory
from pipeline.training.preconditioner import fit_preconditioner
from pipeline.training.progress import Epoch, PassProgress
from pipeline.training.train import train
from tests.project import few_or_many
from tests.training.test_train import ENCODER, QUICK, make_store

PLAIN = Train(network=NetworkSettings(precondition="none"), target="crop")


@dataclass(frozen=True)
class Listed(EmbeddingStore):
    """A store of an array in memory, whose shards can be slow."""

    values: np.ndarray = None  # type: ignore[assignment]
    shard: int = 4
    wait: Callable[[range], None] = lambda rows: None

    @property
    def shape(self) -> tuple[int, int, int, int]:  # type: ignore[override]
        return self.values.shape

    def shards(self) -> list[range]:
        starts = range(0, len(self.values), self.shard)
        return [range(start, min(start + self.shard, len(self.values))) for start in starts]

    def read_rows(self, rows: range) -> np.ndarray:
        self.wait(rows)
        return self.values[rows.start : rows.stop].copy()


def listed(rows: int, draws: int = 2, shard: int = 4, failed: tuple[int, ...] = (), **more: object) -> Listed:
    """Vectors in the plane, whose angles are the numbers of their pairs."""
    angle = 2 * np.pi * np.arange(rows * draws) / (rows * draws)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1).reshape(rows, draws, 1, 2)
    values = (circle * np.array([1.0, 2.0, 0.5])[:, None]).astype(np.float32)
    status = np.full(rows, OK, dtype=np.uint8)
    values[list(failed)], status[list(failed)] = np.nan, FAILED
    ids = tuple(map(str, range(rows)))
    return Listed(Path("listed.zarr"), {"dim": 2}, ids, status, values, shard, **more)  # type: ignore[arg-type]


def numbers(batch: torch.Tensor, count: int) -> list[int]:
    """The numbers of a batch's pairs, of `count` in all; every view must say the same."""
    angle = torch.atan2(batch[..., 1], batch[..., 0]) / (2 * np.pi) * count
    found = angle.round().long() % count
    assert (found == found[:, :1]).all()
    return found[:, 0].tolist()


def least(store: EmbeddingStore, given: Train) -> Train:
    """The settings with as little memory as a store can be streamed in."""
    return given.model_copy(update={"memory": (find_least_memory(store, given) + 1) / GB})


def streamed(store: EmbeddingStore, held: np.ndarray, given: Train, seed: int = 0) -> StreamedBatches:
    torch.manual_seed(0)
    return StreamedBatches(store, held, SeedModel(store.dim, least(store, given)), np.random.default_rng(seed))


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_an_epoch_has_every_training_pair_once_and_none_that_is_held_out(data: st.DataObject) -> None:
    rows, draws, shard, size = (data.draw(st.integers(*span)) for span in ((2, 80), (1, 3), (1, 9), (1, 50)))
    failed = tuple(data.draw(st.sets(st.integers(0, rows - 1), max_size=rows - 2)))
    store = listed(rows, draws, shard, failed)
    held = np.array([data.draw(st.booleans()) for _ in store.ok])
    held[data.draw(st.permutations(range(len(held))))[:2]] = True, False
    feed = streamed(store, held, PLAIN.model_copy(update={"batch_size": size}))
    pairs = np.arange(rows * draws).reshape(rows, draws)
    training, validation = (sorted(pairs[store.ok[part]].ravel().tolist()) for part in (~held, held))
    assert feed.pairs == len(training)
    seen = numbers(feed.validation, rows * draws)
    assert len(set(seen)) == len(seen) == feed.plan.validation * draws
    assert set(seen) <= set(validation)
    for _ in range(2):
        batches = list(feed.epoch(np.random.default_rng(1)))
        assert sorted(number for batch in batches for number in numbers(batch, rows * draws)) == training
        assert {len(batch) for batch in batches[:-1]} <= {size}
        assert len(batches[-1]) == (len(training) - 1) % size + 1


@pytest.mark.parametrize("in_memory", [True, False])
@settings(deadline=None, max_examples=30)
@given(st.data())
def test_an_epoch_of_one_crop_an_utterance_in_whole_batches(in_memory: bool, data: st.DataObject) -> None:
    rows, draws, shard, size = (data.draw(st.integers(*span)) for span in ((2, 60), (1, 3), (1, 9), (1, 30)))
    drop = data.draw(st.booleans())
    store, held = listed(rows, draws, shard), np.arange(rows) < 1
    given_settings = PLAIN.model_copy(update={"batch_size": size, "drop_last": drop, "epoch_crops": "one"})
    if in_memory:
        feed: BatchSource = MemoryBatches.read(store, held, SeedModel(2, given_settings))
    else:
        feed = streamed(store, held, given_settings)
    rng, seen = np.random.default_rng(data.draw(st.integers(0, 99))), set()
    for _ in range(4):
        batches = list(feed.epoch(rng))
        pairs = [number for batch in batches for number in numbers(batch, rows * draws)]
        assert len(pairs) == feed.pairs == ((rows - 1) // size * size if drop else rows - 1)
        assert all(len(batch) == size for batch in (batches if drop else batches[:-1]))
        used = {number // draws for number in pairs}
        assert len(used) == len(pairs)
        assert 0 not in used
        seen |= {number % draws for number in pairs}
    assert len(seen) == draws or len(pairs) < 8


def test_whole_batches_of_all_crops() -> None:
    store, held = listed(20, draws=2), np.arange(20) < 1
    whole = PLAIN.model_copy(update={"batch_size": 5, "drop_last": True})
    for feed in (MemoryBatches.read(store, held, SeedModel(2, whole)), streamed(store, held, whole)):
        batches = list(feed.epoch(np.random.default_rng(0)))
        assert [len(batch) for batch in batches] == [5] * 7
        assert feed.pairs == 35


def test_the_order_depends_on_seed_and_epoch_but_not_on_timing() -> None:
    dice = np.random.default_rng()
    held = np.arange(200) < 20
    orders = []
    for wait in (lambda rows: None, lambda rows: time.sleep(dice.uniform(0, 0.004))):
        feed = streamed(listed(200, wait=wait), held, PLAIN.model_copy(update={"batch_size": 16}))
        rng = np.random.default_rng(5)
        orders.append([[numbers(batch, 400) for batch in feed.epoch(rng)] for _ in range(2)])
    assert orders[0] == orders[1]
    assert orders[0][0] != orders[0][1]


def test_a_batch_mixes_shards_from_all_over_the_store() -> None:
    feed = streamed(listed(1000, draws=1, shard=10), np.arange(1000) < 10, PLAIN.model_copy(update={"batch_size": 32}))
    shards = [{number // 10 for number in numbers(batch, 1000)} for batch in feed.epoch(np.random.default_rng(0))]
    assert feed.plan.buffer < 100  # a tenth of the store
    assert np.mean([len(found) for found in shards[:-1]]) > 4
    assert np.mean([max(found) - min(found) for found in shards[:-1]]) > 30


@pytest.mark.parametrize("rows", [3, 40])
def test_one_shard_and_a_batch_larger_than_the_store(rows: int) -> None:
    feed = streamed(listed(rows, shard=64), np.arange(rows) < 1, PLAIN.model_copy(update={"batch_size": 500}))
    (batch,) = feed.epoch(np.random.default_rng(0))
    assert sorted(numbers(batch, 2 * rows)) == list(range(2, 2 * rows))


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("ahead")]


def test_no_thread_outlives_training() -> None:
    def stop(progress: PassProgress) -> None:
        if progress.epoch == 1:
            raise KeyboardInterrupt

    store = listed(200, wait=lambda rows: time.sleep(0.001))
    with pytest.raises(KeyboardInterrupt):
        train(store, least(store, PLAIN.model_copy(update={"batch_size": 4})), 0, 50, on_batch=stop)
    assert not threads()


def in_shards(path: Path, store: EmbeddingStore, shard: int) -> EmbeddingStore:
    with closing(StoreWriter(path, store.utterances, store.shape[1:], ENCODER, shard)) as writer:
        for rows in writer.shards():
            writer.write(rows, store.read_rows(rows), store.status[rows.start : rows.stop])
        writer.finish()
    return EmbeddingStore.open(path)


def test_a_shard_damaged_in_training_is_named(tmp_path: Path) -> None:
    store = in_shards(tmp_path / "t.zarr", make_store(tmp_path / "s.zarr")[0], 8)
    feed = streamed(store, np.arange(80) < 8, QUICK)
    shard = next(path for path in (tmp_path / "t.zarr" / "embeddings" / "c" / "3").rglob("*") if path.is_file())
    content = bytearray(shard.read_bytes())
    content[7] ^= 1
    shard.write_bytes(content)
    with pytest.raises(StoreError, match=r"t\.zarr: corrupt embedding store, in the shard of rows 24 to 31"):
        list(feed.epoch(np.random.default_rng(0)))
    assert not threads()


@pytest.mark.parametrize("kind", ["none", "center", "whiten"])
def test_the_preconditioner_of_a_stream_is_that_of_its_training_pairs(tmp_path: Path, kind: str) -> None:
    store = in_shards(tmp_path / "t.zarr", make_store(tmp_path / "s.zarr", failed=5)[0], 8)
    held = np.arange(79) % 10 == 3
    given = QUICK.model_copy(update={"network": NetworkSettings(precondition=kind)})  # type: ignore[arg-type]
    feed = streamed(store, held, given)
    fit = store.read()[store.ok[~held]].reshape(-1, 4, store.dim)
    mean, matrix = fit_preconditioner(kind, fit[:, 0], fit[:, 1:])
    torch.testing.assert_close(feed._model.mean, torch.from_numpy(mean).float(), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(feed._model.matrix, torch.from_numpy(matrix).float(), rtol=1e-6, atol=1e-7)
    whole = MemoryBatches.read(store, held, SeedModel(store.dim, given))
    assert feed.pairs == whole.pairs
    torch.testing.assert_close(feed.validation, whole.validation[: len(feed.validation)], rtol=1e-4, atol=1e-5)


def test_a_store_that_fits_is_prepared_and_ordered_in_memory(tmp_path: Path) -> None:
    store, _ = make_store(tmp_path / "s.zarr", failed=5)
    held = np.arange(79) % 10 == 3
    model = SeedModel(store.dim, QUICK)
    feed = open_batches(store, held, model, np.random.default_rng(0))
    assert isinstance(feed, MemoryBatches)
    fit, validation = (store.read()[store.ok][part].reshape(-1, 4, store.dim) for part in (~held, held))
    mean, matrix = fit_preconditioner("whiten", fit[:, 0], fit[:, 1:])
    assert torch.equal(model.mean, torch.from_numpy(mean).float())
    assert torch.equal(model.matrix, torch.from_numpy(matrix).float())
    flat = model.prepare(torch.from_numpy(fit.reshape(-1, store.dim))).reshape(fit.shape)
    order = torch.from_numpy(np.random.default_rng(7).permutation(len(fit)))
    for batch, rows in zip(feed.epoch(np.random.default_rng(7)), order.split(QUICK.batch_size), strict=True):  # type: ignore[no-untyped-call]
        assert torch.equal(batch, flat[rows])
    expected = model.prepare(torch.from_numpy(validation.reshape(-1, store.dim))).reshape(validation.shape)
    assert torch.equal(feed.validation, expected)


def test_a_store_is_streamed_when_training_on_it_would_not_fit(tmp_path: Path) -> None:
    store = in_shards(tmp_path / "t.zarr", make_store(tmp_path / "s.zarr")[0], 4)
    size, held = 4 * np.prod(store.shape), np.arange(80) < 8
    for memory, kind in ((IN_MEMORY * size, MemoryBatches), (IN_MEMORY * size - 1, StreamedBatches)):
        model = SeedModel(store.dim, QUICK.model_copy(update={"memory": memory / GB}))
        assert isinstance(open_batches(store, held, model, np.random.default_rng(0)), kind)


def test_too_little_memory_is_one_line_that_says_how_much_is_needed(tmp_path: Path) -> None:
    store = listed(400_000, draws=1, shard=20_000)
    with pytest.raises(ConfigError, match=r"^train\.memory: 0\.001 GB is too little to stream .* give 0\.0136 or more"):
        train(store, Train(memory=0.001, max_epochs=0), 0, 50)
    trained = train(store, Train(memory=0.0136, max_epochs=0), 0, 50)
    assert trained.held_out.startswith("40000 of 400000 utterances (")
    assert trained.held_out.endswith(" of 40000 utterances used)")


@pytest.mark.endurance
@pytest.mark.parametrize("memory", few_or_many([0.012], [0.012, 0.03]))
def test_the_vectors_stay_within_the_memory_given(tmp_path: Path, memory: float) -> None:
    rng = np.random.default_rng(0)
    path, rows = tmp_path / "s.zarr", 4000
    with closing(StoreWriter(path, [str(n) for n in range(rows)], (2, 4, 128), {"dim": 128}, 64)) as writer:
        for part in writer.shards():
            values = rng.standard_normal((len(part), 2, 4, 128), dtype=np.float32)
            writer.write(part, values, np.full(len(part), OK, np.uint8))
        writer.finish()
    store = EmbeddingStore.open(path)
    held = rng.random(rows) < 0.3
    model = SeedModel(128, Train(memory=memory, batch_size=64))
    store.read_rows(range(64))  # what Zarr keeps for itself
    tracemalloc.start()  # counts what NumPy and Zarr allocate: all but the last stage of a batch
    try:
        feed = open_batches(store, held, model, rng)
        assert isinstance(feed, StreamedBatches)
        for _ in range(2):
            for _ in feed.epoch(rng):
                pass
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert 0.5 * memory * GB < peak < memory * GB


@pytest.mark.endurance
def test_a_stream_trains_as_well_as_memory_does_and_gives_one_model_for_a_seed(tmp_path: Path) -> None:
    whole, speakers = make_store(tmp_path / "s.zarr", failed=5)
    store = in_shards(tmp_path / "t.zarr", whole, 2)
    plenty = QUICK.model_copy(update={"max_epochs": few_or_many(6, 15)})
    little = least(store, plenty)
    seeds = few_or_many(2, 3)
    losses = np.empty((seeds, 2))
    for seed in range(seeds):
        for which, chosen in enumerate((plenty, little)):
            trained = train(store, chosen, seed, 50, speakers)
            losses[seed, which] = trained.curve[trained.best_epoch].validation_loss
    spread = np.ptp(losses[:, 0])
    assert (np.abs(losses[:, 1] - losses[:, 0]) < spread).all()
    assert abs(losses[:, 1].mean() - losses[:, 0].mean()) < spread / 3
    again = train(store, little, seeds - 1, 50, speakers)
    assert all(torch.equal(a, b) for a, b in zip(trained.model.parameters(), again.model.parameters(), strict=True))


def test_every_pass_reports_its_progress() -> None:
    store, paces, epochs = listed(40, failed=(3,)), [], []
    given = least(store, PLAIN.model_copy(update={"batch_size": 10, "max_epochs": 2}))
    train(store, given, 0, 50, progress=epochs.append, on_batch=paces.append)
    assert [epoch.epoch for epoch in epochs if isinstance(epoch, Epoch)] == [0, 1, 2]
    assert {pace.epoch for pace in paces} == {0, 1, 2}
    for epoch in range(3):
        done = [pace.done for pace in paces if pace.epoch == epoch]
        assert done == sorted(done)
        assert done[-1] == {pace.pairs for pace in paces if pace.epoch == epoch}.pop()
    assert all(pace.rate > 0 for pace in paces)
