from types import SimpleNamespace

import numpy as np
import pytest
from scipy.linalg import sqrtm
from scipy.stats import multivariate_normal

from pipeline.data.trials.table import Trials
from pipeline.errors import TrialError
from pipeline.metrics import cllr, eer, min_cllr, roc_of, rocch
from pipeline.scoring.backends.plda import (
    Plda,
    PldaModel,
    estimate_moments,
    fit_plda,
    run_em,
    score_matrix,
    score_trials,
)
from pipeline.scoring.backends.vectors import LengthNorm
from tests.references import reference


def some_model(dim: int, seed: int, rank: int | None = None) -> PldaModel:
    rng = np.random.default_rng(seed)
    between, within = rng.standard_normal((dim, rank or dim)), rng.standard_normal((dim, 2 * dim))
    return PldaModel(rng.standard_normal(dim), between @ between.T, within @ within.T / dim)


def draw(model: PldaModel, counts: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of a model, and their speakers in mixed order."""
    rng = np.random.default_rng(seed)
    speakers = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    identities = rng.multivariate_normal(model.mean, model.between, len(counts), method="eigh")
    noise = rng.multivariate_normal(np.zeros(len(model.mean)), model.within, len(speakers), method="cholesky")
    return identities[speakers] + noise, speakers


def likelihood(model: PldaModel, vectors: np.ndarray, speakers: np.ndarray) -> float:
    """Log-likelihood by the joint normal density of all of each speaker's vectors."""
    total = 0.0
    for speaker in np.unique(speakers):
        own = vectors[speakers == speaker]
        covariance = np.kron(np.eye(len(own)), model.within) + np.kron(np.ones((len(own), len(own))), model.between)
        total += multivariate_normal.logpdf(own.ravel(), np.tile(model.mean, len(own)), covariance)
    return total


def prior(matrix: np.ndarray, ideal: np.ndarray, pseudo: float) -> float:
    """Log-density of the inverse Wishart prior, but for a constant."""
    return -pseudo / 2 * (np.linalg.slogdet(matrix)[1] + np.trace(np.linalg.solve(matrix, ideal)))


@pytest.mark.parametrize("rank", [None, 2])
def test_scores_are_ratios_of_normal_densities(rank: int | None) -> None:
    model = some_model(5, 0, rank)
    vectors, _ = draw(model, np.full(6, 2), 1)
    marks = Plda.from_model(model).represent(vectors)
    assert marks.shape == (12, 6)
    ratios = score_matrix(marks, marks)
    total = model.between + model.within
    both = np.block([[total, model.between], [model.between, total]])
    for row, column in np.ndindex(12, 12):
        pair = vectors[row], vectors[column]
        same = multivariate_normal.logpdf(np.concatenate(pair), np.tile(model.mean, 2), both)
        differ = sum(multivariate_normal.logpdf(vector, model.mean, total) for vector in pair)
        assert ratios[row, column] == pytest.approx(same - differ, abs=1e-8)
    rows, columns = np.repeat(np.arange(12), 100), np.tile(np.arange(12), 100)
    trials = Trials(rows, columns, None)
    np.testing.assert_allclose(score_trials(marks, marks, trials), ratios[rows, columns], atol=1e-10)


def test_scores_are_speechbrains() -> None:
    theirs = reference("speechbrain.processing.PLDA_LDA")
    model = some_model(6, 3)
    vectors, _ = draw(model, np.full(9, 1), 4)
    names = np.array([f"u{row}" for row in range(9)], dtype="|O")

    def pack() -> object:
        return theirs.StatObject_SB(names, names, names, names, np.ones((9, 1)), vectors.copy())

    listed = SimpleNamespace(modelset=names, segset=names, trialmask=np.ones((9, 9), dtype=bool))
    factor = np.linalg.cholesky(model.between)
    given = theirs.fast_PLDA_scoring(pack(), pack(), listed, model.mean, factor, model.within, check_missing=False)
    marks = Plda.from_model(model).represent(vectors)
    np.testing.assert_allclose(score_matrix(marks, marks), given.scoremat, atol=1e-8)


@pytest.mark.parametrize("pseudo", [0.0, 4.0])
def test_no_step_of_em_lowers_the_likelihood(pseudo: float) -> None:
    vectors, speakers = draw(some_model(4, 5), np.array([1, 1, 2, 3, 5, 8, 4, 1]), 6)
    data, start = estimate_moments(vectors, speakers)
    ideals = [np.trace(one) / 4 * np.eye(4) for one in (start.between, start.within)]
    values = []
    for steps in range(30):
        model = run_em(data, start, steps, pseudo)
        priors = zip((model.between, model.within), ideals, strict=True)
        values.append(likelihood(model, vectors, speakers) + sum(prior(*pair, pseudo) for pair in priors))
    assert np.diff(values).min() >= -1e-8
    assert values[-1] > values[0]


def test_em_ends_at_the_closed_form_of_balanced_speakers() -> None:
    # Means of n vectors are N(m, B + W / n), and independent of the deviations from them.
    model = some_model(3, 7)
    model = PldaModel(model.mean, model.between + np.eye(3), model.within)
    vectors, speakers = draw(model, np.full(40, 5), 8)
    means = np.stack([vectors[speakers == speaker].mean(axis=0) for speaker in range(40)])
    inner = vectors - means[speakers]
    within = inner.T @ inner / (40 * 4)
    between = np.cov(means.T, bias=True) - within / 5
    assert np.linalg.eigvalsh(between).min() > 0
    data, start = estimate_moments(vectors, speakers)
    found = run_em(data, start, 3000, 0.0)
    np.testing.assert_allclose(found.mean, means.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(found.within, within, atol=1e-6)
    np.testing.assert_allclose(found.between, between, atol=1e-6)


def test_a_large_sample_gives_the_model_back() -> None:
    model = some_model(4, 9)
    vectors, speakers = draw(model, np.random.default_rng(0).integers(1, 15, 4000), 10)
    found = fit_plda(vectors, speakers, length_norm=False).model
    for given, true in ((found.between, model.between), (found.within, model.within)):
        assert np.linalg.norm(given - true) < 0.05 * np.linalg.norm(true)
    np.testing.assert_allclose(found.mean, model.mean, atol=0.15)


def test_more_dimensions_than_utterances_still_give_a_useful_model() -> None:
    model = some_model(40, 11)
    train, known = draw(model, np.full(12, 3), 12)
    vectors, speakers = draw(model, np.full(30, 4), 13)
    with pytest.raises(TrialError, match="larger prior"):
        fit_plda(train, known, length_norm=False, pseudo=0)
    for length_norm in (False, True):
        marks = fit_plda(train, known, length_norm=length_norm).represent(vectors)
        pairs = np.triu_indices(len(vectors), 1)
        scores, target = score_matrix(marks, marks)[pairs], (speakers[:, None] == speakers)[pairs]
        assert np.isfinite(scores).all()
        assert eer(roc_of(scores, target)) < 0.25
        assert cllr(scores, target) < 1


def test_its_ratios_are_calibrated() -> None:
    model = some_model(5, 14)
    plda = fit_plda(*draw(model, np.full(500, 8), 15), length_norm=False)
    vectors, speakers = draw(model, np.full(200, 3), 16)
    marks, pairs = plda.represent(vectors), np.triu_indices(600, 1)
    scores, target = score_matrix(marks, marks)[pairs], (speakers[:, None] == speakers)[pairs]
    assert cllr(scores, target) < min_cllr(rocch(roc_of(scores, target))) + 0.03


def test_length_norm_whitens_and_gives_one_length() -> None:
    vectors, _ = draw(some_model(4, 17), np.full(50, 2), 18)
    norm = LengthNorm.fit(vectors, 0.0)
    white = (vectors - vectors.mean(axis=0)) @ np.linalg.inv(sqrtm(np.cov(vectors.T, bias=True)))
    np.testing.assert_allclose(norm(vectors), 2 * white / np.linalg.norm(white, axis=1, keepdims=True), atol=1e-8)
    np.testing.assert_array_equal(norm(norm.centre[None]), np.zeros((1, 4)))


def test_scoring_goes_through_the_length_norm_of_training() -> None:
    vectors, speakers = draw(some_model(4, 19), np.full(30, 4), 20)
    plda = fit_plda(vectors, speakers)
    assert plda.length_norm is not None
    marks = Plda.from_model(plda.model).represent(plda.length_norm(vectors))
    np.testing.assert_allclose(plda.represent(vectors), marks, atol=1e-12)
    again = fit_plda(vectors, 7 * speakers - 3)  # numbers are but names
    np.testing.assert_array_equal(again.represent(vectors), plda.represent(vectors))


def test_what_failed_stays_nan_and_is_not_learnt_from() -> None:
    vectors, speakers = draw(some_model(4, 21), np.full(10, 4), 22)
    plda = fit_plda(vectors[1:], speakers[1:])
    vectors[0] = np.nan
    marks = fit_plda(vectors, speakers).represent(vectors)
    assert np.isnan(marks[0]).all()
    np.testing.assert_array_equal(marks[1:], plda.represent(vectors[1:]))


def test_single_precision_scores_in_single_precision() -> None:
    vectors, speakers = draw(some_model(8, 23), np.full(10, 4), 24)
    plda = fit_plda(vectors.astype(np.float32), speakers)
    marks = plda.represent(vectors.astype(np.float32))
    assert score_matrix(marks, marks).dtype == marks.dtype == np.float32
    exact = plda.represent(vectors)
    np.testing.assert_allclose(score_matrix(marks, marks), score_matrix(exact, exact), atol=1e-3)


def test_what_cannot_be_learnt_from_is_an_error() -> None:
    vectors = np.random.default_rng(0).standard_normal((6, 3))
    with pytest.raises(TrialError, match="1 of 5 speakers"):
        fit_plda(vectors, np.array([0, 0, 1, 2, 3, 4]))
    with pytest.raises(TrialError, match="0 of 0 speakers"):
        fit_plda(np.full((4, 3), np.nan), np.array([0, 0, 1, 1]))
    with pytest.raises(TrialError, match="one each"):
        fit_plda(vectors, np.arange(5))
    for length_norm in (False, True):
        with pytest.raises(TrialError, match="same vectors"):
            fit_plda(np.repeat(vectors, 2, axis=0), np.repeat(np.arange(6), 2), length_norm=length_norm)
