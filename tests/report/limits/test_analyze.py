"""`seed analyze gap` from end to end, on small stores and a model that was trained on them."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.config.params import Params
from pipeline.data.manifest import Utterance, write_manifest
from pipeline.data.trials.table import make_all_pairs
from pipeline.errors import TrainingError
from pipeline.metrics import compare
from pipeline.model.diffusion.sampler import Sampling
from pipeline.model.enhance_store import enhance_store
from pipeline.model.model_file import save_model
from pipeline.report.limits import stability
from pipeline.report.limits.stability import extend_epochs, find_held_out_rows, measure_eer, read_snr_levels
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.store.writer import write_store
from pipeline.training.train import train
from tests.report.limits.test_gaps import store_of
from tests.stages.test_cli import run

PARAMS = """
encoders: [toy]
conditions: [clean, noise0, reverb]
sets: [train, clean, noise0, reverb]
train: {max_epochs: 2, batch_size: 16, validation: 0.3, threads: 1}
score: {bootstrap: 20}
"""
COMMAND = ["analyze", "gap", "--params", "p.yaml", "--bins", "2", "--seed", "0", "--seed", "1", "--out", "out"]
DIM = 8


def speak(rng: np.random.Generator, speakers: int, draws: int, noises: list[float]) -> np.ndarray:
    """Embeddings [2 utterances of each, draws, views, D], the first view clean, noise in the others."""
    who = np.repeat(rng.standard_normal((speakers, 1, 1, DIM)), 2, axis=0)
    clean = who + 0.2 * rng.standard_normal((2 * speakers, draws, 1, DIM))
    aside = np.array([3.0] * 2 + [0.3] * (DIM - 2)) * rng.standard_normal((2 * speakers, draws, len(noises), DIM))
    return np.concatenate([clean, clean + np.array(noises)[:, None] * aside], axis=2)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.yaml").write_text(PARAMS)
    rng = np.random.default_rng(0)

    def steps(values: np.ndarray, views: list[list[dict[str, object]]]) -> np.ndarray:
        done = np.empty(values.shape[:3], dtype=object)
        for where in np.ndindex(done.shape):
            done[where] = views[where[2]]
        return done

    noise = [{"kind": "noise", "snr": 3.0}]
    values = speak(rng, 12, 2, [0.5, 0.4])
    train_store = store_of(
        Path("data/embeddings/toy/train.zarr"), values, ["clean", "noise", "reverb"], steps(values, [[], noise, []])
    )
    values = speak(rng, 12, 1, [1.0, 0.2])
    loud, soft = ([{"kind": "noise", "snr": snr}] for snr in (-10.0, 20.0))
    store_of(Path("data/gap/toy/snr.zarr"), values, ["clean", "loud", "soft"], steps(values, [[], loud, soft]))
    for folder, speakers in (("embeddings/toy", 8), ("gap/toy/train", 12), ("gap/toy/test", 8)):
        values = speak(np.random.default_rng(speakers), speakers, 1, [0.6, 0.3])
        for view, name in enumerate(("clean", "noise0", "reverb")):
            if (folder, name) != ("gap/toy/test", "clean"):
                store_of(Path(f"data/{folder}/{name}.zarr"), values[:, :, [view]], [name])
    for name, speakers in (("train", 12), ("clean", 8)):
        ids = [f"s{row // 2}/{row}" for row in range(2 * speakers)]
        rows = [Utterance(each, f"{each}.wav", each.split("/")[0]) for each in ids]
        write_manifest(Path(f"data/manifests/{name}.csv"), rows)
    params = Params.model_validate({"train": {"max_epochs": 2, "batch_size": 16, "validation": 0.3, "threads": 1}})
    speakers = {name: name.split("/")[0] for name in train_store.utterances}
    trained = train(train_store, params.train, 0, 50, speakers)
    model = Path("models/toy/seed.safetensors")
    save_model(model, trained.model, train_store.encoder(), {})
    for name in ("clean", "noise0", "reverb"):
        store = EmbeddingStore.open(Path(f"data/embeddings/toy/{name}.zarr"))
        enhance_store(store, model, Path(f"data/enhanced/toy/{name}.zarr"), Sampling(50))
    return tmp_path


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_whole_command(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    code, out, err = run(capsys, *COMMAND)
    assert code == 0, err
    page = (place / "out/limits.md").read_text()
    assert out.startswith("## In short")
    for heading in ("How far", "Gain by gap", "Training as the gap grows", "From training", "At the same gap"):
        assert heading in page

    gaps = read(place / "out/gaps.csv")
    seen = {(row["set"], row["view"], row["snr_low"]) for row in gaps if row["space"] == "raw"}
    assert ("training crops", "noise", "3") in seen
    assert ("one SNR a view", "loud", "-10") in seen
    assert ("test speakers, other sounds", "noise0", "0") in seen
    assert ("test speakers, other sounds", "reverb", "") in seen
    median = {(row["view"], row["space"]): float(row["p50"]) for row in gaps}
    assert median["loud", "raw"] > median["soft", "raw"]
    assert median["loud", "prepared"] != median["loud", "raw"]

    stores = {
        (kind, name): EmbeddingStore.open(place / f"data/{kind}/toy/{name}.zarr").read()[:, 0, 0]
        for kind in ("embeddings", "enhanced")
        for name in ("clean", "noise0", "reverb")
    }
    units = {key: values / np.linalg.norm(values, axis=1, keepdims=True) for key, values in stores.items()}
    trials = make_all_pairs([f"s{row // 2}" for row in range(16)], 10_000, 0)
    assert trials.target is not None
    eers = {}
    for kind in ("embeddings", "enhanced"):
        scores = np.einsum("md,md->m", units[kind, "clean"][trials.enrol], units[kind, "noise0"][trials.test])
        eers[kind] = compare({"": scores}, trials.target, None)[0][""]["eer"]
    transfer = {(row["group"], row["condition"]): row for row in read(place / "out/transfer.csv")}
    row = transfer["test speakers, other sounds", "noise0"]
    assert float(row["eer_raw"]) == pytest.approx(eers["embeddings"], abs=1e-4)
    assert float(row["eer_seed"]) == pytest.approx(eers["enhanced"], abs=1e-4)
    moved = np.linalg.norm(units["embeddings", "noise0"] - units["embeddings", "clean"], axis=1)
    assert float(row["gap_median"]) == pytest.approx(np.median(moved), abs=1e-5)
    assert [
        int(transfer[name, "mean"]["speakers"]) for name in ("training speakers", "held-out training speakers")
    ] == [
        8,
        4,
    ]
    # The same vectors go by as sounds of training, so that all is kept.
    kept = {(row["from"], row["to"], row["condition"]): row for row in read(place / "out/kept.csv")}
    same = kept["test speakers, training sounds", "test speakers, other sounds", "noise0"]
    assert float(same["share"]) == pytest.approx(1)

    bins = [row for row in read(place / "out/gain.csv") if row["space"] == "raw"]
    assert sum(int(row["targets"]) + int(row["nontargets"]) for row in bins) == 3 * len(trials)
    assert {row["what"] for row in read(place / "out/turns.csv")} == {"helps from", "helps up to"}
    trainings = read(place / "out/stability.csv")
    assert [(row["snr"], row["seed"]) for row in trainings] == [("-10", "0"), ("-10", "1"), ("20", "0"), ("20", "1")]
    for row in trainings:
        assert 0 < float(row["gradient_mean"]) <= float(row["gradient_max"])
        assert float(row["best_loss"]) <= float(row["untrained_loss"])
        assert row["epochs"] == "4"  # two draws against one: twice as many
    for name in ("gap", "gain", "stability", "transfer"):
        picture = (place / f"out/pictures/limits-{name}.svg").read_text()
        assert picture.startswith("<svg")
        assert len(picture) < 100_000
        assert f"pictures/limits-{name}.svg" in page

    kept_runs = {path: path.stat().st_mtime_ns for path in (place / "out/runs").iterdir()}
    assert len(kept_runs) == 4
    assert run(capsys, *COMMAND)[0] == 0
    assert {path: path.stat().st_mtime_ns for path in (place / "out/runs").iterdir()} == kept_runs
    assert (place / "out/limits.md").read_text() == page


def test_trainings_on_other_data_are_not_taken_for_these(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stability, "train_on_view", lambda *arguments: {})
    monkeypatch.setattr(stability, "read_snr_levels", lambda store, seed: {"loud": -10.0, "soft": 20.0})
    path = Path("data/gap/toy/snr.zarr")
    store = EmbeddingStore.open(path)
    speakers: dict[str, str | None] = {name: name.split("/")[0] for name in store.utterances}
    vectors = {"clean": np.random.default_rng(0).standard_normal((4, 1, DIM)).astype(np.float32)}
    test = stability.TestData(vectors, make_all_pairs(["a", "a", "b", "b"], 100, 0))

    def kept(*given: object) -> set[Path]:
        stability.train_on_views(*given, Params(), [0], 1, place / "runs")
        return set((place / "runs").iterdir())

    before = kept(store, speakers, test)
    assert kept(store, speakers, test) == before
    values = store.read()
    values[0, 0, 0, 0] += 1
    attributes = {name: value for name, value in store.attributes.items() if name != "schema"}
    write_store(place / "other.zarr", store.utterances, values, store.status, attributes)
    for what, given in {
        "training vectors": (EmbeddingStore.open(place / "other.zarr"), speakers, test),
        "speakers": (store, speakers | {store.utterances[0]: "s5"}, test),
        "test vectors": (store, speakers, replace(test, vectors={"clean": -vectors["clean"]})),
        "trials": (store, speakers, replace(test, trials=make_all_pairs(["a", "b", "a", "b"], 100, 0))),
    }.items():
        more = kept(*given)
        assert len(more - before) == 2, what
        before = more


def test_without_more_stores_there_is_less(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    code, _, err = run(capsys, *COMMAND, "--more", "nowhere")
    assert code == 0, err
    assert not (place / "out/stability.csv").exists()
    groups = {row["group"] for row in read(place / "out/transfer.csv")}
    assert groups == {"held-out training speakers, crops", "test speakers, other sounds"}


def test_what_does_not_fit_is_one_line(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    values = np.random.default_rng(0).standard_normal((24, 1, 2, DIM))
    no_snr = place / "data/gap/toy/snr.zarr"
    steps = np.empty((24, 1, 2), dtype=object)
    for where in np.ndindex(steps.shape):
        steps[where] = [{"kind": "reverb"}] if where[2] else []
    store_of(no_snr, values, ["clean", "reverb"], steps)
    (place / "flat.yaml").write_text(PARAMS.replace("bootstrap: 20", "bootstrap: 0"))
    for arguments, says in (
        (COMMAND, "view reverb is not noise of one SNR"),
        ([*COMMAND, "--params", "flat.yaml"], "score.bootstrap must be 1 or more"),
        ([*COMMAND, "--encoder", "other"], "no such model"),
    ):
        code, out, err = run(capsys, *arguments)
        assert (code, out, err.count("\n")) == (1, "", 1)
        assert says in err
    assert not (place / "out/limits.md").exists()


def test_trainings_know_their_levels_and_who_they_hold_out(place: Path) -> None:
    store = EmbeddingStore.open(place / "data/gap/toy/snr.zarr")
    assert read_snr_levels(store, 0) == {"loud": -10.0, "soft": 20.0}
    with pytest.raises(TrainingError, match="view reverb is not noise of one SNR"):
        read_snr_levels(EmbeddingStore.open(place / "data/embeddings/toy/train.zarr"), 0)
    speakers = {name: name.split("/")[0] for name in store.utterances}
    rows = find_held_out_rows(store, speakers, 0.3, 0)
    held = {speakers[store.utterances[row]] for row in rows}
    assert len(held) == 4
    assert len(rows) == 8
    train_settings = Params().train
    more = extend_epochs(Params(), 3).train
    assert more.max_epochs == more.patience == 3 * train_settings.max_epochs


def test_an_error_rate_is_of_mean_unit_crops() -> None:
    vectors = np.repeat(np.eye(4)[:, None], 2, axis=0).repeat(3, axis=1)
    trials = make_all_pairs(["a", "a", "b", "b", "c", "c", "d", "d"], 100, 0)
    assert measure_eer(vectors, 7 * vectors, trials) == 0
    assert measure_eer(vectors, -vectors, trials) == 100
