"""Provide training and enhancement as a scikit-learn estimator (extra `sklearn`)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_consistent_length
from sklearn.utils.validation import FLOAT_DTYPES, check_is_fitted, validate_data

from pipeline.config.train import Train
from pipeline.errors import VectorError
from pipeline.model.enhancer import Enhancer
from pipeline.model.model_file import TIMESTEP, save_model
from pipeline.training.api import train

if TYPE_CHECKING:
    import os

    from sklearn.utils import Tags


class SeedEnhancer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """A transformer of speaker embeddings, trained on clean embeddings (X) and corrupted ones of the same crops (y).

    After `fit`, `n_features_in_` is D, `model_` the model (`save` writes it), `summary_` the summary of its training,
    and `enhancer_` the `Enhancer` that `transform` applies.
    """

    def __init__(
        self,
        settings: Train | Mapping[str, Any] | None = None,
        *,
        seed: int = 0,
        timestep: int = TIMESTEP,
        strength: float | None = None,
        device: str = "cpu",
    ) -> None:
        """Store the parameters; `fit` validates them.

        Args:
            settings: settings of `train` in the parameter file (docs/training.md); the defaults if not given.
            seed: seed of everything random.
            timestep: the timestep of enhancement.
            strength: the interpolation weight, 0 (raw) to 1 (enhanced); determined in training if not given.
            device: the device to compute on, overriding the settings: auto, cpu, cuda, cuda:<index> or mps.
        """
        self.settings = settings
        self.seed = seed
        self.timestep = timestep
        self.strength = strength
        self.device = device

    def fit(
        self,
        X: NDArray[np.floating[Any]],
        y: NDArray[np.floating[Any]],
        speakers: Sequence[str] | None = None,
    ) -> "SeedEnhancer":
        """Train a model.

        Args:
            X: clean vectors [N, D].
            y: V corrupted versions of the same crops: [N, V, D], or flat [N, V * D]; [N, D] for a single version.
            speakers: speaker of each row, see `pipeline.training.api.train` (`seedenhancer__speakers` in pipelines).

        Raises:
            VectorError: (a ValueError, like every error here) X and y do not match.
            ConfigError: a setting is invalid.
        """
        clean, noisy = validate_data(
            self,
            X,
            y,
            validate_separately=(
                {"dtype": FLOAT_DTYPES, "ensure_min_samples": 2, "estimator": self},
                {"dtype": FLOAT_DTYPES, "allow_nd": True, "ensure_2d": False, "estimator": self},
            ),
        )
        check_consistent_length(clean, noisy, speakers)
        settings = self.settings if self.settings is not None else {}
        values = settings.model_dump() if isinstance(settings, Train) else dict(settings)
        trained = train(
            clean,
            _split_views(noisy, clean.shape[1]),
            speakers=speakers,
            settings=values | {"device": self.device},
            seed=self.seed,
            timestep=self.timestep,
        )
        self.model_, self.summary_ = trained.model, trained.summary()
        self.enhancer_ = Enhancer(trained.model, timestep=self.timestep)
        return self

    def transform(self, X: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
        """Return enhanced vectors [N, D] of raw ones.

        Raises:
            ValueError: the vectors have another dimension, or hold NaN or infinite values.
            ConfigError: the strength is not from 0 to 1.
        """
        check_is_fitted(self)
        raw = validate_data(self, X, dtype=FLOAT_DTYPES, reset=False)
        return self.enhancer_.enhance(raw, self.strength)

    def save(self, path: "str | os.PathLike[str]", encoder: Mapping[str, Any] | None = None) -> None:
        """Write the model to a safetensors file, which runs no code, for `Enhancer.load` and `seed enhance`.

        The file has the timestep and the strength from training, not the `strength` of this estimator.

        Args:
            path: the file, named ….safetensors.
            encoder: the encoder of the vectors, see `EmbeddingStore.encoder`; without it, stores cannot be checked.

        Raises:
            OutputError: the file cannot be written.
        """
        check_is_fitted(self)
        save_model(Path(path), self.model_, {"dim": self.enhancer_.dim} | dict(encoder or {}), self.summary_)

    @property
    def _n_features_out(self) -> int:
        return self.enhancer_.dim

    def __sklearn_tags__(self) -> "Tags":
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.target_tags.multi_output = True
        tags.target_tags.single_output = False
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def _split_views(noisy: NDArray[np.floating[Any]], dim: int) -> NDArray[np.floating[Any]]:
    """Return noisy vectors as [N, V, D]."""
    if noisy.ndim == 2 and noisy.shape[1] % dim == 0:
        return noisy.reshape(len(noisy), -1, dim)
    if noisy.ndim == 3 and noisy.shape[2] == dim:
        return noisy
    raise VectorError(
        f"y has shape {noisy.shape}, which does not match {dim}-d vectors; pass [N, V, {dim}], flat [N, V * {dim}], or"
        f" [N, {dim}]."
    )
