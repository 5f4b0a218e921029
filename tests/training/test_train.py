import copy
import csv
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from pipeline.config.train import NetworkSettings, Train
from pipeline.data.manifest import Utterance, write_manifest
from pipeline.errors import ConfigError, OutputError, StoreError, TrainingError, WeightsError
from pipeline.model.apply import enhance_vectors
from pipeline.model.diffusion.objective import Loss
from pipeline.model.diffusion.objectives import seed as seed_objective
from pipeline.model.diffusion.objectives.seed import seed_loss
from pipeline.model.diffusion.sampler import Sampling
from pipeline.model.enhance_store import enhance_store
from pipeline.model.model_file import load_model, save_model
from pipeline.model.seed_model import SeedModel
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.store.schema import FAILED, OK
from pipeline.store.writer import write_store
from pipeline.training.batches import StreamedBatches, open_batches
from pipeline.training.loop import rate_factor
from pipeline.training.train import hold_out, train
from pipeline.utils.tensor_file import read_tensor_file, write_tensor_file
from stages.cli import main
from tests.conftest import tree_bytes

DIM = 16
QUICK = Train(
    contrast=0.0,
    target="crop",
    swap=0.0,
    max_timestep=None,
    strength=1.0,
    max_epochs=25,
    patience=25,
    warmup=0,
    schedule="constant",
    batch_size=32,
    threads=1,
    learning_rate=2e-3,
    ema=0.9,
)
ENCODER = {"encoder": "toy", "weights_sha256": "ab", "dim": DIM}


def make_store(path: Path, speakers: int = 20, failed: int | None = None) -> tuple[EmbeddingStore, dict[str, str]]:
    """Speakers on a sphere; noise pushes every vector the same nonlinear way, so there is something to learn."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((speakers, 1, DIM))
    clean = centres + 0.3 * rng.standard_normal((speakers, 4, DIM))
    clean = clean.reshape(-1, 1, 1, DIM) + 0.1 * rng.standard_normal((speakers * 4, 2, 1, DIM))
    push = rng.standard_normal((3, DIM))
    noisy = np.tanh(clean + push) + 0.1 * rng.standard_normal((speakers * 4, 2, 3, DIM))
    values = np.concatenate([clean, noisy], axis=2).astype(np.float32)
    status = np.full(len(values), OK, dtype=np.uint8)
    if failed is not None:
        values[failed], status[failed] = np.nan, FAILED
    ids = [f"s{n // 4}/{n % 4}" for n in range(len(values))]
    write_store(path, ids, values, status, ENCODER)
    return EmbeddingStore.open(path), {name: name.split("/")[0] for name in ids}


@pytest.mark.parametrize("predict", ["sample", "correction"])
@pytest.mark.parametrize("precondition", ["none", "whiten"])
def test_training_lowers_the_loss_on_speakers_it_has_not_seen(tmp_path: Path, predict: str, precondition: str) -> None:
    store, speakers = make_store(tmp_path / "s.zarr")
    settings = QUICK.model_copy(
        update={
            "max_epochs": 40 if predict == "sample" else 20,
            "network": NetworkSettings(predict=predict, precondition=precondition, width=2),
        }
    )  # type: ignore[arg-type]
    trained = train(store, settings, seed=0, timestep=50, speakers=speakers)
    losses = [epoch.validation_loss for epoch in trained.curve]
    assert trained.best_epoch == int(np.argmin(losses))
    assert min(losses) < 0.9 * losses[0]
    assert trained.held_out == "2 of 20 speakers"


def test_a_seed_gives_one_model_and_another_seed_another(tmp_path: Path) -> None:
    store, speakers = make_store(tmp_path / "s.zarr", failed=5)
    settings = QUICK.model_copy(update={"max_epochs": 3})
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        trained = train(store, settings, seed, 50, speakers)
        save_model(tmp_path / name / "m.safetensors", trained.model, {"name": "toy", **ENCODER}, {})
    assert tree_bytes(tmp_path / "a") == tree_bytes(tmp_path / "b")
    assert tree_bytes(tmp_path / "a") != tree_bytes(tmp_path / "c")


def test_the_best_epoch_is_kept_and_patience_ends_training(tmp_path: Path) -> None:
    store, speakers = make_store(tmp_path / "s.zarr")
    wild = QUICK.model_copy(update={"learning_rate": 1.0, "patience": 4})
    trained = train(store, wild, 0, 50, speakers)
    assert len(trained.curve) - 1 == trained.best_epoch + 4
    x = torch.from_numpy(store.read()[:4, 0, 1])
    assert torch.isfinite(trained.model(x, Sampling())).all()


def test_no_epochs_leave_the_preconditioner_alone(tmp_path: Path) -> None:
    store, speakers = make_store(tmp_path / "s.zarr")
    trained = train(store, QUICK.model_copy(update={"max_epochs": 0}), 0, 50, speakers)
    x = torch.from_numpy(store.read()[:4, 0, 1])
    prepared = torch.nn.functional.normalize((x - trained.model.mean) @ trained.model.matrix.T, dim=1)
    torch.testing.assert_close(torch.nn.functional.normalize(trained.model(x, Sampling()), dim=1), prepared)


@pytest.mark.parametrize(
    ("objective", "predict"),
    [("gap", "correction"), ("dae", "correction"), ("bridge", "correction"), ("bridge", "v"), ("vmf-pl", "sample")],
)
def test_every_objective_lowers_the_loss_on_speakers_it_has_not_seen(
    tmp_path: Path, objective: str, predict: str
) -> None:
    store, speakers = make_store(tmp_path / "s.zarr")
    network = NetworkSettings.model_validate({"predict": predict})
    settings = QUICK.model_copy(update={"objective": objective, "network": network})
    trained = train(store, settings, 0, 50, speakers)
    assert trained.curve[trained.best_epoch].validation_loss < 0.9 * trained.curve[0].validation_loss
    save_model(tmp_path / "m.safetensors", trained.model, ENCODER, {})
    sampling = Sampling(50, 4 if objective in ("gap", "bridge") else 1)
    enhance_store(store, tmp_path / "m.safetensors", tmp_path / "e.zarr", sampling)
    x = torch.from_numpy(store.read()[7, 1])
    expected = trained.model(x, sampling).numpy()
    np.testing.assert_allclose(EmbeddingStore.open(tmp_path / "e.zarr").read()[7, 1], expected, atol=1e-5)


def test_a_model_enhances_only_in_ways_that_it_was_trained_for(tmp_path: Path) -> None:
    store, _ = make_store(tmp_path / "s.zarr")
    for objective, sampling, says in (
        ("dae", Sampling(50, 3), "objective dae takes one pass"),
        ("bridge", Sampling(50, noise=1), "objective bridge is trained without Gaussian noise"),
    ):
        model = SeedModel(DIM, QUICK.model_copy(update={"objective": objective}))
        save_model(tmp_path / "m.safetensors", model, ENCODER, {})
        with pytest.raises(ConfigError, match=says):
            enhance_store(store, tmp_path / "m.safetensors", tmp_path / "e.zarr", sampling)


def fails_after(steps: int) -> Loss:
    """The paper's objective, whose value is NaN after so many steps."""
    calls = iter(range(10**6))

    def loss(network: Any, *rest: Any) -> torch.Tensor:
        return seed_loss(network, *rest) * (1.0 if next(calls) < steps else math.nan)

    return loss


def use_loss(monkeypatch: pytest.MonkeyPatch, loss: Loss) -> None:
    """Replace the loss of the objective seed."""
    monkeypatch.setattr(seed_objective, "OBJECTIVE", replace(seed_objective.OBJECTIVE, loss=loss))


def test_a_loss_that_is_not_finite_ends_training_with_the_last_good_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, speakers = make_store(tmp_path / "s.zarr")
    good = train(store, QUICK.model_copy(update={"max_epochs": 6}), 0, 50, speakers)
    assert good.best_epoch == 6
    assert not good.stopped
    steps = math.ceil(72 * 2 / QUICK.batch_size)
    use_loss(monkeypatch, fails_after(6 * steps + 2))
    cut = train(store, QUICK, 0, 50, speakers)
    assert cut.stopped.startswith("in epoch 7 the loss is nan")
    assert cut.curve[1:] == good.curve[1:]
    for name, value in cut.model.state_dict().items():
        assert torch.equal(value, good.model.state_dict()[name])
    use_loss(monkeypatch, fails_after(2))
    with pytest.raises(TrainingError, match=r"epoch 1 the loss is nan.*nothing was learnt"):
        train(store, QUICK, 0, 50, speakers)


def test_seed_train_says_that_it_was_stopped_and_writes_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_store(tmp_path / "s.zarr")
    (tmp_path / "p.yaml").write_text("train: {batch_size: 32, learning_rate: 2e-3, ema: 0.9, threads: 1}\n")
    use_loss(monkeypatch, fails_after(40))
    out = tmp_path / "m.safetensors"
    given = ["train", "--store", str(tmp_path / "s.zarr"), "--out", str(out), "--params", str(tmp_path / "p.yaml")]
    main(given)
    said = capsys.readouterr().err
    assert "stopped: in epoch 9 the loss is nan" in said
    assert "are kept. Lower train.learning_rate or set train.clip." in said
    assert load_model(out).model.settings.objective == "seed"
    rows = list(csv.DictReader((tmp_path / "m.curve.csv").open()))
    assert rows[0]["gradient_norm"] == rows[0]["train_loss"] == ""
    assert all(float(row["gradient_norm"]) > 0 for row in rows[1:])
    assert len(rows) == 9


def test_clipping_beyond_any_gradient_changes_nothing_and_below_does(tmp_path: Path) -> None:
    store, speakers = make_store(tmp_path / "s.zarr")
    curves = []
    for clip in (None, 1e9, 1e-9):
        trained = train(store, QUICK.model_copy(update={"max_epochs": 2, "clip": clip}), 0, 50, speakers)
        curves.append([epoch.validation_loss for epoch in trained.curve])
    assert curves[0] == curves[1]
    assert curves[0] != curves[2]


def test_without_averaging_the_weights_are_the_last_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, speakers = make_store(tmp_path / "s.zarr")
    gaps: list[float] = []

    def spy(model: SeedModel, network: torch.nn.Module, *rest: Any) -> float:
        pairs = zip(network.parameters(), model.network.parameters(), strict=True)
        gaps.append(max(float((ours - last).detach().abs().max()) for ours, last in pairs))
        return 1.0

    monkeypatch.setattr("pipeline.training.loop.compute_validation_loss", spy)
    for ema in (0.0, 0.9):
        train(store, QUICK.model_copy(update={"max_epochs": 2, "ema": ema}), 0, 50, speakers)
    assert gaps[:4] == [0, 0, 0, 0]  # the third is of the next run's start
    assert min(gaps[4:]) > 0


@pytest.mark.parametrize(
    ("wanted", "views"),
    [(None, [0, 1, 2, 3]), (2, [0, 1, 2]), (["music"], [0, 2]), (["reverb", "noise"], [0, 1, 3])],
)
def test_unselected_views_are_ignored(tmp_path: Path, wanted: int | list[str] | None, views: list[int]) -> None:
    whole, speakers = make_store(tmp_path / "s.zarr", failed=5)
    names = {"recipe": {"views": [{"name": name} for name in ("clean", "noise", "music", "reverb")]}}
    write_store(tmp_path / "n.zarr", whole.utterances, whole.read(), whole.status, ENCODER | names)
    write_store(tmp_path / "p.zarr", whole.utterances, whole.read()[:, :, views], whole.status, ENCODER)
    named, part = (EmbeddingStore.open(tmp_path / name) for name in ("n.zarr", "p.zarr"))
    settings = QUICK.model_copy(update={"max_epochs": 2})
    chosen = settings.model_copy(update={"noisy_views": wanted})
    ours, theirs = train(named, chosen, 0, 50, speakers), train(part, settings, 0, 50, speakers)
    assert ours.curve[1:] == theirs.curve[1:]
    for name, value in ours.model.state_dict().items():
        assert torch.equal(value, theirs.model.state_dict()[name])

    held, streamed = np.arange(79) >= 70, []
    for store, used in ((named, chosen), (part, settings)):
        feed = StreamedBatches(store, held, SeedModel(DIM, used), np.random.default_rng(0))
        streamed.append([feed.validation, *feed.epoch(np.random.default_rng(0))])
    for one, other in zip(*streamed, strict=True):
        assert torch.equal(one, other)


def test_noisy_views_that_a_store_does_not_have_are_named(tmp_path: Path) -> None:
    store, _ = make_store(tmp_path / "s.zarr")
    names = {"recipe": {"views": [{"name": name} for name in ("clean", "noise", "music", "reverb")]}}
    write_store(tmp_path / "n.zarr", store.utterances, store.read(), store.status, ENCODER | names)
    for path, wanted, says in (
        ("s.zarr", 4, r"has 3 noisy views, but train.noisy_views is 4"),
        ("s.zarr", ["noise"], r"does not name its views. Set train.noisy_views to a number"),
        ("n.zarr", ["noise", "hum"], r"has no noisy view 'hum'.* Choose from noise, music, reverb"),
        ("n.zarr", ["clean"], r"has no noisy view 'clean'"),
    ):
        with pytest.raises(TrainingError, match=says):
            train(EmbeddingStore.open(tmp_path / path), QUICK.model_copy(update={"noisy_views": wanted}), 0, 50)


def test_the_learning_rate_rises_and_falls_by_its_formula() -> None:
    settings = Train(max_epochs=10, warmup=2, schedule="cosine")
    assert rate_factor(0, settings) == pytest.approx(0, abs=1e-3)
    assert rate_factor(1, settings) == pytest.approx(0.5, abs=1e-3)
    for epoch in (2, 4, 6, 10, 11):
        expected = (1 + np.cos(np.pi * min((epoch - 2) / 8, 1))) / 2
        assert rate_factor(epoch, settings) == pytest.approx(expected, abs=1e-12)
    assert {rate_factor(epoch, Train(schedule="constant", warmup=0)) for epoch in (0, 1, 30, 60)} == {1.0}


def test_the_authors_scale_trains_on_vectors_as_they_are_and_validates_on_scaled_ones(tmp_path: Path) -> None:
    store, _ = make_store(tmp_path / "s.zarr")
    settings = QUICK.model_copy(update={"scale": "sampling", "network": NetworkSettings(precondition="none")})
    held = np.arange(80) >= 72
    feed = open_batches(store, held, SeedModel(DIM, settings), np.random.default_rng(0))
    seen = np.concatenate([batch.numpy() for batch in feed.epoch(np.random.default_rng(0))])
    raw = store.read()[:72].reshape(-1, 4, DIM)
    np.testing.assert_allclose(np.sort(seen.ravel()), np.sort(raw.ravel()), rtol=1e-6)
    np.testing.assert_allclose(feed.validation.norm(dim=-1), DIM**0.5, rtol=1e-5)


def test_lengths_that_enhancement_will_not_have_are_warned_of(tmp_path: Path) -> None:
    store, speakers = make_store(tmp_path / "s.zarr")  # of lengths around sqrt(D)
    values = store.read()
    ids, status = list(store.utterances), np.full(len(values), OK, np.uint8)
    plain = QUICK.model_copy(update={"network": NetworkSettings(precondition="none"), "max_epochs": 1})
    sampling = plain.model_copy(update={"scale": "sampling"})
    for settings, factor, warned in ((sampling, 1, 0), (sampling, 9, 1), (sampling, 0.2, 1), (plain, 9, 0)):
        path = tmp_path / f"{factor}.zarr"
        write_store(path, ids, factor * values, status, ENCODER)
        said: list[str] = []
        train(EmbeddingStore.open(path), settings, 0, 50, speakers, warn=said.append)
        assert len(said) == warned, (settings.scale, factor)
        if said:
            assert re.match(r"train.scale: sampling trains on vectors of length \S+ \(the median\), .* to 4, ", said[0])


def test_models_of_epochs_are_kept_beside_the_best_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store, _ = make_store(tmp_path / "s.zarr")
    text = "train: {batch_size: 32, ema: 0.0, threads: 1, patience: null, folds: 0, "
    given = ["train", "--store", str(tmp_path / "s.zarr"), "--out", str(tmp_path / "m.safetensors")]
    sampling = Sampling(strength=None)
    for epochs, every, kept in ((5, 2, [2, 4]), (3, 1, [1, 2, 3]), (3, 0, [1, 2, 3])):
        (tmp_path / "p.yaml").write_text(text + f"max_epochs: {epochs}, keep_every: {every}}}\n")
        main([*given, "--params", str(tmp_path / "p.yaml")])
        capsys.readouterr()
        found = sorted((tmp_path / "m.epochs").iterdir())
        assert [path.name for path in found] == [f"epoch{epoch:04}.safetensors" for epoch in kept]
    last = load_model(found[-1])
    assert last.metadata["training"]["epoch"] == 3
    assert float(last.model.strength) == 1
    best = load_model(tmp_path / "m.safetensors")
    same = load_model(found[best.metadata["training"]["best_epoch"] - 1])
    vectors = store.read()[:, 0, 1]
    ours, theirs = (enhance_vectors(each.model, vectors, replace(sampling, strength=1.0)) for each in (best, same))
    np.testing.assert_array_equal(ours, theirs)
    assert np.array_equal(enhance_vectors(same.model, vectors, sampling), theirs)


def test_noise_depends_only_on_seed_and_index_of_a_vector(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_model(model_path).model
    x = np.random.default_rng(0).standard_normal((50, DIM)).astype(np.float32)
    for sampling in (Sampling(50, noise=1), Sampling(50, 10, noise=1), Sampling(50, 10, 1.0, noise=2)):
        monkeypatch.setattr("pipeline.model.apply.BATCH", 4096)
        whole = enhance_vectors(model, x, sampling, seed=1)
        monkeypatch.setattr("pipeline.model.apply.BATCH", 7)
        np.testing.assert_allclose(enhance_vectors(model, x, sampling, seed=1), whole, rtol=1e-4, atol=1e-5)
        assert np.abs(enhance_vectors(model, x, sampling, seed=2) - whole).max() > 1e-3


def test_hold_out_takes_whole_speakers_where_they_are_known() -> None:
    ids = [f"s{n % 7}/{n}" for n in range(35)]
    speakers = {name: name.split("/")[0] for name in ids}
    held, what = hold_out(ids, speakers, 0.3, np.random.default_rng(0))
    assert what == "2 of 7 speakers"
    inside = {speakers[name] for name, out in zip(ids, held, strict=True) if out}
    outside = {speakers[name] for name, out in zip(ids, held, strict=True) if not out}
    assert len(inside) == 2
    assert not inside & outside
    held, what = hold_out(ids, {}, 0.2, np.random.default_rng(0))
    assert what == "7 of 35 utterances"
    assert held.sum() == 7


def test_a_store_without_noisy_views_cannot_be_trained_on(tmp_path: Path) -> None:
    write_store(tmp_path / "s.zarr", ["a", "b"], np.ones((2, 1, 1, DIM), np.float32), np.full(2, OK, np.uint8), ENCODER)
    with pytest.raises(TrainingError, match="clean and a noisy view"):
        train(EmbeddingStore.open(tmp_path / "s.zarr"), QUICK, 0, 50)


def test_a_store_whose_noisy_views_are_the_clean_one_cannot_be_trained_on(tmp_path: Path) -> None:
    values = np.repeat(np.random.default_rng(0).standard_normal((40, 2, 1, DIM)).astype(np.float32), 3, axis=2)
    write_store(tmp_path / "s.zarr", [f"u{n}" for n in range(40)], values, np.full(40, OK, np.uint8), ENCODER)
    for settings in (QUICK, Train(network=NetworkSettings(precondition="none"))):
        with pytest.raises(TrainingError, match="first 40 utterances are equal to the clean ones"):
            train(EmbeddingStore.open(tmp_path / "s.zarr"), settings, 0, 50)


def test_a_manifest_that_lacks_an_utterance_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without its speaker, none could be held out as a whole."""
    store, speakers = make_store(tmp_path / "s.zarr")
    rows = [Utterance(name, f"{name}.wav", speakers[name]) for name in store.utterances]
    write_manifest(tmp_path / "m.csv", rows[:-1])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as left:
        main(["train", "--store", "s.zarr", "--manifest", "m.csv", "--out", "m.safetensors"])
    assert left.value.code == 1
    said = capsys.readouterr().err
    assert (said.count("\n"), f"m.csv: has no utterance {rows[-1].utterance!r}" in said) == (1, True), said
    assert not list(tmp_path.glob("m.s*"))


@pytest.mark.parametrize(("given", "used", "warned"), [(None, 300, False), (300, 300, False), (50, 50, True)])
def test_stores_and_exports_are_of_the_models_timestep(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    given: int | None,
    used: int,
    warned: bool,
) -> None:
    store, speakers = make_store(tmp_path / "s.zarr")
    made = train(store, QUICK, 0, 300, speakers)
    save_model(tmp_path / "m.safetensors", made.model, store.encoder(), made.summary())
    monkeypatch.chdir(tmp_path)
    if given is not None:
        (tmp_path / "params.yaml").write_text(f"enhance: {{timestep: {given}}}\ntrain: {{max_timestep: null}}\n")
    main(["enhance", "--store", "s.zarr", "--model", "m.safetensors", "--out", "e.zarr", "--strength", "1"])
    main(["export-model", "m.safetensors", "--out", "m.pt", "--strength", "1"])
    said = capsys.readouterr()
    assert f"timestep {used}" in said.out
    assert said.err.count("was trained to enhance from timestep 300") == 2 * warned
    assert EmbeddingStore.open(tmp_path / "e.zarr").attributes["timestep"] == used
    raw = torch.from_numpy(store.read()[store.ok][0, 0])
    exported = torch.jit.load(tmp_path / "m.pt")(raw)
    torch.testing.assert_close(exported, made.model(raw, Sampling(used, strength=1.0)), atol=1e-5, rtol=1e-5)


def test_a_network_that_learns_nothing_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_store(tmp_path / "s.zarr")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.yaml").write_text("train: {learning_rate: 0.3, warmup: 0, max_epochs: 1, threads: 1}")
    main(["train", "--store", "s.zarr", "--out", "m.safetensors", "--params", "p.yaml"])
    said = capsys.readouterr()
    assert "epoch 0 of 1" in said.out
    assert "no epoch was better than the network untrained; nothing was learnt" in said.err


def test_vectors_whose_squares_overflow_are_not_trained_on(tmp_path: Path) -> None:
    store, speakers = make_store(tmp_path / "s.zarr")
    for scale, memory in ((1e30, 8.0), (1e9, 8.0), (1e30, 6e-4)):
        values = store.read() * np.float32(scale)
        write_store(tmp_path / "big.zarr", store.utterances, values, store.status, ENCODER)
        with pytest.raises(TrainingError, match=r"big\.zarr: holds vectors with numbers up to \d"):
            train(
                EmbeddingStore.open(tmp_path / "big.zarr"), QUICK.model_copy(update={"memory": memory}), 0, 50, speakers
            )


@pytest.fixture
def model_path(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    model = SeedModel(DIM, QUICK)
    torch.nn.init.normal_(model.network.out[2].weight)
    save_model(tmp_path / "m.safetensors", model.eval(), ENCODER, {"best_epoch": 1})
    return tmp_path / "m.safetensors"


def test_enhancing_maps_every_vector_by_the_model_and_keeps_failed_rows(tmp_path: Path, model_path: Path) -> None:
    store, _ = make_store(tmp_path / "s.zarr", failed=3)
    count = enhance_store(store, model_path, tmp_path / "e.zarr")
    enhanced = EmbeddingStore.open(tmp_path / "e.zarr")
    assert count.vectors == 79 * 2 * 4
    assert enhanced.status.tolist() == store.status.tolist()
    assert np.isnan(enhanced.read()[3]).all()
    model = load_model(model_path).model
    expected = model(torch.from_numpy(store.read()[7, 1]), Sampling()).numpy()
    np.testing.assert_allclose(enhanced.read()[7, 1], expected, atol=1e-5)
    assert enhanced.attributes["timestep"] == 50
    enhance_store(store, model_path, tmp_path / "again" / "e.zarr")
    assert tree_bytes(tmp_path / "e.zarr") == tree_bytes(tmp_path / "again" / "e.zarr")


def test_length_of_the_input_does_not_matter(model_path: Path) -> None:
    model = load_model(model_path).model
    x = torch.randn(3, DIM)
    torch.testing.assert_close(model(x, Sampling()), model(7 * x, Sampling()), rtol=1e-4, atol=1e-5)


def test_a_model_refuses_embeddings_of_another_encoder(tmp_path: Path, model_path: Path) -> None:
    values, status = np.ones((2, 1, 1, DIM), np.float32), np.full(2, OK, np.uint8)
    write_store(tmp_path / "s.zarr", ["a", "b"], values, status, ENCODER | {"weights_sha256": "cd"})
    with pytest.raises(StoreError, match=r"weights_sha256 is 'cd', but .* trained on 'ab'"):
        enhance_store(EmbeddingStore.open(tmp_path / "s.zarr"), model_path, tmp_path / "e.zarr")
    assert not (tmp_path / "e.zarr").exists()


def test_enhanced_embeddings_are_not_enhanced_or_trained_on(tmp_path: Path, model_path: Path) -> None:
    store, _ = make_store(tmp_path / "s.zarr")
    enhance_store(store, model_path, tmp_path / "e.zarr")
    enhanced = EmbeddingStore.open(tmp_path / "e.zarr")
    with pytest.raises(StoreError, match="enhanced embeddings already"):
        enhance_store(enhanced, model_path, tmp_path / "ee.zarr")
    with pytest.raises(StoreError, match="enhanced embeddings already"):
        train(enhanced, QUICK, 0, 50)
    with pytest.raises(OutputError, match="is the store to enhance"):
        enhance_store(store, model_path, tmp_path / "s.zarr")
    with pytest.raises(ConfigError, match="timestep 1000"):
        enhance_store(store, model_path, tmp_path / "ee.zarr", Sampling(1000))


def test_a_model_with_nan_or_nonsense_is_refused(tmp_path: Path, model_path: Path) -> None:
    file = read_tensor_file(model_path)
    path = tmp_path / "bad.safetensors"
    write_tensor_file(path, file.content, file.tensors | {"mean": torch.full((DIM,), float("nan"))})
    with pytest.raises(WeightsError, match="NaN or infinite weights"):
        load_model(path)
    write_tensor_file(path, file.content, file.tensors | {"strength": torch.tensor(7.0)})
    with pytest.raises(WeightsError, match="its strength is 7, not from 0 to 1"):
        load_model(path)
    write_tensor_file(path, file.content, file.tensors | {"strength": torch.tensor(0.5)})
    with pytest.raises(WeightsError, match=r"its strength is 0\.5, but its metadata say 1"):
        load_model(path)
    write_tensor_file(path, file.content, file.tensors | {"mean": torch.zeros(DIM, dtype=torch.int32)})
    with pytest.raises(WeightsError, match="mean holds int32 in place of floats"):
        load_model(path)
    for change in ({"dim": 10**6}, {"dim": -1}, {"dim": "abc"}, {"dim": None}):
        write_tensor_file(path, {**file.content, "encoder": file.content["encoder"] | change}, file.tensors)
        with pytest.raises(WeightsError, match=r"metadata and its tensors disagree|not a SEED model; .* encoder.dim"):
            load_model(path)
    for key, value in (("blocks", 10**9), ("blocks", -1), ("width", 64)):
        content = copy.deepcopy(file.content)
        content["settings"]["network"][key] = value
        write_tensor_file(path, content, file.tensors)
        with pytest.raises(WeightsError, match=r"disagree|not a SEED model"):
            load_model(path)
    for text in ("[" * 100_000, "[]", "{}", "no json", '{"format": "seed-2", "settings": {}, "encoder": 3}'):
        save_file(file.tensors, path, {"seed": text})
        with pytest.raises(WeightsError, match="not a SEED model"):
            load_model(path)


@pytest.mark.parametrize(
    ("content", "says"),
    [(None, "no such model"), (b"", "not a readable safetensors"), (b"\x80\x04pickle", "not a readable safetensors")],
)
def test_a_file_that_is_not_a_model_is_one_clear_line(tmp_path: Path, content: bytes | None, says: str) -> None:
    path = tmp_path / "m.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(WeightsError, match=says):
        load_model(path)


def test_a_truncated_model_or_a_strangers_safetensors_is_refused(tmp_path: Path, model_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match="not a SEED model"):
        load_model(tmp_path / "other.safetensors")
    model_path.write_bytes(model_path.read_bytes()[:-100])
    with pytest.raises(WeightsError, match="not a readable safetensors"):
        load_model(model_path)


def test_a_strength_of_0_is_said_aloud(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store, speakers = make_store(tmp_path / "s.zarr")
    rows = [Utterance(name, f"{name}.wav", speaker) for name, speaker in speakers.items()]
    write_manifest(tmp_path / "m.csv", rows)
    (tmp_path / "p.yaml").write_text("train: {max_epochs: 0, folds: 0, network: {precondition: none}}\n")
    command = ["train", "--store", str(store.path), "--manifest", str(tmp_path / "m.csv")]
    main([*command, "--params", str(tmp_path / "p.yaml"), "--out", str(tmp_path / "m.safetensors")])
    assert "THE STRENGTH IS 0" in capsys.readouterr().err
    main(
        [
            "enhance",
            "--store",
            str(store.path),
            "--model",
            str(tmp_path / "m.safetensors"),
            "--out",
            str(tmp_path / "e.zarr"),
        ]
    )
    assert "NOT ENHANCED: the strength is 0" in capsys.readouterr().err
    np.testing.assert_array_equal(EmbeddingStore.open(tmp_path / "e.zarr").read(), store.read())
