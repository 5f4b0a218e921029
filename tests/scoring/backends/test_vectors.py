import numpy as np
import pytest

from pipeline.errors import ConfigError, TrialError
from pipeline.scoring.backends.vectors import average_cohort, centre, ensemble, normalise_length

RNG = np.random.default_rng(0)


def test_unit_leaves_directions_and_zeros() -> None:
    vectors = np.array([[3, 4], [0, 0], [np.nan, 1]], dtype=np.float32)
    np.testing.assert_allclose(normalise_length(vectors), [[0.6, 0.8], [0, 0], [np.nan, np.nan]], rtol=1e-6)
    assert normalise_length(vectors).dtype == np.float32


def test_centred_takes_off_the_mean_of_unit_vectors() -> None:
    vectors, cohort = RNG.normal(2, 1, (5, 3, 4)), RNG.normal(2, 1, (50, 4))
    cohort[7] = np.nan
    mean = average_cohort(cohort)
    np.testing.assert_allclose(mean, np.mean([row / np.sqrt(row @ row) for row in np.delete(cohort, 7, 0)], axis=0))
    given = centre(vectors, mean)
    for index in np.ndindex(5, 3):
        row = vectors[index] / np.sqrt(vectors[index] @ vectors[index]) - mean
        np.testing.assert_allclose(given[index], row / np.sqrt(row @ row))
    np.testing.assert_allclose(centre(10 * vectors, mean), given)  # their length says nothing
    with pytest.raises(TrialError, match="no mean"):
        average_cohort(cohort[7:8])


def test_ensembles_are_weighted_sums_of_directions() -> None:
    raw, enhanced = RNG.normal(size=(2, 6, 3))
    both = ensemble(raw, 100 * enhanced)
    for given, one, other in zip(both, raw, enhanced, strict=True):
        assert given @ one / np.linalg.norm(one) == pytest.approx(given @ other / np.linalg.norm(other))  # halfway
        assert np.linalg.matrix_rank(np.stack([given, one, other])) == 2
        assert np.linalg.norm(given) == pytest.approx(1)
    np.testing.assert_allclose(ensemble(raw, enhanced, 0), normalise_length(raw))
    np.testing.assert_allclose(ensemble(raw, enhanced, 1), normalise_length(enhanced))
    enhanced[2] = np.nan
    assert np.isnan(ensemble(raw, enhanced)).all(axis=1).tolist() == [False, False, True, False, False, False]


def test_an_ensemble_of_own_lengths_is_a_plain_sum() -> None:
    raw, enhanced = RNG.normal(size=(2, 6, 3))
    both = ensemble(raw, 10 * enhanced, own_lengths=True)
    np.testing.assert_allclose(both, normalise_length(raw + 10 * enhanced))
    weighted = ensemble(raw, enhanced, 0.2, own_lengths=True)
    np.testing.assert_allclose(weighted, normalise_length(0.8 * raw + 0.2 * enhanced))


def test_ensembles_that_cannot_be() -> None:
    raw = np.ones((2, 3))
    with pytest.raises(ConfigError, match="weight of 2"):
        ensemble(raw, raw, 2)
    with pytest.raises(TrialError, match="cannot be added"):
        ensemble(raw, raw[:1])
