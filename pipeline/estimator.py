"""Training and enhancement as an estimator of scikit-learn (extra `sklearn`), for its pipelines and tools."""

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
    """A transformer of speaker embeddings, trained on clean ones (X) and the same crops as corrupted (y).

    Once it is fitted, `n_features_in_` is D; `model_`, the model (`save` writes it); `summary_`, what is to be said of
    its training; `enhancer_`, the `Enhancer` that `transform` applies.
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
        """Keep the parameters; they are looked at when it is fitted.

        Args:
            settings: what `train` of the parameter file may hold (docs/training.md); the defaults if not given.
            seed: of all that is random.
            timestep: the step at which the model enhances.
            strength: 0 (raw) to 1 (all of the way); as training finds it if not given.
            device: where to compute, whatever the settings say: auto, cpu, cuda, cuda:<index> or mps.
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
            y: the same crops as corrupted in V ways: [N, V, D], or flat [N, V * D]; [N, D] of one.
            speakers: of each row, see `pipeline.training.api.train`; in a pipeline it is `seedenhancer__speakers`.

        Raises:
            VectorError: (a ValueError, as all that is raised here) the vectors do not fit each other.
            ConfigError: a setting is wrong.
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
        told = settings.model_dump() if isinstance(settings, Train) else dict(settings)
        trained = train(
            clean,
            _views(noisy, clean.shape[1]),
            speakers=speakers,
            settings=told | {"device": self.device},
            seed=self.seed,
            timestep=self.timestep,
        )
        self.model_, self.summary_ = trained.model, trained.summary()
        self.enhancer_ = Enhancer(trained.model, timestep=self.timestep)
        return self

    def transform(self, X: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
        """Return enhanced vectors [N, D] of raw ones.

        Raises:
            ValueError: they are of another dimension, or hold NaN or infinite values.
            ConfigError: the strength is not from 0 to 1.
        """
        check_is_fitted(self)
        raw = validate_data(self, X, dtype=FLOAT_DTYPES, reset=False)
        return self.enhancer_.enhance(raw, self.strength)

    def save(self, path: "str | os.PathLike[str]", encoder: Mapping[str, Any] | None = None) -> None:
        """Write the model to a safetensors file, which runs no code, for `Enhancer.load` and `seed enhance`.

        The file has the timestep and the strength that training found, and not `strength` of this estimator.

        Args:
            path: named ….safetensors.
            encoder: of the vectors, see `EmbeddingStore.encoder`; where not given, nobody can check theirs.

        Raises:
            OutputError: it cannot be written.
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


def _views(noisy: NDArray[np.floating[Any]], dim: int) -> NDArray[np.floating[Any]]:
    """Return noisy vectors as [N, V, D]."""
    if noisy.ndim == 2 and noisy.shape[1] % dim == 0:
        return noisy.reshape(len(noisy), -1, dim)
    if noisy.ndim == 3 and noisy.shape[2] == dim:
        return noisy
    raise VectorError(
        f"y of shape {noisy.shape} are no noisy vectors of {dim} numbers; give [N, V, {dim}], flat [N, V * {dim}], or"
        f" [N, {dim}]."
    )
