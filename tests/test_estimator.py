import os
import pickle
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, Normalizer
from sklearn.utils.estimator_checks import parametrize_with_checks

from pipeline import Enhancer
from pipeline.config.train import Train
from pipeline.errors import ConfigError, VectorError
from pipeline.estimator import SeedEnhancer
from pipeline.training.api import train
from tests.linear_encoder import DIM, encoded, speech
from tests.project import PROJECT

HEARD = speech()
CLEAN, NOISY = encoded(HEARD)[:, 0, 0], encoded(HEARD)[:, 0, 1:]
RAW = encoded(speech(8, seed=1)).reshape(-1, DIM)
QUICK: dict[str, Any] = {"max_epochs": 2, "batch_size": 64, "strength": 0.6, "folds": 0}


class OfAnyTarget(SeedEnhancer):
    """Takes noise of its own for a target of one or two numbers a row, which is all that the checks ever give."""

    def fit(self, X: Any, y: Any, speakers: Any = None) -> "OfAnyTarget":
        with suppress(TypeError, ValueError):  # X is to be refused, by what is tested
            clean, target = np.asarray(X, float), np.asarray(y, float)
            few = target.ndim == 1 or (target.ndim == 2 and target.shape[1] <= 2)
            if few and clean.ndim == 2 and len(clean) == len(target) and np.isfinite(target).all():
                y = np.tile(clean, 2) + np.random.default_rng(0).standard_normal((len(clean), 2 * clean.shape[1]))
        return super().fit(X, y, speakers)


TINY = {"max_epochs": 1, "folds": 0, "validation": 0.5}
NOT_OF_ITS_KIND = {
    "check_methods_subset_invariance": "is asked to 1e-7, which float32 does not have: sums of matrix products go in"
    " another order in batches of another size",
    "check_methods_sample_order_invariance": "likewise: on some processors, at another place of a batch",
}


@parametrize_with_checks([OfAnyTarget(TINY)], expected_failed_checks=lambda _: NOT_OF_ITS_KIND)
def test_it_is_an_estimator(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.fixture(scope="module")
def fitted() -> SeedEnhancer:
    return SeedEnhancer(QUICK).fit(CLEAN, NOISY, speakers=HEARD.speakers)


def test_it_is_the_training_and_the_enhancer_of_the_library(fitted: SeedEnhancer) -> None:
    made = train(CLEAN, NOISY, speakers=HEARD.speakers, settings=QUICK | {"device": "cpu"})
    np.testing.assert_array_equal(fitted.transform(RAW), Enhancer(made.model).enhance(RAW))
    assert (fitted.n_features_in_, fitted.model_.dim, fitted.enhancer_.model) == (DIM, DIM, fitted.model_)
    assert fitted.transform(RAW.astype(np.float64)).dtype == np.float64
    stronger = clone(fitted).set_params(strength=1.0, seed=3, timestep=20).fit(CLEAN, NOISY)
    other = train(CLEAN, NOISY, settings=QUICK | {"device": "cpu"}, seed=3, timestep=20)
    expected = Enhancer(other.model, timestep=20).enhance(RAW, 1.0)
    np.testing.assert_array_equal(stronger.transform(RAW), expected)


def test_flat_views_and_settings_of_any_kind_are_the_same(fitted: SeedEnhancer) -> None:
    flat = NOISY.reshape(len(NOISY), -1).astype(np.float64)
    for settings in (QUICK, Train(**QUICK)):
        model = clone(SeedEnhancer(settings)).fit(CLEAN.tolist(), flat, speakers=HEARD.speakers)
        np.testing.assert_array_equal(model.transform(RAW), fitted.transform(RAW))
    one = SeedEnhancer(QUICK).fit(CLEAN, NOISY[:, 0])
    np.testing.assert_array_equal(one.transform(RAW), SeedEnhancer(QUICK).fit(CLEAN, NOISY[:, :1]).transform(RAW))


def test_kept_ones_give_the_same_in_another_process(fitted: SeedEnhancer, tmp_path: Path) -> None:
    (tmp_path / "pickle").write_bytes(pickle.dumps(fitted))
    joblib.dump(fitted, tmp_path / "joblib")
    np.save(tmp_path / "x.npy", RAW)
    code = (
        "import joblib, pickle, numpy as np\n"
        "x = np.load('x.npy')\n"
        "kept = [joblib.load('joblib'), pickle.load(open('pickle', 'rb'))]\n"
        "np.save('y.npy', [model.transform(x) for model in kept])\n"
    )
    subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(PROJECT)}, check=True
    )
    for each in np.load(tmp_path / "y.npy"):
        np.testing.assert_array_equal(each, fitted.transform(RAW))


def test_its_model_is_one_of_seed(fitted: SeedEnhancer, tmp_path: Path) -> None:
    fitted.save(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(Enhancer.load(tmp_path / "m.safetensors").enhance(RAW), fitted.transform(RAW))


def test_its_file_knows_the_timestep(tmp_path: Path) -> None:
    settings = QUICK | {"max_timestep": None}
    other = SeedEnhancer(settings, timestep=300, strength=1.0).fit(CLEAN, NOISY, speakers=HEARD.speakers)
    other.save(tmp_path / "m.safetensors", {"family": "toy"})
    loaded = Enhancer.load(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(loaded.enhance(RAW, 1.0), other.transform(RAW))
    assert loaded.encoder == {"dim": DIM, "family": "toy"}


def test_it_goes_into_a_pipeline(fitted: SeedEnhancer) -> None:
    pipe = make_pipeline(FunctionTransformer(), SeedEnhancer(QUICK), Normalizer())
    out = pipe.fit(CLEAN, NOISY, seedenhancer__speakers=HEARD.speakers).transform(RAW)
    np.testing.assert_allclose(out, Normalizer().transform(fitted.transform(RAW)), atol=1e-6)
    names = pipe[1:2].get_feature_names_out()
    assert list(names) == [f"seedenhancer{column}" for column in range(DIM)]
    # Fitted once, it stands before a classifier of speakers as it is.
    frozen = make_pipeline(FrozenEstimator(fitted), LogisticRegression(max_iter=300))
    speakers = np.repeat(np.arange(8), len(RAW) // 8)
    assert frozen.fit(RAW, speakers).score(RAW, speakers) > 0.9


def test_a_grid_search_finds_the_strength() -> None:
    def score(model: SeedEnhancer, clean: np.ndarray, noisy: np.ndarray) -> float:
        """Return the mean cosine of clean vectors and enhanced noisy ones, both of length 1."""
        sides = (model.transform(clean), model.transform(noisy[:, 0]))
        ours, theirs = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in sides)
        return float((ours * theirs).sum(axis=1).mean())

    search = GridSearchCV(SeedEnhancer(QUICK), {"strength": [0.0, 0.5, 1.0]}, scoring=score, cv=2).fit(CLEAN, NOISY)
    tried = search.cv_results_["mean_test_score"]
    assert tried[0] < tried[1] < tried[2]
    assert search.best_estimator_.strength == 1.0


def test_output_is_set_as_scikit_learn_has_it(fitted: SeedEnhancer) -> None:
    pandas = pytest.importorskip("pandas")
    frame = clone(fitted).set_output(transform="pandas").fit(pandas.DataFrame(CLEAN).add_prefix("e"), NOISY)
    out = frame.transform(pandas.DataFrame(RAW).add_prefix("e"))
    assert list(out.columns) == list(frame.get_feature_names_out())
    assert list(frame.feature_names_in_[:2]) == ["e0", "e1"]


def test_what_does_not_fit_is_refused(fitted: SeedEnhancer) -> None:
    bad = NOISY.copy()
    bad[3, 1, 2] = np.nan
    model = clone(fitted)
    for wrong in (NOISY[:, 0, 0], NOISY[:, 0, :1], NOISY[..., :-1], NOISY[:, None]):
        with pytest.raises(VectorError, match="which does not match 32-d vectors"):
            model.fit(CLEAN, wrong)
    for y, says in ((None, "requires y to be passed"), (bad, "Input y contains NaN"), (NOISY[:-1], "inconsistent")):
        with pytest.raises(ValueError, match=says):
            model.fit(CLEAN, y)
    with pytest.raises(ValueError, match="inconsistent"):
        model.fit(CLEAN, NOISY, speakers=["a"])
    with pytest.raises(ConfigError, match="unknown key"):
        SeedEnhancer({"epochs": 3}).fit(CLEAN, NOISY)
    with pytest.raises(ValueError, match="31 features, but SeedEnhancer"):
        fitted.transform(RAW[:, 1:])
