import numpy as np
import pytest

from pipeline.errors import ConfigError, TrialError
from pipeline.scoring.backends.vectors import centred, ensembled, mean_of_cohort, unit

RNG = np.random.default_rng(0)


def test_unit_leaves_directions_and_zeros() -> None:
    vectors = np.array([[3, 4], [0, 0], [np.nan, 1]], dtype=np.float32)
    np.testing.assert_allclose(unit(vectors), [[0.6, 0.8], [0, 0], [np.nan, np.nan]], rtol=1e-6)
    assert unit(vectors).dtype == np.float32


def test_centred_takes_off_the_mean_of_unit_vectors() -> None:
    vectors, cohort = RNG.normal(2, 1, (5, 3, 4)), RNG.normal(2, 1, (50, 4))
    cohort[7] = np.nan
    mean = mean_of_cohort(cohort)
    np.testing.assert_allclose(mean, np.mean([row / np.sqrt(row @ row) for row in np.delete(cohort, 7, 0)], axis=0))
    given = centred(vectors, mean)
    for index in np.ndindex(5, 3):
        row = vectors[index] / np.sqrt(vectors[index] @ vectors[index]) - mean
        np.testing.assert_allclose(given[index], row / np.sqrt(row @ row))
    np.testing.assert_allclose(centred(10 * vectors, mean), given)  # their length says nothing
    with pytest.raises(TrialError, match="no mean"):
        mean_of_cohort(cohort[7:8])


def test_ensembles_are_weighted_sums_of_directions() -> None:
    raw, enhanced = RNG.normal(size=(2, 6, 3))
    both = ensembled(raw, 100 * enhanced)
    for given, one, other in zip(both, raw, enhanced, strict=True):
        assert given @ one / np.linalg.norm(one) == pytest.approx(given @ other / np.linalg.norm(other))  # halfway
        assert np.linalg.matrix_rank(np.stack([given, one, other])) == 2
        assert np.linalg.norm(given) == pytest.approx(1)
    np.testing.assert_allclose(ensembled(raw, enhanced, 0), unit(raw))
    np.testing.assert_allclose(ensembled(raw, enhanced, 1), unit(enhanced))
    enhanced[2] = np.nan
    assert np.isnan(ensembled(raw, enhanced)).all(axis=1).tolist() == [False, False, True, False, False, False]


def test_ensembles_that_cannot_be() -> None:
    raw = np.ones((2, 3))
    with pytest.raises(ConfigError, match="weight of 2"):
        ensembled(raw, raw, 2)
    with pytest.raises(TrialError, match="cannot be added"):
        ensembled(raw, raw[:1])
