"""Distances between clean and corrupted vectors, against closed forms."""

import json
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics.pairwise import paired_distances
from sklearn.preprocessing import normalize

from pipeline.report.limits.gaps import (
    bin_by_snr,
    format_gaps,
    measure_crop_gaps,
    measure_references,
    measure_utterance_gaps,
    read_corruptions,
)
from pipeline.scoring.distances import OTHER, SAME
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.store.schema import OK
from pipeline.store.writer import StoreWriter, write_store

MAPS = {"raw": lambda values: values, "tripled": lambda values: values * [1, 1, 3.0]}


def store_of(path: Path, values: np.ndarray, views: list[str], steps: np.ndarray | None = None) -> EmbeddingStore:
    """Write embeddings [N, draws, views, D] and what happened to each."""
    ids = [f"s{row // 2}/{row}" for row in range(len(values))]
    made_of = {"encoder": "toy", "dim": values.shape[3], "recipe": {"views": [{"name": name} for name in views]}}
    vectors, status = values.astype(np.float32), np.full(len(ids), OK, np.uint8)
    if steps is None:
        write_store(path, ids, vectors, status, made_of)
    else:
        texts = [json.dumps({"start": 0, "steps": each}) for each in steps.ravel()]
        traces = np.array(texts, dtype=object).reshape(values.shape[:3])
        with closing(StoreWriter(path, ids, vectors.shape[1:], made_of, len(ids), of_audio=True)) as writer:
            writer.write(range(len(ids)), vectors, status, traces, np.ones((len(ids), 16), np.uint8))
            writer.finish()
    return EmbeddingStore.open(path)


def test_crops_are_measured_against_the_clean_view_of_the_same_crop(tmp_path: Path) -> None:
    angles = np.array([[0.2, 0.5], [0.9, 1.3], [2.0, 3.0], [0.1, 0.4]])  # [N, draws]
    clean = np.stack([np.ones_like(angles), np.zeros_like(angles), np.zeros_like(angles)], axis=-1)
    noisy = np.stack([np.cos(angles), np.sin(angles), np.zeros_like(angles)], axis=-1)
    values = np.stack([2 * clean, 5 * noisy], axis=2)
    steps = np.empty((4, 2, 2), dtype=object)
    for place in np.ndindex(4, 2, 2):
        snr = [1.0, 4.9, 5.0, 9.0][place[0]]
        steps[place] = [{"kind": "noise", "snr": snr}] if place[2] else []
    store = store_of(tmp_path / "a.zarr", values, ["clean", "loud"], steps)
    found = measure_crop_gaps(store, store.ok, "crops", {"raw": MAPS["raw"]}, 5.0)
    chords = 2 * np.sin(angles / 2)  # of a circle
    assert [(row.view, row.kind, row.snr, row.vectors) for row in found] == [
        ("loud", "noise", (0.0, 5.0), 4),
        ("loud", "noise", (5.0, 10.0), 4),
    ]
    for row, part in zip(found, (chords[:2], chords[2:]), strict=True):
        assert row.mean == pytest.approx(part.mean(), rel=1e-6)
        assert row.quantiles == pytest.approx(np.percentile(part, [5, 25, 50, 75, 95]), rel=1e-6)


def test_utterances_are_measured_by_their_mean_unit_crop_in_every_space(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rest, moved = (rng.standard_normal((6, 3, 1, 3)) for _ in range(2))
    stores = {"clean": store_of(tmp_path / "c.zarr", rest, ["clean"])}
    stores["noise5"] = store_of(tmp_path / "n.zarr", moved, ["noise5"])
    rows = np.array([0, 2, 3, 5])
    found, lengths = measure_utterance_gaps(stores, rows, "test", MAPS, 2.5)
    for name, scale in (("raw", [1, 1, 1]), ("tripled", [1, 1, 3])):
        sides = []
        for values in (rest, moved):
            crops = (values[rows, :, 0] * scale).reshape(-1, 3)
            sides.append(normalize(normalize(crops).reshape(4, 3, 3).mean(axis=1)))
        expected = paired_distances(*sides)
        np.testing.assert_allclose(lengths["noise5", name], expected, rtol=1e-5)
        (row,) = [each for each in found if each.space == name]
        assert (row.group, row.view, row.kind, row.snr) == ("test", "noise5", "noise", (5.0, 5.0))  # by its name
        assert row.quantiles[2] == pytest.approx(np.median(expected), rel=1e-5)
    line = next(format_gaps("toy", found))
    assert line[:8] == ("toy", "test", "noise5", "noise", "5", "5", "raw", 4)


def test_references_are_between_clean_utterances(tmp_path: Path) -> None:
    values = np.repeat(np.eye(4), 2, axis=0)[:, None, None]
    store = store_of(tmp_path / "a.zarr", values, ["clean"])
    speakers = [name.split("/")[0] for name in store.utterances]
    found = {row.kind: row for row in measure_references(store, store.ok, speakers, "test", {"raw": MAPS["raw"]}, 0)}
    assert found[SAME].quantiles == pytest.approx((0.0,) * 5, abs=1e-6)
    assert found[OTHER].quantiles == pytest.approx((np.sqrt(2),) * 5)


def test_a_chain_has_the_snr_of_its_one_noisy_step(tmp_path: Path) -> None:
    chains = [
        [{"kind": "reverb"}, {"kind": "noise", "snr": 7.5}],
        [{"kind": "noise", "snr": 1.0}, {"kind": "music", "snr": 2.0}],
        [],
    ]
    steps = np.empty((3, 1, 1), dtype=object)
    steps[:, 0, 0] = chains
    store = store_of(tmp_path / "a.zarr", np.ones((3, 1, 1, 2)), ["x"], steps)
    names, kinds, snrs = read_corruptions(store, np.array([0, 1, 2]), "x")
    assert names == ["x"]
    assert kinds[:, 0, 0].tolist() == ["reverb+noise", "noise+music", "clean"]
    np.testing.assert_array_equal(snrs[:, 0, 0], [7.5, np.nan, np.nan])
    nowhere = store_of(tmp_path / "b.zarr", np.ones((1, 1, 1, 2)), ["reverb_noise5"])
    assert [found.item() for found in read_corruptions(nowhere, np.array([0]), "reverb_noise5")[1:]] == [
        "reverb+noise",
        5.0,
    ]
    assert read_corruptions(nowhere, np.array([0]), "office")[1].item() == "unknown"


def test_one_snr_throughout_is_a_bin_of_its_own() -> None:
    kinds = np.array(["a", "a", "b", "b"], dtype=object)
    found = bin_by_snr("g", "v", kinds, np.array([-10.0, -10.0, -0.1, 0.1]), "raw", np.array([1.0, 3.0, 5.0, 7.0]), 2.5)
    assert [(row.kind, row.snr, row.mean) for row in found] == [
        ("a", (-10.0, -10.0), 2.0),
        ("b", (-2.5, 0.0), 5.0),
        ("b", (0.0, 2.5), 7.0),
    ]
