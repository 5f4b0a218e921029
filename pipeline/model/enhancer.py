"""Enhance vectors in other programs: arrays in, arrays out."""

import math
import os
import sys
import warnings
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any, Literal, overload

import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.errors import ConfigError, SeedWarning, VectorError, WeightsError
from pipeline.model.adaptation import adapt_model
from pipeline.model.adaptation_record import Adaptation
from pipeline.model.apply import BATCH
from pipeline.model.diagnostics import Info, diagnose, require_finite, unusable_mask
from pipeline.model.diffusion.sampler import Sampling
from pipeline.model.model_file import (
    TIMESTEP,
    ModelFile,
    describe_denoiser_mismatch,
    describe_unknown_encoder,
    load_model,
)
from pipeline.model.packaged import SHA256, find_packaged
from pipeline.model.seed_model import SeedModel
from pipeline.model.single_vector import SingleVectorPath
from pipeline.model.training_stats import describe_norm_mismatch
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.utils.arrays import Array, InputRows, restore_like, to_rows
from pipeline.utils.device import choose_device
from pipeline.utils.paths import Place, is_url, to_place

OnBad = Literal["raise", "raw"]
_REMOTE_SCHEMES = ("http", "https", "hf", "pypi")
_FINGERPRINT = ("family", "weights_sha256", "front_end")


class Enhancer:
    """A trained model that enhances vectors.

    It is immutable, so any number of threads may share it. A vector's result does not depend on the rest of the batch,
    except for the rounding of matrix products (about 1e-6 of its length), because the order of summation depends on the
    batch size. The same call gives the same bits.
    """

    def __init__(
        self,
        model: SeedModel,
        encoder: Mapping[str, Any] | None = None,
        *,
        timestep: int = TIMESTEP,
        name: str = "the model",
        sha256: str = "",
    ) -> None:
        """Args: model: trained, put into evaluation mode; encoder: facts about its encoder; name: for messages."""
        if not 0 <= timestep < len(model.abar):
            raise ConfigError(f"timestep {timestep}: {name} has timesteps from 0 to {len(model.abar) - 1}.")
        self.model, self.encoder = model.eval().requires_grad_(False), dict(encoder or {})
        self.name, self.sha256 = name, sha256
        self._timestep, self._strength = timestep, round(model.default_strength, 6)
        self._conditioning = self.model.compute_conditioning(timestep)
        self._single_vector = SingleVectorPath(self.model, Sampling(timestep, strength=self._strength))

    @classmethod
    def load(
        cls,
        path_or_uri: "str | os.PathLike[str] | Place",
        device: str | torch.device = "cpu",
        sha256: str | None = None,
        encoder: EmbeddingStore | Mapping[str, Any] | None = None,
    ) -> "Enhancer":
        """Read a model file.

        Args:
            path_or_uri: the name of a packaged model, see `pipeline.model.packaged`; a path; https://…,
                hf://<owner>/<repository>[@<revision>]/<file> (needs the extra `hub`), or another URL scheme that stores
                support (needs `remote`). Downloads are cached in `$SEED_CACHE`, else `~/.cache/speaker-seed`.
            device: the device to compute on: auto, cpu, cuda, cuda:<index> or mps.
            sha256: the expected SHA-256 (64 hexadecimal digits); without it a download is accepted with a warning.
            encoder: a store of the vectors to enhance, or its attributes, see `check`.

        Raises:
            WeightsError: the file is missing, damaged, of another SHA-256, or no SEED model.
            VectorError: the encoder's vectors have another dimension.
            ConfigError: the device is not available.
            PlaceError: a remote place does not answer, or refuses.
        """
        with torch.random.fork_rng(devices=[]):  # initialising the network must not change the caller's random state
            loaded = _load_model(path_or_uri, choose_device(str(device)), sha256)
        made = cls(loaded.model, loaded.encoder, timestep=loaded.timestep, name=str(path_or_uri), sha256=loaded.sha256)
        if encoder is not None:
            made.check(encoder)
        return made

    def __repr__(self) -> str:
        """Return the model's name, encoder, dimension, timestep, strength and adaptation, on one line."""
        encoder = self.encoder.get("encoder") or "an unnamed encoder"
        adapted = f", adapted to {self.adaptation.vectors} vectors" if self.adaptation else ""
        facts = f"D = {self.dim}, timestep {self._timestep}, strength {self._strength:g}{adapted}"
        return f"<Enhancer {self.name}: vectors of {encoder}, {facts}>"

    @property
    def dim(self) -> int:
        """The dimension of vectors, D."""
        return self.model.dim

    @property
    def strength(self) -> float:
        """The interpolation weight from raw (0) to enhanced (1): from training, or of an adapted model, see `adapt`."""
        return self._strength

    @property
    def adaptation(self) -> Adaptation | None:
        """The record of the adaptation, or None."""
        return self.model.adaptation

    @property
    def base_sha256(self) -> str:
        """SHA-256 of the model as it was trained: vectors of all its adaptations can be compared."""
        return (self.model.adaptation.comparable_sha256 if self.model.adaptation else "") or self.sha256

    def check(self, encoder: EmbeddingStore | Mapping[str, Any]) -> None:
        """Warn if vectors are from another encoder than the model's, comparing the facts that both sides have.

        Args:
            encoder: a store of the vectors, or its attributes: `dim`, `family`, `weights_sha256`, `front_end`.

        Raises:
            VectorError: the vectors have another dimension.
        """
        theirs = encoder.attributes if isinstance(encoder, EmbeddingStore) else encoder
        if theirs.get("dim", self.dim) != self.dim:
            raise VectorError(f"vectors have {theirs['dim']} numbers; {self.name} takes {self.dim}, from its encoder.")
        pairs = {key: (self.encoder[key], theirs[key]) for key in _FINGERPRINT if key in theirs and key in self.encoder}
        hashed = None not in pairs.get("weights_sha256", (None,))  # otherwise the front end may be unknown
        known = {key: pair for key, pair in pairs.items() if (hashed if key == "front_end" else None not in pair)}
        different = [f"{key} {other!r} instead of {ours!r}" for key, (ours, other) in known.items() if other != ours]
        if different:
            _warn(f"vectors from another encoder than {self.name} was trained on: {', '.join(different)}.")
        for describe in (describe_unknown_encoder, describe_denoiser_mismatch):
            if isinstance(encoder, EmbeddingStore) and (warning := describe(self.encoder, theirs)):
                _warn(f"{self.name}: {warning}.")

    def adapt(self, vectors: "NDArray[Any] | Tensor | EmbeddingStore", means: int = 1) -> "Enhancer":
        """Return an enhancer for the domain of raw vectors, as `seed enhance --adapt` uses it.

        The mean of the vectors takes the place of the mean of training, see `pipeline.model.adaptation`. No labels are
        needed. Vectors enhanced by different adaptations of one model can be compared, so enrolments and tests from
        different domains can each be adapted. An earlier adaptation is replaced.

        Args:
            vectors: 10 or more raw vectors [..., D], or a store of them; preferably clean and of many speakers.
            means: 2 for a pool of 100 vectors or more from mixed, unknown conditions, such as recent ones of a service:
                each vector is then moved by the mean of its half of the pool, see `adapt_model`.

        Raises:
            VectorError: the vectors are fewer than 10 (100 for two means), have another type or dimension, or hold NaN.
            ConfigError: the model does not know the mean of its training vectors, or, for two means, has no whitening;
                or `means` is neither 1 nor 2.
            StoreError: the store is damaged, or holds enhanced vectors.

        Warns:
            SeedWarning: the vectors are few, vary little, or are not of speech by the model's encoder: the
                strength is then 0, so vectors are returned raw.
        """
        if isinstance(vectors, EmbeddingStore):
            vectors.check_raw()
            self.check(vectors)
            raw = vectors.read()[vectors.ok].reshape(-1, self.dim)
        else:
            rows = self._rows(vectors)
            require_finite(rows, tuple(vectors.shape[:-1]))
            raw = rows.values.cpu().numpy()
        if means not in (1, 2):
            raise ConfigError(f"means is {means!r}, not 1 or 2.")
        model = adapt_model(self.model, raw, self.base_sha256, self.name, means=means)
        if model.adaptation and (problem := model.adaptation.describe_problem()):
            _warn(f"{self.name}: {problem}.")
        return Enhancer(model, self.encoder, timestep=self._timestep, name=self.name, sha256=self.sha256)

    @overload
    def enhance(
        self, x: Array, strength: float | None = None, return_info: Literal[False] = False, on_bad: OnBad = "raise"
    ) -> Array: ...

    @overload
    def enhance(
        self, x: Array, strength: float | None = None, *, return_info: Literal[True], on_bad: OnBad = "raise"
    ) -> tuple[Array, Info]: ...

    def enhance(
        self, x: Array, strength: float | None = None, return_info: bool = False, on_bad: OnBad = "raise"
    ) -> Array | tuple[Array, Info]:
        """Return enhanced vectors of raw ones [..., D], in the same shape and type, on the same device.

        They are computed in float32, in one noise-free step. Compare them with vectors enhanced at the same strength.
        A zero vector (L2 norm below 1e-12) is returned unchanged; one too long for its type is shortened.

        Args:
            x: [D], [B, D], [N, crops, D] or any [..., D], possibly empty: NumPy or torch; float16, bfloat16, float32 or
                float64; exactly as the encoder returns them, neither normalised nor scaled.
            strength: the interpolation weight, 0 (raw) to 1 (enhanced); the enhancer's own if not given.
            return_info: return diagnostics of each vector as well, see `Info`.
            on_bad: treatment of vectors with NaN or infinite values: `raise`, or return them `raw` and flagged.

        Raises:
            VectorError: x has another type or dimension, or holds NaN or infinite values (with `on_bad="raise"`).
            ConfigError: the strength is not from 0 to 1.

        Warns:
            SeedWarning: the median length of the vectors is far from that of training, see `TrainingStats.fences`.
        """
        weight = self.strength if strength is None else float(strength)
        if not 0 <= weight <= 1:
            raise ConfigError(f"strength {strength} is not from 0 (raw) to 1 (enhanced).")
        if on_bad not in ("raise", "raw"):
            raise ConfigError(f"on_bad {on_bad!r} is neither 'raise' nor 'raw'.")
        if weight and weight == self._strength and not return_info and (out := self._single_vector(x)) is not None:
            return out
        rows, shape = self._rows(x), tuple(x.shape[:-1])
        if on_bad == "raise":
            require_finite(rows, shape)
        unusable = unusable_mask(rows)
        if warning := describe_norm_mismatch(self.model.training_stats, rows.norms[~unusable.cpu()]):
            _warn(f"{self.name}: {warning}")
        sampling, device = Sampling(self._timestep, strength=weight), self.model.mean.device.type
        # The arithmetic stays float32 if the caller uses mixed precision.
        float32 = torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()
        with torch.no_grad(), float32:
            batches = torch.split(rows.values, BATCH)
            parts = [self.model(batch, sampling, conditioning=self._conditioning) for batch in batches]
            result = torch.cat(parts) if len(parts) > 1 else parts[0]
            peak = float(result.abs().amax()) if len(result) else 0.0
            if not math.isfinite(peak):
                raise WeightsError(f"{self.name}: returns NaN or infinite vectors. Train the model again.")
            out = restore_like(x, rows, result, peak, weight < 1, unusable if weight else torch.ones_like(unusable))
            return (out, diagnose(self.model, rows, result, weight, shape)) if return_info else out

    def _rows(self, x: "NDArray[Any] | Tensor") -> InputRows:
        return to_rows(x, self.dim, self.model.mean.device)


def _load_model(path_or_uri: "str | os.PathLike[str] | Place", device: torch.device, sha256: str | None) -> ModelFile:
    text = str(path_or_uri)
    if packaged := find_packaged(text):
        sha256 = sha256 or SHA256[text]
        path_or_uri = text = str(packaged)
    if is_url(text) and text.partition("://")[0].lower() in _REMOTE_SCHEMES:
        from pipeline.encoders.weights import find_weights  # imports the download code, which local files do not need

        weights = find_weights(text, sha256)
        if sha256 is None:
            _warn(f"{text}: downloaded without a checksum. To pin the file, pass sha256={weights.sha256!r}.")
        return load_model(weights.path, device)
    loaded = load_model(to_place(os.path.expanduser(text)), device)
    if sha256 is not None and loaded.sha256 != sha256.lower():
        raise WeightsError(f"{text}: has sha256 {loaded.sha256}, expected {sha256}. Get the right file.")
    return loaded


def _warn(text: str) -> None:
    """Warn at the line of the caller outside this package."""
    level, frame = 1, sys._getframe()
    while frame.f_back and frame.f_globals.get("__name__", "").startswith("pipeline."):
        level, frame = level + 1, frame.f_back
    warnings.warn(text, SeedWarning, stacklevel=level)
