"""The commands, on embeddings from elsewhere: import, train, enhance, score, export."""

from pathlib import Path

import kaldiio
import numpy as np
import pytest

from tests.stages.test_cli import run

DIM, SPEAKERS, EACH = 16, 12, 6
PARAMS = "train: {max_epochs: 2, batch_size: 16}\nscore: {bootstrap: 0}\n"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with clean vectors (.npy) and noisy ones (.ark) of one order, and evaluation data (.npz)."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    centres = np.repeat(rng.standard_normal((SPEAKERS, DIM)), EACH, axis=0)
    clean, noisy, test = (
        (centres + scale * rng.standard_normal(centres.shape)).astype(np.float32) for scale in (0.2, 0.8, 0.5)
    )
    ids = [f"s{row // EACH}/{row % EACH}" for row in range(len(centres))]
    np.save("clean.npy", clean)
    Path("clean.ids").write_text("".join(f"{name}\n" for name in ids))
    kaldiio.save_ark("noisy.ark", dict(zip(ids, noisy, strict=True)))
    np.savez("test.npz", ids=np.array(ids), embeddings=test)
    Path("p.yaml").write_text(PARAMS)
    pairs = [(row, other) for row in range(0, len(ids), 5) for other in range(0, len(ids), 3) if row != other]
    Path("trials.txt").write_text(
        "".join(f"{int(row // EACH == other // EACH)} {ids[row]} {ids[other]}\n" for row, other in pairs)
    )
    return tmp_path


def test_imported_stores_are_trained_on_enhanced_scored_and_exported(
    capsys: pytest.CaptureFixture[str], place: Path
) -> None:
    code, out, err = run(
        capsys, "import", "--clean", "clean.npy", "--noisy", "noise=noisy.ark", "--encoder", "mine", "--out", "a.zarr"
    )
    assert (code, err) == (0, "")
    assert out == "a.zarr: 72 utterances, 1 draws, 2 views of 16 numbers; 0 failed\n"
    code, _, err = run(capsys, "import", "--clean", "test.npz", "--encoder", "mine", "--out", "t.zarr")
    assert code == 0, err
    code, _, err = run(capsys, "train", "--store", "a.zarr", "--out", "m.safetensors", "--params", "p.yaml")
    assert code == 0, err
    code, _, err = run(capsys, "enhance", "--store", "t.zarr", "--model", "m.safetensors", "--out", "e.zarr")
    assert code == 0, err
    for store in ("t.zarr", "e.zarr"):
        code, out, err = run(
            capsys,
            *("score", "--enrol", store, "--test", store, "--trials", "trials.txt", "--out", "r", "--params", "p.yaml"),
        )
        assert code == 0, err
        assert out.startswith("EER ")
    code, out, err = run(capsys, "store", "check", "a.zarr", "--no-picture", "--params", "p.yaml")
    assert "noise" in out, err
    code, out, err = run(capsys, "export", "e.zarr", "--out", "e.npy")
    assert (code, out) == (0, "e.npy: 72 vectors of 16 numbers\n"), err
    code, _, err = run(capsys, "import", "--clean", "e.npy", "--encoder", "enhanced", "--out", "again.zarr")
    assert code == 0, err
    from pipeline.store.embedding_store import EmbeddingStore

    first, again = (EmbeddingStore.open(Path(name)) for name in ("e.zarr", "again.zarr"))
    assert first.utterances == again.utterances
    np.testing.assert_array_equal(first.read(), again.read())
    # Of another encoder by name, so the model does not take it.
    code, _, err = run(capsys, "enhance", "--store", "again.zarr", "--model", "m.safetensors", "--out", "x.zarr")
    assert code == 1
    assert "was trained on 'imported:mine'" in err


def test_what_is_wrong_is_one_line_and_what_is_left_out_is_counted(
    capsys: pytest.CaptureFixture[str], place: Path
) -> None:
    content = np.load("test.npz")
    values = content["embeddings"].astype(np.float64)
    values[4] = np.nan
    np.savez("bad.npz", ids=content["ids"], embeddings=values)
    command = ["import", "--clean", "bad.npz", "--encoder", "mine", "--out", "b.zarr"]
    code, out, err = run(capsys, *command)
    assert (code, out) == (1, "")
    assert err == (
        "seed: error: 1 vectors of bad.npz hold NaN or infinite numbers, first: s0/4."
        " Mend the files, or leave such rows out with --skip nan.\n"
    )
    assert not Path("b.zarr").exists()
    code, out, err = run(capsys, *command, "--skip", "nan")
    assert code == 0
    assert out.endswith("1 failed\n")
    assert "first: s0/4: marked as failed" in err
    assert "float64 was rounded to float32" in err
    code, out, err = run(capsys, "export", "b.zarr", "--out", "b.csv")
    assert (code, out, err) == (0, "b.csv: 71 vectors of 16 numbers\n", "  1 utterances failed and are left out\n")


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["import", "--clean", "test.npz", "--encoder", "x", "--out", "s", "--skip", "all"], 2, "there are unmatched"),
        (["import", "--clean", "test.npz", "--encoder", "x", "--out", "s", "--noisy", "n"], 2, "must be NAME=FILE"),
        (["import", "--clean", "trials.txt", "--encoder", "x", "--out", "s"], 1, "unknown suffix"),
        (["import", "--clean", "none.npz", "--encoder", "x", "--out", "s"], 1, "none.npz: no such file"),
        (["import", "--clean", "test.npz", "--encoder", "x", "--out", "p.yaml"], 1, "is no embedding store"),
    ],
)
def test_wrong_calls_are_explained(
    capsys: pytest.CaptureFixture[str], place: Path, arguments: list[str], code: int, says: str
) -> None:
    found, _, err = run(capsys, *arguments)
    assert found == code
    assert says in err
    assert "Traceback" not in err
