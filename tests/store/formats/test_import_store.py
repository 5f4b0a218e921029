"""What imports match, refuse and put up with."""

from collections.abc import Callable
from pathlib import Path

import kaldiio
import numpy as np
import pytest
import torch
from click.testing import CliRunner

from pipeline.errors import ExchangeError, OutputError
from pipeline.scoring.condition_stores import check_comparable
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.store.formats import columns
from pipeline.store.formats import reader as sources
from pipeline.store.formats.export_store import export_store
from pipeline.store.formats.import_store import ImportSummary, import_store
from pipeline.store.formats.registry import open_sources
from pipeline.store.schema import FAILED, OK
from pipeline.store.writer import write_store
from stages import import_

DIM, COUNT = 5, 43
IDS = [f"u{n:02d}" for n in range(COUNT)]
VALUES = np.random.default_rng(0).standard_normal((COUNT, DIM)).astype(np.float32)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "BLOCK_BYTES", 4 * DIM * 8)


def npz(path: Path, ids: list[str], values: np.ndarray) -> Path:
    np.savez(path, ids=np.array(ids), embeddings=values)
    return path


def npy(path: Path, ids: list[str], values: np.ndarray) -> Path:
    np.save(path, values)
    path.with_suffix(".ids").write_text("".join(f"{name}\n" for name in ids))
    return path


def run(out: Path, clean: Path, noisy: dict[str, Path] | None = None, **options: object) -> ImportSummary:
    others = {name: open_sources(str(path)) for name, path in (noisy or {}).items()}
    return import_store(open_sources(str(clean)), others, out, "x", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("write", [npz, npy])  # one is copied to be read at random, the other is not
def test_views_are_matched_by_id_whatever_their_order(tmp_path: Path, write: object) -> None:
    order = np.random.default_rng(1).permutation(COUNT)
    clean = npz(tmp_path / "clean.npz", IDS, VALUES)
    noisy = {
        "same": npz(tmp_path / "same.npz", IDS, VALUES + 1),
        "mixed": write(tmp_path / f"m.{write.__name__}", [IDS[row] for row in order], VALUES[order] + 2),  # type: ignore
    }
    done = run(tmp_path / "s.zarr", clean, noisy)
    assert (done.utterances, done.failed) == (COUNT, 0)
    store = EmbeddingStore.open(tmp_path / "s.zarr")
    assert store.utterances == tuple(IDS)
    assert store.shape == (COUNT, 1, 3, DIM)
    np.testing.assert_array_equal(store.read()[:, 0], np.stack([VALUES, VALUES + 1, VALUES + 2], axis=1))
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []
    np.testing.assert_array_equal(exported(store, tmp_path, "mixed"), VALUES + 2)
    np.testing.assert_array_equal(exported(store, tmp_path, "1"), VALUES + 1)


def exported(store: EmbeddingStore, folder: Path, view: str = "0", draw: int | None = None) -> np.ndarray:
    export_store(store, folder / "out.npz", "npz", view, draw)
    return np.asarray(np.load(folder / "out.npz")["embeddings"])


def test_a_small_store_takes_little_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # in blocks of the usual size
    run(tmp_path / "s.zarr", npz(tmp_path / "clean.npz", IDS, VALUES))
    assert sum(path.stat().st_size for path in (tmp_path / "s.zarr").rglob("*") if path.is_file()) < 5_000
    np.testing.assert_array_equal(EmbeddingStore.open(tmp_path / "s.zarr").read()[:, 0, 0], VALUES)


def test_two_imports_write_the_same_bytes(tmp_path: Path) -> None:
    from tests.conftest import tree_bytes

    clean = npz(tmp_path / "c.npz", IDS, VALUES)
    for name in "ab":
        run(tmp_path / f"{name}.zarr", clean)
    assert tree_bytes(tmp_path / "a.zarr") == tree_bytes(tmp_path / "b.zarr")


def test_repeated_ids_are_crops_where_that_is_said(tmp_path: Path) -> None:
    order = np.random.default_rng(2).permutation(3 * 14)
    ids = [f"u{row // 3}" for row in order]
    clean = npz(tmp_path / "c.npz", ids, VALUES[:42])
    noisy = npz(tmp_path / "n.npz", ids[::-1], VALUES[:42][::-1] + 1)
    with pytest.raises(ExchangeError, match=r"28 vectors of .*c.npz repeat an id, first: "):
        run(tmp_path / "s.zarr", clean)
    run(tmp_path / "s.zarr", clean, {"n": noisy}, draws=3)
    store = EmbeddingStore.open(tmp_path / "s.zarr")
    assert store.shape == (14, 3, 2, DIM)
    for name, values in zip(store.utterances, store.read(), strict=True):
        rows = [row for row, other in enumerate(ids) if other == name]
        np.testing.assert_array_equal(values[:, 0], VALUES[rows])
        np.testing.assert_array_equal(values[:, 1], VALUES[rows[::-1]] + 1)
    assert exported(store, tmp_path, "n").shape == (42, DIM)
    np.testing.assert_array_equal(exported(store, tmp_path, "n", 2), store.read()[:, 2, 1])
    with pytest.raises(ExchangeError, match=r"14 ids have fewer than 4 vectors in .*c.npz"):
        run(tmp_path / "s.zarr", clean, draws=4)
    for form, what in (("hyperion", "3 draws. Choose one with --draw"), ("npz", "no draw 3")):
        with pytest.raises(ExchangeError, match=what):
            export_store(store, tmp_path / "o", form, draw=3 if form == "npz" else None)


def test_what_is_wrong_is_counted_and_stops_unless_it_is_put_up_with(tmp_path: Path) -> None:
    values, ids = VALUES.copy(), list(IDS)
    values[3, 1], values[20, 0], ids[9] = np.nan, -np.inf, IDS[8]
    clean = npz(tmp_path / "c.npz", ids, values)  # u09 is gone, u08 is there twice, u03 and u20 are not finite
    noisy = npz(tmp_path / "n.npz", [*IDS[5:], "other"], np.vstack([VALUES[5:], VALUES[:1]]))
    out = tmp_path / "s.zarr"
    with pytest.raises(ExchangeError) as caught:
        run(out, clean, {"n": noisy})
    text = str(caught.value)
    assert "\n" not in text
    assert f"1 vectors of {clean} repeat an id, first: u08;" in text
    assert f"2 vectors of {noisy} have ids that are not in {clean}, first: u09, other;" in text
    assert f"5 ids have no vector in {noisy}, first: u00, u01, u02, …." in text
    assert "--skip duplicates,unmatched" in text
    skipped = frozenset({"duplicates", "unmatched"})
    with pytest.raises(ExchangeError, match=r"1 vectors of .*c.npz hold NaN or infinite numbers, first: u20\..*nan"):
        run(out, clean, {"n": noisy}, skip=skipped)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.npz", "n.npz"]  # nothing half-made is left
    done = run(out, clean, {"n": noisy}, skip=skipped | {"nan"})
    assert [problem.kind for problem in done.problems.problems] == ["duplicates", "unmatched", "unmatched", "nan"]
    store = EmbeddingStore.open(out)
    assert store.utterances == tuple(name for name in IDS[5:] if name != "u09")
    assert [store.utterances[row] for row in np.flatnonzero(store.status == FAILED)] == ["u20"]
    good = np.array([row for row in range(5, COUNT) if row not in (9, 20)])
    np.testing.assert_array_equal(store.read()[store.ok, 0], np.stack([VALUES[good]] * 2, axis=1))
    result = export_store(store, tmp_path / "o.npz", "npz")
    assert (result.vectors, result.failed) == (len(good), 1)


@pytest.mark.parametrize("form", ["ark", "pt"])
def test_mixed_dimensions_are_counted_and_stop_unless_put_up_with(tmp_path: Path, form: str) -> None:
    vectors = dict(zip(IDS, VALUES, strict=True)) | {"u07": VALUES[7, :3], "u30": np.zeros((2, DIM), np.float32)}
    path = tmp_path / f"c.{form}"
    if form == "ark":
        kaldiio.save_ark(str(path), vectors)
    else:
        torch.save({name: torch.from_numpy(vector.copy()) for name, vector in vectors.items()}, path)
    says = f"2 vectors of {path} are not of {DIM} numbers, first: u07 of 3, u30 of 2x{DIM}."
    with pytest.raises(ExchangeError, match=says.replace(".", r"\.")):
        run(tmp_path / "s.zarr", path)
    assert run(tmp_path / "s.zarr", path, skip=frozenset({"dimensions"})).failed == 2


def test_files_of_different_dimensions_are_refused(tmp_path: Path) -> None:
    clean, noisy = npz(tmp_path / "c.npz", IDS, VALUES), npz(tmp_path / "n.npz", IDS, VALUES[:, :3])
    with pytest.raises(ExchangeError, match=r"n has vectors of 3 numbers, but .*c.npz of 5"):
        run(tmp_path / "s.zarr", clean, {"n": noisy})


def test_float64_beyond_float32_is_not_finite_and_rounding_is_told(tmp_path: Path) -> None:
    values = VALUES.astype(np.float64)
    clean = npz(tmp_path / "c.npz", IDS, values)
    assert run(tmp_path / "s.zarr", clean).rounded == [str(clean)]
    values[0, 0] = 1e300
    with pytest.raises(ExchangeError, match=r"1 vectors of .* hold NaN or infinite numbers, first: u00"):
        run(tmp_path / "s.zarr", npz(tmp_path / "c.npz", IDS, values))


def test_stores_of_one_encoder_name_and_weights_can_be_compared(tmp_path: Path) -> None:
    clean = npz(tmp_path / "c.npz", IDS, VALUES)
    stores = []
    for number, (name, weights) in enumerate([("a", None), ("a", None), ("b", None), ("a", "00")]):
        import_store(open_sources(str(clean)), {}, tmp_path / f"{number}.zarr", name, weights_sha256=weights)
        stores.append(EmbeddingStore.open(tmp_path / f"{number}.zarr"))
    check_comparable(stores[0], stores[1])
    for other in stores[2:]:
        with pytest.raises(ValueError, match="cannot be compared"):
            check_comparable(stores[0], other)


def test_an_older_store_is_replaced_and_anything_else_is_not(tmp_path: Path) -> None:
    clean = npz(tmp_path / "c.npz", IDS, VALUES)
    run(tmp_path / "s.zarr", npz(tmp_path / "o.npz", IDS[:2], VALUES[:2]))
    run(tmp_path / "s.zarr", clean)
    assert len(EmbeddingStore.open(tmp_path / "s.zarr").utterances) == COUNT
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter").write_text("")
    with pytest.raises(OutputError):
        run(tmp_path / "mine", clean)


@pytest.mark.parametrize("write", [npz, npy])
def test_ids_given_for_a_file_that_has_some_are_refused(tmp_path: Path, write: Callable[..., Path]) -> None:
    """As they were taken for those of the other files as well, vectors went with the ids of others."""
    given, np_file = tmp_path / "given.txt", tmp_path / "c.npy"
    given.write_text("".join(f"{name}\n" for name in IDS))
    np.save(np_file, VALUES)
    other = write(tmp_path / f"n.{write.__name__}", IDS[::-1], VALUES[::-1])
    with pytest.raises(ExchangeError, match="has ids of its own"):
        open_sources(str(other), None, given)
    (tmp_path / "c.ids").write_text(given.read_text())
    run(tmp_path / "s.zarr", np_file, {"noise": other})
    stored = EmbeddingStore.open(tmp_path / "s.zarr").read()
    np.testing.assert_array_equal(stored[:, 0, 0], stored[:, 0, 1])


def test_ids_given_for_a_form_that_holds_them_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a,0.5,1.5\n")
    (tmp_path / "given.txt").write_text("b\n")
    with pytest.raises(ExchangeError, match="has ids of its own"):
        open_sources(str(tmp_path / "x.csv"), None, tmp_path / "given.txt")


@pytest.mark.parametrize("name", ["0", "1", "07", "clean"])
def test_a_view_is_not_called_by_a_number(tmp_path: Path, name: str) -> None:
    clean, noisy = npz(tmp_path / "c.npz", IDS, VALUES), npz(tmp_path / "n.npz", IDS, VALUES + 1)
    with pytest.raises(ExchangeError, match=f"a noisy view cannot be called '{name}'"):
        run(tmp_path / "s.zarr", clean, {name: noisy})
    given = ["--clean", str(clean), "--noisy", f"{name}={noisy}", "--encoder", "x", "--out", str(tmp_path / "s.zarr")]
    result = CliRunner().invoke(import_.import_, given)
    assert result.exit_code == 2
    assert "none 'clean' or a number" in result.output


def test_view_0_is_the_clean_one_whatever_views_are_called(tmp_path: Path) -> None:
    attributes = {"dim": DIM, "recipe": {"draws": 1, "views": [{"name": name} for name in ("clean", "0", "9")]}}
    values = np.stack([VALUES, VALUES + 1, VALUES + 2], axis=1)[:, None]
    write_store(tmp_path / "s.zarr", IDS, values, np.full(COUNT, OK, np.uint8), attributes)
    store = EmbeddingStore.open(tmp_path / "s.zarr")
    for view, number in (("0", 0), ("clean", 0), ("1", 1), ("9", 2)):
        np.testing.assert_array_equal(exported(store, tmp_path, view), VALUES + number)


def test_a_refused_import_leaves_the_older_store(tmp_path: Path) -> None:
    run(tmp_path / "s.zarr", npz(tmp_path / "o.npz", IDS[:2], VALUES[:2]))
    with pytest.raises(ExchangeError, match="all have failed"):
        run(tmp_path / "s.zarr", npz(tmp_path / "c.npz", IDS, VALUES * np.nan), skip=frozenset({"nan"}))
    assert len(EmbeddingStore.open(tmp_path / "s.zarr").utterances) == 2


def test_vectors_of_zeros_are_named_and_can_be_skipped(tmp_path: Path) -> None:
    values, moved = np.repeat(VALUES, 2, axis=0).astype(np.float64), VALUES.repeat(2, axis=0)
    values[6], values[15], values[8, 0], moved[20] = (
        0,
        1e-60,
        0,
        -0.0,
    )  # the second is zero in float32, the third is not
    ids = [name for name in IDS for _ in range(2)]
    clean, noisy = npz(tmp_path / "c.npz", ids, values), npy(tmp_path / "n.npy", ids[::-1], moved[::-1])
    with pytest.raises(ExchangeError) as caught:
        run(tmp_path / "s.zarr", clean, {"n": noisy}, draws=2)
    assert str(caught.value) == (
        f"2 vectors of {clean} are zeros, first: u03, u07; 1 vectors of {noisy} are zeros, first: u10. Mend the files,"
        " or leave such rows out with --skip zeros."
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.npz", "n.ids", "n.npy"]
    with pytest.raises(ExchangeError, match="are zeros"):
        run(tmp_path / "s.zarr", clean, {"n": noisy}, draws=2, skip=frozenset({"nan"}))
    done = run(tmp_path / "s.zarr", clean, {"n": noisy}, draws=2, skip=frozenset({"zeros"}))
    assert (done.failed, [problem.kind for problem in done.problems.problems]) == (3, ["zeros", "zeros"])
    store = EmbeddingStore.open(tmp_path / "s.zarr")
    assert [store.utterances[row] for row in np.flatnonzero(store.status == FAILED)] == ["u03", "u07", "u10"]


@pytest.mark.parametrize("end", ["", "\n", "\n\n", "\r\n \r\n\t\n", "\n" * 40])
@pytest.mark.parametrize("characters", [1, 7, 2**21])
def test_blank_last_lines_are_no_ids(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str, characters: int
) -> None:
    monkeypatch.setattr(columns, "_CHARACTERS", characters)
    path = npy(tmp_path / "c.npy", IDS, VALUES)
    (tmp_path / "c.ids").write_text("\n".join(IDS) + end, newline="")
    run(tmp_path / "s.zarr", path)
    assert EmbeddingStore.open(tmp_path / "s.zarr").utterances == tuple(IDS)


def test_a_blank_line_among_ids_is_an_empty_id(tmp_path: Path) -> None:
    path = npy(tmp_path / "c.npy", IDS, VALUES)
    (tmp_path / "c.ids").write_text("\n".join([*IDS[:2], "", *IDS[3:], "", ""]))
    with pytest.raises(ExchangeError, match=r"c\.npy: the id of vector 3 is empty"):
        run(tmp_path / "s.zarr", path)
    (tmp_path / "c.ids").write_text("\n".join([*IDS, "", ""]) + "more\n\n")
    with pytest.raises(ExchangeError, match=r"c\.ids: 45 ids for the 43 vectors"):
        run(tmp_path / "s.zarr", path)


def test_ids_of_another_spelling_are_hinted_at(tmp_path: Path) -> None:
    clean = npz(tmp_path / "c.npz", IDS, VALUES)
    noisy = npz(tmp_path / "n.npz", [f"wav\\{name.upper()}.wav" for name in IDS], VALUES)
    with pytest.raises(ExchangeError) as caught:
        run(tmp_path / "s.zarr", clean, {"n": noisy})
    begin, extension = r"begin with 'wav\\'", f"{noisy} has the extension '.wav', {clean} ''"
    spelling = "they differ in separators (\\ and /, _ and -) and in case"
    differences = f"{noisy}'s ids {begin}, and {extension}, and {spelling}. Make both ids match"
    assert f"first: wav\\U00.wav, wav\\U01.wav, wav\\U02.wav, … ({clean} holds 'u00': {differences});" in str(
        caught.value
    )
