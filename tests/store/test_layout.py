from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.codecs import Crc32cCodec

from pipeline.store.layout import put_numbers, put_text
from tests.conftest import tree_bytes

ROWS, CHUNK = 10, 4
PARTS = [(start, min(start + CHUNK, ROWS)) for start in range(0, ROWS, CHUNK)]


def arrays(folder: Path, name: str, shape: tuple[int, ...], dtype: object, fill: object) -> list[zarr.Array]:
    """Return one array for us and one for Zarr, alike."""
    return [
        zarr.create_array(
            folder / whose / name,
            shape=shape,
            chunks=(CHUNK, *shape[1:]),
            dtype=dtype,
            fill_value=fill,
            compressors=Crc32cCodec(),
            config={"write_empty_chunks": True},
        )
        for whose in ("ours", "theirs")
    ]


@pytest.mark.parametrize(
    ("dtype", "fill", "shape"),
    [("float32", float("nan"), (ROWS, 2, 3, 5)), ("uint8", 7, (ROWS,)), (">f4", 0, (ROWS, 6))],
)
def test_numbers_are_the_bytes_that_zarr_writes(
    tmp_path: Path, dtype: str, fill: float, shape: tuple[int, ...]
) -> None:
    values = np.random.default_rng(0).integers(0, 255, shape).astype(dtype)
    ours, theirs = arrays(tmp_path, "n", shape, dtype, fill)
    theirs[:] = values
    for start, stop in PARTS:
        put_numbers(ours, start, values[start:stop])
    np.testing.assert_array_equal(ours[:], values)
    if dtype != ">f4":  # which Zarr writes as such
        assert tree_bytes(tmp_path / "ours") == tree_bytes(tmp_path / "theirs")


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=9), min_size=ROWS, max_size=ROWS))
def test_texts_are_the_bytes_that_zarr_writes(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    folder = tmp_path_factory.mktemp("texts")
    ours, theirs = arrays(folder, "t", (ROWS,), str, "")
    theirs[:] = np.array(texts, dtype=object)
    for start, stop in PARTS:
        put_text(ours, start, texts[start:stop])
    assert ours[:].tolist() == texts
    assert tree_bytes(folder / "ours") == tree_bytes(folder / "theirs")


def test_damage_is_noticed(tmp_path: Path) -> None:
    ours, _ = arrays(tmp_path, "n", (ROWS, 3), "float32", 0)
    put_numbers(ours, 0, np.ones((CHUNK, 3), np.float32))
    path = tmp_path / "ours" / "n" / "c" / "0" / "0"
    content = bytearray(path.read_bytes())
    content[5] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="checksum"):
        ours[:CHUNK]
