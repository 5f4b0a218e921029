from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from sklearn.decomposition import PCA

from pipeline.scoring.comparison import mean_units, unit_crops
from pipeline.scoring.embedding_map import choose_rows, format_points, map_embeddings, principal_axes
from tests.scoring.test_distances import IDS, SPEAKERS, stores


def test_each_system_is_seen_along_the_principal_axes_of_its_clean_vectors(tmp_path: Path) -> None:
    opened = stores(tmp_path)
    points = map_embeddings(opened, "clean", SPEAKERS, 0)
    assert len(points) == 2 * 2 * 40
    for system in ("raw", "seed"):
        clean, noisy = (mean_units(unit_crops(opened[name, system].read()[:, :, 0])) for name in ("clean", "noise0"))
        expected = PCA(2).fit(clean).transform(noisy)
        there = {point.utterance: (point.x, point.y) for point in points if point[:2] == (system, "noise0")}
        found = np.array([there[name] for name in IDS])
        np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=1e-5)
    assert next(format_points(points)) == ("raw", "clean", "s0/0", "s0", f"{points[0].x:.4f}", f"{points[0].y:.4f}")
    assert points == map_embeddings(opened, "clean", SPEAKERS, 0)


def test_failed_utterances_and_unknown_speakers_are_not_on_the_map(tmp_path: Path) -> None:
    opened = stores(tmp_path, failed=3)
    points = map_embeddings(opened, "clean", SPEAKERS | {IDS[5]: None}, 0)
    assert {point.utterance for point in points} == set(IDS) - {IDS[3], IDS[5]}
    assert map_embeddings(opened, "clean", {}, 0) == []


def test_a_dozen_speakers_of_several_utterances_are_drawn() -> None:
    speakers = [f"lonely{n}" for n in range(50)] + [f"s{n % 20}" for n in range(400)] + [None] * 10
    rows = choose_rows(speakers, 1)
    counts = Counter(speakers[row] for row in rows)
    assert len(counts) == 12
    assert set(counts.values()) == {6}
    assert not any(str(name).startswith("lonely") for name in counts)
    assert rows.tolist() == choose_rows(speakers, 1).tolist() != choose_rows(speakers, 2).tolist()


@pytest.mark.parametrize("vectors", [np.ones((4, 8)), np.eye(2, 8), np.ones((5, 1))])
def test_there_are_two_axes_even_of_vectors_on_a_line_or_in_one_place(vectors: np.ndarray) -> None:
    axes = principal_axes(vectors.astype(np.float32))
    assert axes.shape == (2, vectors.shape[1])
    assert np.isfinite(axes).all()
    assert np.linalg.norm(axes[1]) == 0
