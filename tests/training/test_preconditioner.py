import numpy as np
import pytest
from sklearn.linear_model import Ridge

from pipeline.errors import TrainingError
from pipeline.training.preconditioner import RIDGE, SHRINKAGE, Moments, fit_preconditioner

RNG = np.random.default_rng(0)
CLEAN = RNG.standard_normal((500, 6)).astype(np.float32) + 3
SHIFT = RNG.standard_normal((500, 3, 6)) * np.array([5, 2, 1, 1, 0.1, 0.01])
NOISY = (CLEAN[:, None] + SHIFT).astype(np.float32)


def test_none_and_center() -> None:
    mean, matrix = fit_preconditioner("none", CLEAN, NOISY)
    assert not mean.any()
    np.testing.assert_array_equal(matrix, np.eye(6))
    mean, matrix = fit_preconditioner("center", CLEAN, NOISY)
    np.testing.assert_allclose(mean, CLEAN.mean(axis=0), rtol=1e-5)
    np.testing.assert_array_equal(matrix, np.eye(6))


def test_whitening_makes_the_shrunk_displacement_covariance_the_identity() -> None:
    _, matrix = fit_preconditioner("whiten", CLEAN, NOISY)
    shift = (NOISY - CLEAN[:, None]).reshape(-1, 6).astype(np.float64)
    covariance = np.einsum("ni,nj->ij", shift, shift) / len(shift)
    shrunk = covariance + SHRINKAGE * np.trace(covariance) / 6 * np.eye(6)
    np.testing.assert_allclose(matrix @ shrunk @ matrix.T, np.eye(6), atol=1e-8)
    spread = np.sqrt(np.diag(matrix @ covariance @ matrix.T))
    assert spread[0] == pytest.approx(spread.max())
    assert spread.max() / spread.min() < 5 / 0.01  # evened out, not blown up


@pytest.mark.parametrize("kind", ["none", "center", "whiten", "project", "ridge", "wiener"])
def test_missing_noise_is_an_error_for_maps_against_it(kind: str) -> None:
    same = np.repeat(CLEAN[:, None], 2, axis=1)
    if kind in ("whiten", "project"):
        with pytest.raises(TrainingError, match=f"precondition {kind}: all noisy embeddings are equal to the clean"):
            fit_preconditioner(kind, CLEAN, same)
    else:
        assert np.isfinite(fit_preconditioner(kind, CLEAN, same)[1]).all()


@pytest.mark.parametrize("kind", ["ridge", "wiener"])
def test_a_single_clean_embedding_is_an_error_for_maps_of_clean_variance(kind: str) -> None:
    same = np.repeat(CLEAN[:1], 3, axis=0)
    with pytest.raises(TrainingError, match=f"precondition {kind}: all clean embeddings are equal"):
        fit_preconditioner(kind, same, same[:, None])


def test_tiny_noise_has_a_solution() -> None:
    noisy = CLEAN[:, None] + np.float32(1e-3) * RNG.standard_normal((500, 1, 6)).astype(np.float32)
    assert np.isfinite(fit_preconditioner("whiten", CLEAN, noisy)[1]).all()


@pytest.mark.parametrize("kind", ["none", "center", "whiten", "project", "ridge", "wiener"])
def test_adding_in_parts_gives_the_same_map(kind: str) -> None:
    moments = Moments(6, kind)
    for start, stop in ((0, 1), (1, 200), (200, 200), (200, 500)):
        moments.add(CLEAN[start:stop], NOISY[start:stop])
    for ours, whole in zip(moments.solve(), fit_preconditioner(kind, CLEAN, NOISY), strict=True):
        np.testing.assert_allclose(ours, whole, rtol=1e-9, atol=1e-12)


def test_a_displacement_by_known_steps_has_the_known_answer() -> None:
    clean = np.full((64, 4), 8, dtype=np.float32)
    steps = np.diag([1, 2, 4, 8]).astype(np.float32)  # C = diag(1, 4, 16, 64) / 4, as each view moves one direction
    moments = Moments(4, "whiten")
    for part in np.split(clean, 8):
        moments.add(part, part[:, None] + steps)
    mean, matrix = moments.solve()
    np.testing.assert_allclose(mean, 8, rtol=1e-9)
    second = np.array([1, 4, 16, 64]) / 4
    expected = np.diag((second + SHRINKAGE * second.mean()) ** -0.5)
    np.testing.assert_allclose(matrix, expected, rtol=1e-9, atol=1e-15)


def test_projection_removes_the_directions_that_noise_affects_most() -> None:
    _, matrix = fit_preconditioner("project", CLEAN, NOISY)
    np.testing.assert_allclose(matrix @ matrix, matrix, atol=1e-9)
    assert np.trace(matrix) == pytest.approx(5)  # one direction holds more than half of the power
    assert np.linalg.norm(matrix @ np.eye(6)[0]) < 0.1
    assert np.linalg.norm(matrix @ np.eye(6)[5]) > 0.9


def test_ridge_is_that_of_scikit_learn() -> None:
    mean, matrix = fit_preconditioner("ridge", CLEAN, NOISY)
    inputs = np.concatenate([CLEAN[:, None], NOISY], axis=1).reshape(-1, 6).astype(np.float64) - mean
    targets = np.repeat(CLEAN.astype(np.float64) - mean, 4, axis=0)
    alpha = RIDGE * np.square(inputs).sum() / 6
    expected = Ridge(alpha=alpha, fit_intercept=False).fit(inputs, targets).coef_
    np.testing.assert_allclose(matrix, expected, atol=1e-6)


def test_wiener_is_the_best_linear_map_where_noise_is_independent() -> None:
    rng = np.random.default_rng(1)
    clean = (rng.standard_normal((20_000, 3)) * np.array([3.0, 1.0, 0.3])).astype(np.float32)
    noisy = clean[:, None] + rng.standard_normal((20_000, 1, 3)).astype(np.float32)
    _, matrix = fit_preconditioner("wiener", clean, noisy)
    np.testing.assert_allclose(matrix, np.diag([9 / 10, 1 / 2, 0.09 / 1.09]), atol=0.02)


@pytest.mark.parametrize("kind", ["whiten", "project", "ridge", "wiener"])
def test_a_dimension_that_is_always_zero_does_no_harm(kind: str) -> None:
    clean, noisy = (np.insert(values, 2, 0, axis=-1) for values in (CLEAN, NOISY))
    _, matrix = fit_preconditioner(kind, clean, noisy)
    assert np.isfinite(matrix).all()
    kept = np.delete(np.arange(7), 2)
    if kind == "wiener":  # has no share of the mean variance to add, which would be another with 7 dimensions
        np.testing.assert_allclose(matrix[np.ix_(kept, kept)], fit_preconditioner(kind, CLEAN, NOISY)[1], atol=1e-6)
        np.testing.assert_allclose(matrix[2], 0, atol=1e-9)


def test_domains_count_the_same_whatever_their_size_and_the_length_of_displacements() -> None:
    rng = np.random.default_rng(8)
    clean = rng.standard_normal((90, 4)).astype(np.float32)
    shift = rng.standard_normal((90, 2, 4)) * np.where(np.arange(90) < 60, 1.0, 3.0)[:, None, None]
    noisy, domains = (clean[:, None] + shift).astype(np.float32), np.repeat([7, 3], [60, 30])
    parts = [
        np.subtract(noisy, clean[:, None], dtype=np.float64)[domains == number].reshape(-1, 4) for number in (7, 3)
    ]
    covariances = [part.T @ part / len(part) for part in parts]
    average = sum(each / np.trace(each) for each in covariances) / 2
    _, matrix = fit_preconditioner("whiten", clean, noisy, domains)
    ratio = np.linalg.inv(matrix @ matrix) / (average + np.trace(average) / 4 * np.eye(4))
    np.testing.assert_allclose(ratio, ratio[0, 0], rtol=1e-6)
    moments = Moments(4, "whiten")
    for rows in np.array_split(rng.permutation(90), 4):
        moments.add(clean[rows], noisy[rows], domains[rows])
    np.testing.assert_allclose(moments.solve()[1], matrix, rtol=1e-6)
