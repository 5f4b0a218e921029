"""The enhancement of vectors in somebody else's program: arrays in, arrays out."""

import math
import os
import sys
import warnings
from collections.abc import Mapping
from contextlib import nullcontext
from copy import copy
from typing import Any, Literal, overload

import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.errors import ConfigError, SeedWarning, VectorError, WeightsError
from pipeline.model.apply import BATCH
from pipeline.model.single_vector import SingleVectorPath
from pipeline.model.diagnostics import Info, info, require_finite, unusable_mask
from pipeline.model.diffusion.sampler import Sampling
from pipeline.model.domain import strength_in_domain
from pipeline.model.model_file import (
    TIMESTEP,
    ModelFile,
    describe_denoiser_mismatch,
    describe_unknown_encoder,
    load_model,
)
from pipeline.model.seed_model import SeedModel
from pipeline.model.training_stats import doubt_of_length
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.utils.arrays import Array, InputRows, restore_like, to_rows
from pipeline.utils.device import choose_device
from pipeline.utils.paths import Place, is_url, to_place

_FETCHED = ("http", "https", "hf", "pypi")
_FINGERPRINT = ("family", "weights_sha256", "front_end")


class Enhancer:
    """A trained model that is applied to vectors.

    Nothing of it changes once it is made: any number of threads may use one. The result for a vector depends on that
    vector alone, and not on what else is in the batch, but for the rounding of matrix products (about 1e-6 of its
    length), whose order of sums depends on the batch's size; the same call gives the same bits.
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
        """Args: model: trained, put into evaluation mode; encoder: whose vectors it takes; name: for messages."""
        if not 0 <= timestep < len(model.abar):
            raise ConfigError(f"timestep {timestep}: {name} has those from 0 to {len(model.abar) - 1}.")
        self.model, self.encoder = model.eval().requires_grad_(False), dict(encoder or {})
        self.name, self.sha256 = name, sha256
        self._timestep, self._strength = timestep, round(float(model.strength), 6)
        self._told = self.model.conditioning(timestep)
        self._alone = SingleVectorPath(self.model, Sampling(timestep, strength=self._strength))

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
            path_or_uri: a path, https://…, hf://<owner>/<repository>[@<revision>]/<file> (needs the extra `hub`), or
                another URL that stores may lie at (needs `remote`). What is fetched is kept in `$SEED_CACHE`, else
                `~/.cache/speaker-seed`.
            device: where to compute: auto, cpu, cuda, cuda:<index> or mps.
            sha256: 64 hexadecimal digits that the file must have; without them a fetched file is taken as it comes,
                with a warning.
            encoder: a store, or the attributes of one, of the vectors to be enhanced, see `check`.

        Raises:
            WeightsError: there is no such file, or it is damaged, of another SHA-256, or no SEED model.
            VectorError: the encoder's vectors have another dimension.
            ConfigError: the device is not there.
            PlaceError: a remote place does not answer, or refuses.
        """
        with torch.random.fork_rng(devices=[]):  # a network begins at random, and the caller's draws are the caller's
            loaded = _read(path_or_uri, choose_device(str(device)), sha256)
        made = cls(loaded.model, loaded.encoder, timestep=loaded.timestep, name=str(path_or_uri), sha256=loaded.sha256)
        if encoder is not None:
            made.check(encoder)
        return made

    @property
    def dim(self) -> int:
        """Length of a vector, D."""
        return self.model.dim

    @property
    def strength(self) -> float:
        """How far from raw (0) to enhanced (1) vectors it goes: as training found it, or less, see `for_domain`."""
        return self._strength

    def check(self, encoder: EmbeddingStore | Mapping[str, Any]) -> None:
        """Warn if vectors are of another encoder than the model's, as far as both sides say.

        Args:
            encoder: a store of the vectors, or its attributes: `dim`, `family`, `weights_sha256`, `front_end`.

        Raises:
            VectorError: they have another dimension.
        """
        theirs = encoder.attributes if isinstance(encoder, EmbeddingStore) else encoder
        if theirs.get("dim", self.dim) != self.dim:
            raise VectorError(f"vectors have {theirs['dim']} numbers, but {self.name} takes {self.dim} of its encoder.")
        pairs = {key: (self.encoder[key], theirs[key]) for key in _FINGERPRINT if key in theirs and key in self.encoder}
        sure = None not in pairs.get("weights_sha256", (None,))  # else nothing may be known of the front end
        known = {key: pair for key, pair in pairs.items() if (sure if key == "front_end" else None not in pair)}
        other = [f"{key} {there!r} instead of {ours!r}" for key, (ours, there) in known.items() if there != ours]
        if other:
            _warn(f"vectors of another encoder than {self.name} was trained on: {', '.join(other)}.")
        for doubt in (describe_unknown_encoder, describe_denoiser_mismatch):
            if isinstance(encoder, EmbeddingStore) and (said := doubt(self.encoder, theirs)):
                _warn(f"{self.name}: {said}.")

    def for_domain(self, vectors: "NDArray[Any] | Tensor | EmbeddingStore") -> "Enhancer":
        """Return one whose strength is lowered where speech is unlike training, to 0 at last, as `seed enhance` does.

        A single vector does not tell of what kind speech is, so it is asked of a set, best of clean enrolments, and
        answered once for all vectors that will be compared. See `pipeline.model.domain`.

        Args:
            vectors: raw ones [..., D], or a store of them.

        Raises:
            VectorError: they are of another type or dimension, or hold NaN.
            StoreError: the store is damaged, or holds enhanced vectors.

        Warns:
            SeedWarning: there are no vectors, or the store's are of another encoder.
        """
        if isinstance(vectors, EmbeddingStore):
            vectors.check_raw()
            self.check(vectors)
            raw = vectors.read()[vectors.ok].reshape(-1, self.dim)
        else:
            rows = self._rows(vectors)
            require_finite(rows, tuple(vectors.shape[:-1]))
            raw = rows.values.cpu().numpy()
        made = copy(self)
        made._strength, atypicality = strength_in_domain(self.model, raw)
        if math.isinf(atypicality):
            _warn(f"{self.name}: no vectors to say what kind of speech it is; at strength 0, all come back raw.")
        made._alone = SingleVectorPath(self.model, Sampling(self._timestep, strength=made._strength))
        return made

    @overload
    def enhance(
        self,
        x: Array,
        strength: float | None = None,
        return_info: Literal[False] = False,
        on_bad: Literal["raise", "raw"] = "raise",
    ) -> Array: ...

    @overload
    def enhance(
        self,
        x: Array,
        strength: float | None = None,
        *,
        return_info: Literal[True],
        on_bad: Literal["raise", "raw"] = "raise",
    ) -> tuple[Array, Info]: ...

    def enhance(
        self,
        x: Array,
        strength: float | None = None,
        return_info: bool = False,
        on_bad: Literal["raise", "raw"] = "raise",
    ) -> Array | tuple[Array, Info]:
        """Return enhanced vectors of raw ones [..., D], in the same shape and type, on the same device.

        They are computed in float32, in one noise-free step. Compare them with vectors enhanced at the same strength.
        A vector of zeros (L2 norm below 1e-12) comes back as it is; one too long for its type is shortened.

        Args:
            x: [D], [B, D], [N, crops, D] or any [..., D], also of no vectors: NumPy or torch; float16, bfloat16,
                float32 or float64; as the encoder gave them, neither normalised nor scaled.
            strength: 0 (raw) to 1 (all of the way), by default that of the enhancer.
            return_info: whether to return what is known of each vector as well, see `Info`.
            on_bad: what to do about vectors with NaN or infinite values: `raise`, or hand them back `raw`, flagged.

        Raises:
            VectorError: x is of another type or dimension, or holds NaN or infinite values (with `on_bad="raise"`).
            ConfigError: the strength is not from 0 to 1.

        Warns:
            SeedWarning: the median length of the vectors is beyond those of training by far, see `Bounds.fences`.
        """
        share = self.strength if strength is None else float(strength)
        if not 0 <= share <= 1:
            raise ConfigError(f"strength {strength} is not from 0 (raw) to 1 (all of the way).")
        if on_bad not in ("raise", "raw"):
            raise ConfigError(f"on_bad {on_bad!r} is neither 'raise' nor 'raw'.")
        if share and share == self._strength and not return_info and (done := self._alone(x)) is not None:
            return done
        rows, shape = self._rows(x), tuple(x.shape[:-1])
        if on_bad == "raise":
            require_finite(rows, shape)
        kept = unusable_mask(rows)
        if doubt := doubt_of_length(self.model.training_stats, rows.norms[~kept.cpu()]):
            _warn(f"{self.name}: {doubt}")
        how = Sampling(self._timestep, strength=share)
        # Of a caller who is in the middle of a mixed-precision step, the arithmetic here is float32 all the same.
        kind = self.model.mean.device.type
        exact = torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()
        with torch.no_grad(), exact:
            parts = [self.model(part, how, told=self._told) for part in torch.split(rows.values, BATCH)]
            result = torch.cat(parts) if len(parts) > 1 else parts[0]
            peak = float(result.abs().amax()) if len(result) else 0.0
            if not math.isfinite(peak):
                raise WeightsError(f"{self.name}: gives NaN or infinite vectors. Train the model again.")
            out = restore_like(x, rows, result, peak, share < 1, kept if share else torch.ones_like(kept))
            return (out, info(self.model, rows, result, share, shape)) if return_info else out

    def _rows(self, x: "NDArray[Any] | Tensor") -> InputRows:
        return to_rows(x, self.dim, self.model.mean.device)


def _read(path_or_uri: "str | os.PathLike[str] | Place", device: torch.device, sha256: str | None) -> ModelFile:
    text = str(path_or_uri)
    if is_url(text) and text.partition("://")[0].lower() in _FETCHED:
        from pipeline.encoders.weights import find_weights  # and with it what talks to servers

        found = find_weights(text, sha256)
        if sha256 is None:
            _warn(f"{text}: taken as it came. To be sure that it stays the same, give sha256={found.sha256!r}.")
        return load_model(found.path, device)
    loaded = load_model(to_place(os.path.expanduser(text)), device)
    if sha256 is not None and loaded.sha256 != sha256.lower():
        raise WeightsError(f"{text}: has sha256 {loaded.sha256}, expected {sha256}. Get the right file.")
    return loaded


def _warn(text: str) -> None:
    """Warn of what somebody else's code gave, at its own line."""
    level, frame = 1, sys._getframe()
    while frame.f_back and frame.f_globals.get("__name__", "").startswith("pipeline."):
        level, frame = level + 1, frame.f_back
    warnings.warn(text, SeedWarning, stacklevel=level)
