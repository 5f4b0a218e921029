"""Networks from files of any architecture, and from TorchScript, behind a front-end that params.yaml declares."""

from abc import abstractmethod
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from pipeline.config.encoder import EncoderDefinition, WaveformInput
from pipeline.encoders.encoder import Network
from pipeline.encoders.family import Extra
from pipeline.encoders.features import SAMPLE_RATE
from pipeline.encoders.front_end import build_front_end, min_front_end_samples
from pipeline.errors import ConfigError, SeedError, WeightsError
from pipeline.utils.shortage import raise_shortage

MIN_SAMPLES = 8000
"""Default of the shortest wave in samples, 0.5 s; shorter ones are repeated up to that."""
TOLERANCE = 1e-3
"""Largest difference of two runs over the same features, relative to the largest value."""


class GenericNetwork(Network):
    """A front-end, and a file that returns one embedding for each row of its only input.

    The embedding is the first output of the file: [B, D], [B, 1, D] or [B, D, 1]. Loading probes the file with noise to
    find `dim`, and to check that it accepts waves of `min_samples`. A file with a batch size of 1 gets the rows one by
    one.
    """

    extra: ClassVar[Extra | None] = None
    """Optional dependency that runs the file."""

    def __init__(self, path: Path, definition: EncoderDefinition, name: str) -> None:
        """Open a file and probe it; messages give the encoder's name.

        Raises:
            ConfigError: the front-end is missing or contradictory, or onnxruntime is missing.
            WeightsError: the file is unreadable, has another input, or returns no embeddings.
        """
        super().__init__()
        declared = definition.front_end
        if declared is None:
            raise ConfigError(
                f"encoder {name}: family {definition.family} needs the input of the file; write front_end: with kind:"
                f" waveform, kaldi_fbank or log_mel and its parameters in params.yaml under encoder.{name}."
            )
        self.path, self.name = path, name
        self.front_end = build_front_end(declared, name)
        self.rank = 2 if isinstance(declared, WaveformInput) else 3
        least = min_front_end_samples(declared)
        self.min_samples = definition.min_samples or max(MIN_SAMPLES, least)
        if self.min_samples < least:
            raise ConfigError(
                f"encoder {name}: min_samples is {self.min_samples}, but its front_end needs {least} samples; raise it."
            )
        self.one_by_one = False
        self._open()
        self._probe()

    def features(self, waves: Tensor) -> Tensor:
        """Return the input of the file for waves [B, S]: [B, S], [B, T, mels] or [B, mels, T], as declared."""
        return self.front_end(waves)

    def embed(self, features: Tensor) -> Tensor:
        """Return float32 embeddings [B, dim] of features [B, ...]."""
        if self.one_by_one:
            return torch.cat([self._embed(row) for row in torch.split(features, 1)])
        return self._embed(features)

    @abstractmethod
    def _open(self) -> None:
        """Open the file, and check that it has the right input."""

    @abstractmethod
    def _run(self, features: Tensor) -> object:
        """Return the output of the file for features [B, ...], on their device."""

    def _embed(self, features: Tensor) -> Tensor:
        """Return embeddings [B, D] of features [B, ...] in one batch."""
        shapes = f"for features {list(features.shape)}"
        try:
            output = self._run(features)
        except (SeedError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # the code of the file may raise anything
            raise_shortage(error, self.path)
            raise self._fault(
                f"fails {shapes}: {summarise_error(error)}", "correct front_end and min_samples, or export it again"
            ) from error
        if isinstance(output, (tuple, list)) and output:
            output = output[0]
        if not isinstance(output, Tensor):
            raise self._fault(f"returns a {type(output).__name__}", "export it with the embedding as its first output")
        shape = list(output.shape)
        if output.ndim == 3 and 1 in shape[1:]:
            output = output.flatten(1)
        if output.ndim != 2 or len(output) != len(features):
            problem = f"returns {shape} {shapes} where [{len(features)}, dim] should be"
            raise self._fault(problem, "export it with the embedding as its first output")
        return output.float()

    @torch.no_grad()
    def _probe(self) -> None:
        """Find `dim` and the batch size, and refuse a file that would fail later."""
        noise = torch.randn(2, max(SAMPLE_RATE, self.min_samples), generator=torch.Generator().manual_seed(0))
        features = self.exact_features(0.1 * noise)
        rows = [self._embed(row) for row in torch.split(features, 1)]
        self.dim = rows[0].shape[1]
        short = self._embed(self.exact_features(0.1 * noise[:1, : self.min_samples]))
        if short.shape[1] != self.dim:
            raise self._fault(
                f"returns {self.dim} values for {noise.shape[1]} samples, but {short.shape[1]} for {self.min_samples}",
                "export it with the embedding of the whole utterance as its first output",
            )
        if not all(torch.isfinite(row).all() for row in (*rows, short)):
            raise self._fault("returns NaN or infinite values for noise", "correct front_end, or raise min_samples")
        if not _all_close(self._embed(features[:1]), rows[0]):
            raise self._fault("returns another embedding every time", "export it in evaluation mode, without dropout")
        try:
            self.one_by_one = self.one_by_one or not _all_close(self._embed(features), torch.cat(rows))
        except WeightsError:
            self.one_by_one = True

    def _fault(self, problem: str, advice: str) -> WeightsError:
        return WeightsError(f"encoder {self.name}: {self.path} {problem}; {advice}")


class TorchScriptNetwork(GenericNetwork):
    """A file of torch.jit.save: a program that runs with all rights of this process.

    Load only files that you trust, and pin them by SHA-256.
    """

    def _open(self) -> None:
        try:
            self.module = torch.jit.load(str(self.path), map_location="cpu").eval()  # type: ignore[no-untyped-call]
        except Exception as error:  # a damaged archive may raise anything
            raise_shortage(error, self.path)
            raise self._fault(
                f"cannot be read as TorchScript ({summarise_error(error)})",
                "download it again, or save the scripted or traced module with torch.jit.save",
            ) from error

    def _run(self, features: Tensor) -> object:
        # Unoptimised, because torch profiles the first runs and fuses later ones, which would change values.
        with torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
            return self.module(features)


def _all_close(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool(((a - b).abs() <= TOLERANCE * b.abs().max()).all())


def summarise_error(error: Exception) -> str:
    """Return the most informative line of an error; TorchScript puts it last, after lines of the program."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    message = next((line for line in reversed(lines) if "Error: " in line), lines[0])
    return message.partition(". This is an internal miniz error")[0].rstrip(".")[:200]
