"""The names that `pipeline` itself has, as somebody else's program uses them."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_curve
from sklearn.metrics.pairwise import cosine_similarity

import pipeline
from pipeline import EmbeddingStore, Enhancer, metrics, scoring, train
from pipeline.data.trials.table import Trials
from pipeline.errors import ConfigError, OutputError, StoreError, TrialError, VectorError
from pipeline.scoring.scorer import score_list
from pipeline.store.schema import OK
from pipeline.store.writer import write_store
from pipeline.utils.atomic import sha256_of
from stages.cli import main
from tests.linear_encoder import DIM, encoded, speech

PROJECT = Path(__file__).parent.parent
HEARD = speech(12, 4)
VALUES = encoded(HEARD)
QUICK = {"max_epochs": 2, "batch_size": 64, "device": "cpu", "threads": 1}
ENCODER = {"encoder": "toy", "family": "linear", "weights_sha256": "ab", "front_end": None, "dim": DIM}
FOREIGN = ("click", "dask", "distributed", "fsspec", "h5py", "requests", "rich", "ruamel.yaml", "soundfile", "soxr")
FOREIGN += ("sklearn", "stages", "yaml", "zarr")


def modules_after(code: str) -> set[str]:
    told = [sys.executable, "-c", f"{code}\nimport sys; print('LOADED', *sys.modules)"]
    done = subprocess.run(told, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.rpartition("LOADED ")[2].split())


def test_the_package_alone_imports_next_to_nothing() -> None:
    assert not modules_after("import pipeline; dir(pipeline)") & {"numpy", "torch", "scipy", "pydantic", *FOREIGN}


def test_training_enhancing_and_scoring_arrays_need_nothing_of_the_command_line() -> None:
    loaded = modules_after(
        "import numpy as np\n"
        "from pipeline import EmbeddingStore, Enhancer, metrics, scoring, train\n"
        "rng = np.random.default_rng(0)\n"
        "x = rng.standard_normal((40, 2, 3, 8))\n"
        "speakers = [str(row // 4) for row in range(40)]\n"
        "how = {'max_epochs': 1, 'device': 'cpu'}\n"
        "made = train(x[:, :, 0], x[:, :, 1:], speakers=speakers, settings=how)\n"
        "y = Enhancer(made.model).enhance(x[:, 0, 0])\n"
        "scores = scoring.score(y, y, [(0, 1), (0, 5)])\n"
        "print(metrics.eer(scores, [1, 0]))\n"
    )
    assert {"torch", "pipeline.training.train", "pipeline.store.embedding_store"} <= loaded
    assert not loaded & set(FOREIGN)


def test_every_name_is_there_and_no_other() -> None:
    assert set(pipeline.__all__) <= set(dir(pipeline))
    for name in pipeline.__all__:
        assert getattr(pipeline, name) is not None
    assert callable(pipeline.train)
    assert (pipeline.scoring, pipeline.metrics) == (scoring, metrics)
    with pytest.raises(AttributeError, match="no attribute 'enhancers'"):
        pipeline.enhancers  # noqa: B018
    with pytest.raises(ImportError):
        from pipeline import nothing  # type: ignore[attr-defined]  # noqa: F401


def store_at(path: Path) -> EmbeddingStore:
    ids = list(map(str, range(len(VALUES))))
    write_store(path, ids, VALUES, np.full(len(ids), OK, np.uint8), ENCODER)
    return EmbeddingStore.open(path)


def test_arrays_train_the_model_of_seed_train(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.set_num_threads(1)
    store_at(tmp_path / "train.zarr")
    rows = [f"{row},{row}.wav,{name}" for row, name in enumerate(HEARD.speakers)]
    (tmp_path / "train.csv").write_text("\n".join(["utterance,path,speaker", *rows]) + "\n")
    (tmp_path / "p.yaml").write_text("train: {max_epochs: 2, batch_size: 64, device: cpu, threads: 1}\n")
    told = ["--manifest", str(tmp_path / "train.csv"), "--params", str(tmp_path / "p.yaml")]
    main(["train", "--store", str(tmp_path / "train.zarr"), "--out", str(tmp_path / "cli.safetensors"), *told])

    state = torch.random.get_rng_state()
    out = tmp_path / "ours.safetensors"
    made = train(VALUES[:, :, 0], VALUES[:, :, 1:], speakers=HEARD.speakers, encoder=ENCODER, settings=QUICK, out=out)
    assert torch.equal(torch.random.get_rng_state(), state)  # the caller's own
    assert sha256_of(out) == sha256_of(tmp_path / "cli.safetensors")
    assert made.held_out == "1 of 12 speakers"
    cards = [(tmp_path / f"{name}.md").read_text() for name in ("ours", "cli")]
    assert cards[0] == cards[1].replace("cli.safetensors", "ours.safetensors")

    speakers = dict(zip(map(str, range(len(VALUES))), HEARD.speakers, strict=True))
    from_store = train(store_at(tmp_path / "train.zarr"), speakers=speakers, settings=QUICK)
    for name, value in from_store.model.state_dict().items():
        assert torch.equal(value, made.model.state_dict()[name])


def test_single_crops_train_as_well() -> None:
    made = train(VALUES[:, 0, 0].astype(np.float64), VALUES[:, 0, 1:], settings=QUICK)
    assert np.isfinite(Enhancer(made.model).enhance(VALUES)).all()
    assert made.held_out == "5 of 48 utterances"
    assert made.summary()["speakers"] is None


def test_what_cannot_be_trained_on_is_refused(tmp_path: Path) -> None:
    clean, noisy = VALUES[:, 0, 0], VALUES[:, 0, 1:]
    bad = noisy.copy()
    bad[7, 1, 3], bad[9] = np.nan, 1e30
    for arrays, says in (
        ((clean,), "noisy vectors .* are missing"),
        ((clean.astype(int), noisy), "clean vectors are int64"),
        ((clean, noisy[:-1]), "do not fit each other"),
        ((clean, noisy[..., :-1]), "do not fit each other"),
        ((clean[:0], noisy[:0]), "do not fit each other"),
        ((clean, clean), r"give \[N, D\] and \[N, V, D\]"),
        ((clean, bad), "noisy vectors hold NaN or infinite values in 1 of 48 rows, first: row 7"),
        ((clean, noisy.astype(np.float64) * 1e300), "in 48 of 48 rows"),
    ):
        with pytest.raises(VectorError, match=says):
            train(*arrays, settings=QUICK)  # type: ignore[arg-type]
    with pytest.raises(VectorError, match="3 speakers for 48 rows"):
        train(clean, noisy, speakers=["a", "b", "c"], settings=QUICK)
    with pytest.raises(VectorError, match="vectors have 32 numbers, but the given encoder has 31"):
        train(clean, noisy, encoder={"dim": 31}, settings=QUICK)
    with pytest.raises(ConfigError, match="settings: epochs: unknown key"):
        train(clean, noisy, settings={"epochs": 3})
    with pytest.raises(ConfigError, match="seed -1: must be 0 or more"):
        train(clean, noisy, settings=QUICK, seed=-1)
    with pytest.raises(ConfigError, match="must be named"):
        train(clean, noisy, settings=QUICK, out=tmp_path / "m.pt")
    (tmp_path / "m.md").mkdir()
    with pytest.raises(OutputError, match="is a folder"):
        train(clean, noisy, settings=QUICK, out=tmp_path / "m.safetensors")
    with pytest.raises(VectorError, match="a store has its own noisy views"):
        train(store_at(tmp_path / "s.zarr"), noisy, settings=QUICK)
    with pytest.raises(StoreError, match="no embedding store there"):
        EmbeddingStore.open(str(tmp_path / "none.zarr"))


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_scores_are_cosines(kind: type) -> None:
    enrol, test = VALUES[:20, 0, 0].astype(kind), VALUES[20:, 0, 1].astype(kind)
    trials = np.random.default_rng(0).integers(0, 20, (1500, 2))
    scores = scoring.score(enrol, test, trials)
    expected = cosine_similarity(enrol.astype(float), test.astype(float))[trials[:, 0], trials[:, 1]]
    np.testing.assert_allclose(scores, expected, atol=1e-6)
    assert scores.dtype == np.float32
    assert scoring.score(enrol, test, []).shape == (0,)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_callers_default_type_changes_no_training(dtype: torch.dtype) -> None:
    clean, noisy = VALUES[:, 0, 0], VALUES[:, 0, 1:]
    expected = train(clean, noisy, settings=QUICK).model.state_dict()
    torch.set_default_dtype(dtype)
    try:
        found = train(clean, noisy, settings=QUICK).model.state_dict()
    finally:
        torch.set_default_dtype(torch.float32)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=0)


@pytest.mark.parametrize("length", [np.float32(1e25), np.float32(1e-25), np.float64(1e200), np.float64(1e-200)])
def test_a_cosine_is_that_of_vectors_of_any_length(length: np.floating) -> None:
    enrol, test, trials = VALUES[:8, 0, 0], VALUES[8:16, 0, 1], [(n, n) for n in range(8)]
    with np.errstate(over="raise", divide="raise", invalid="raise"):
        found = scoring.score(enrol * length, test, trials)
    np.testing.assert_allclose(found, scoring.score(enrol, test, trials), atol=1e-6)


def test_scores_of_crops_are_those_of_stores(tmp_path: Path) -> None:
    store = store_at(tmp_path / "s.zarr")
    trials = np.random.default_rng(0).integers(0, len(VALUES), (200, 2))
    _, expected = score_list(store, store, Trials(trials[:, 0], trials[:, 1], None))
    np.testing.assert_array_equal(scoring.score(VALUES[:, :, 0], VALUES[:, :, 0], trials), expected)


def test_trials_and_vectors_that_make_no_sense_are_refused() -> None:
    x = VALUES[:5, 0, 0]
    for trials in ([[0, 1, 1]], [0, 1], [[0.0, 1.0]], [["a", "b"]]):
        with pytest.raises(TrialError, match="give row numbers"):
            scoring.score(x, x, trials)
    for trials in ([(0, 1), (0, 5)], [(0, 1), (-1, 0)]):
        with pytest.raises(TrialError, match="1 of 2 trials name rows that do not exist, first: trial 1"):
            scoring.score(x, x, trials)
    for other in (x[:, :-1], x[0], x.astype(int), VALUES[:5]):
        with pytest.raises(VectorError, match="give floats"):
            scoring.score(x, other, [(0, 0)])
    nothing = x.copy()
    nothing[2] = 0
    assert np.isfinite(scoring.score(x, nothing, [(0, 1)])).all()
    with pytest.raises(TrialError, match="1 of the test rows that trials name are zeros or not finite, first: row 2"):
        scoring.score(x, nothing, [(0, 1), (0, 2)])


def test_the_eer_of_arrays_is_that_of_their_roc() -> None:
    rng = np.random.default_rng(0)
    labels = rng.random(4000) < 0.3
    scores = rng.standard_normal(4000) + labels
    found = metrics.eer(scores, labels)
    assert found == metrics.eer(metrics.roc_of(scores, labels)) == metrics.eer(scores, labels.astype(int))
    assert found == metrics.eer(scores.astype(np.float32).astype(float), list(labels))  # type: ignore[call-overload]
    fpr, tpr, _ = roc_curve(labels, scores)
    assert found == pytest.approx(fpr[np.argmin(np.abs(fpr - (1 - tpr)))], abs=1e-3)
    for wrong in (labels + 1, labels[:, None], None):
        with pytest.raises(TrialError, match="labels must be one-dimensional: 1"):
            metrics.eer(scores, wrong)  # type: ignore[call-overload]
    with pytest.raises(TrialError, match="one class"):
        metrics.eer(scores, np.ones(4000))
