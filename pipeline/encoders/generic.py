"""Networks that come as files: TorchScript and ONNX, behind a front-end that params.yaml declares.

A TorchScript file is a program that runs with all rights of this process; load only what you trust, and pin it by its
SHA-256. An ONNX file only computes.
"""

import threading
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from pipeline.config.encoder import EncoderDefinition, WaveformInput
from pipeline.encoders.encoder import Network
from pipeline.encoders.family import Extra
from pipeline.encoders.features import SAMPLE_RATE
from pipeline.encoders.front_end import build_front_end, min_front_end_samples
from pipeline.errors import ConfigError, SeedError, WeightsError

MIN_SAMPLES = 8000
"""Shortest wave of a file that declares none, 0.5 s; shorter ones are repeated up to that."""
TOLERANCE = 1e-3
"""By how much of the largest value two runs over the same features may differ."""


class GenericNetwork(Network):
    """A front-end, and a file that gives one embedding for each row of its only input.

    The embedding is the file's first output: [B, D], [B, 1, D] or [B, D, 1]. Loading probes it with noise: that finds
    `dim`, and that it takes waves of `min_samples`. A file that takes one row only gets the rows one by one.
    """

    extra: ClassVar[Extra | None] = None
    """The optional dependency that runs the file."""

    def __init__(self, path: Path, definition: EncoderDefinition, name: str) -> None:
        """Open a file and probe it.

        Args:
            path: the file.
            definition: its front-end, and its shortest wave if that is not `MIN_SAMPLES`.
            name: of the encoder, for messages.
        """
        super().__init__()
        declared = definition.front_end
        if declared is None:
            raise ConfigError(
                f"encoder {name}: family {definition.family} needs to know what the file takes; write front_end: with"
                f" kind: waveform, kaldi_fbank or log_mel and its parameters in params.yaml under encoder.{name}."
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
        """Return what the file takes of waves [B, S]: [B, S], [B, T, mels] or [B, mels, T], as declared."""
        return self.front_end(waves)

    def embed(self, features: Tensor) -> Tensor:
        """Return float32 embeddings [B, dim] of features [B, ...]."""
        if self.one_by_one:
            return torch.cat([self._embed(row) for row in torch.split(features, 1)])
        return self._embed(features)

    @abstractmethod
    def _open(self) -> None:
        """Open the file, and say so if it cannot be the right one."""

    @abstractmethod
    def _run(self, features: Tensor) -> object:
        """Return what the file gives for features [B, ...], on their device."""

    def _embed(self, features: Tensor) -> Tensor:
        """Return embeddings [B, D] of features [B, ...] that go through together."""
        given = f"for features {list(features.shape)}"
        try:
            output = self._run(features)
        except (SeedError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # whatever the file's own code raises
            raise self._fault(
                f"fails {given}: {_summarise_error(error)}", "correct front_end and min_samples, or export it anew"
            ) from error
        if isinstance(output, (tuple, list)) and output:
            output = output[0]
        if not isinstance(output, Tensor):
            raise self._fault(f"gives a {type(output).__name__}", "export it with the embedding as its first output")
        shape = list(output.shape)
        if output.ndim == 3 and 1 in shape[1:]:
            output = output.flatten(1)
        if output.ndim != 2 or len(output) != len(features):
            raise self._fault(
                f"gives {shape} {given} where [{len(features)}, dim] should be",
                "export it with the embedding as its first output",
            )
        return output.float()

    @torch.no_grad()
    def _probe(self) -> None:
        """Find `dim`, and whether rows can go together; refuse a file that would only fail later."""
        noise = torch.randn(2, max(SAMPLE_RATE, self.min_samples), generator=torch.Generator().manual_seed(0))
        features = self.exact_features(0.1 * noise)
        rows = [self._embed(row) for row in torch.split(features, 1)]
        self.dim = rows[0].shape[1]
        short = self._embed(self.exact_features(0.1 * noise[:1, : self.min_samples]))
        if short.shape[1] != self.dim:
            raise self._fault(
                f"gives {self.dim} values for {noise.shape[1]} samples, but {short.shape[1]} for {self.min_samples}",
                "export it with the embedding of the whole utterance as its first output",
            )
        if not all(torch.isfinite(row).all() for row in (*rows, short)):
            raise self._fault("gives NaN or infinite values for noise", "correct front_end, or raise min_samples")
        if not _all_close(self._embed(features[:1]), rows[0]):
            raise self._fault("gives another embedding every time", "export it in evaluation mode, without dropout")
        self.one_by_one = self.one_by_one or not self._takes_both(features, torch.cat(rows))

    def _takes_both(self, features: Tensor, alone: Tensor) -> bool:
        """Return whether two rows together give what each gives alone."""
        try:
            return _all_close(self._embed(features), alone)
        except WeightsError:
            return False

    def _fault(self, what: str, advice: str) -> WeightsError:
        return WeightsError(f"encoder {self.name}: {self.path} {what}; {advice}")


class TorchScriptNetwork(GenericNetwork):
    """A file of torch.jit.save; it is a program, so that it must be trusted."""

    def _open(self) -> None:
        try:
            self.module = torch.jit.load(str(self.path), map_location="cpu").eval()  # type: ignore[no-untyped-call]
        except Exception as error:  # a damaged archive raises nearly anything
            raise self._fault(
                f"cannot be read as TorchScript ({_summarise_error(error)})",
                "get it again, or save the scripted or traced module with torch.jit.save",
            ) from error

    def _run(self, features: Tensor) -> object:
        # Unoptimised, as else the first runs are profiled and later ones fused: values would depend on their number.
        with torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
            return self.module(features)


class OnnxNetwork(GenericNetwork):
    """An ONNX file in ONNX Runtime, with as many threads as torch had at loading; its precision is the file's."""

    extra = Extra("onnx", "onnxruntime")

    def _open(self) -> None:
        self._lock = threading.Lock()
        self._device = torch.device("cpu")
        self._session = self._start(self._device)
        inputs = self._session.get_inputs()
        if len(inputs) != 1:
            names = ", ".join(entry.name for entry in inputs) or "none"
            raise self._fault(f"has {len(inputs)} inputs ({names})", "export it with one, the features of a batch")
        (self._input,) = inputs
        shape = self._input.shape
        if self._input.type != "tensor(float)":
            raise self._fault(f"takes {self._input.type}", "export it with a float32 input")
        if len(shape) != self.rank:
            raise self._fault(
                f"takes {shape}, but its front_end gives {self.rank} axes", "correct front_end, or export it anew"
            )
        if isinstance(shape[0], int) and shape[0] != 1:
            raise self._fault(
                f"takes batches of {shape[0]} only", "export it with a dynamic first axis, or a batch of 1"
            )
        self.one_by_one = shape[0] == 1

    def _run(self, features: Tensor) -> object:
        session = self._session_on(features.device)
        array = features.detach().float().contiguous().cpu().numpy()
        (output,) = session.run([session.get_outputs()[0].name], {self._input.name: array})
        return torch.from_numpy(output).to(features.device) if isinstance(output, np.ndarray) else output

    def _session_on(self, device: torch.device) -> Any:
        """Return the session, opened again if the network has moved to or from a GPU; its `run` is thread-safe."""
        with self._lock:
            if device != self._device and "cuda" in (device.type, self._device.type):
                self._session, self._device = self._start(device), device
            return self._session

    def _start(self, device: torch.device) -> Any:
        """Return an InferenceSession on a device; all but CUDA means the CPU."""
        try:
            import onnxruntime
        except ImportError:
            raise ConfigError(
                f"encoder {self.name}: family onnx needs onnxruntime; pip install 'speaker-seed[onnx]'."
            ) from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
        options.use_deterministic_compute = True
        options.log_severity_level = 4  # what fails is raised, and said once
        # Tensors in files beside this one would escape its SHA-256. They are looked for where no folder can be.
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(self.path))
        providers: list[str | tuple[str, Mapping[str, Any]]] = ["CPUExecutionProvider"]
        if device.type == "cuda":
            providers.insert(0, ("CUDAExecutionProvider", {"device_id": device.index or 0}))
            if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
                raise self._no_cuda()
        try:
            session = onnxruntime.InferenceSession(str(self.path), options, providers=providers)
        except Exception as error:  # its exceptions have no common base
            raise self._fault(
                f"cannot be read as ONNX ({_summarise_error(error)})",
                "get it again, or export it with its weights inside",
            ) from error
        if device.type == "cuda" and "CUDAExecutionProvider" not in session.get_providers():
            raise self._no_cuda()
        return session

    def _no_cuda(self) -> ConfigError:
        return ConfigError(
            f"encoder {self.name}: this onnxruntime cannot use CUDA; install onnxruntime-gpu in its place, or set"
            " device: cpu."
        )


GENERIC: Mapping[str, type[GenericNetwork]] = {"torchscript": TorchScriptNetwork, "onnx": OnnxNetwork}
"""Families of files."""


def load_generic(family: str, path: Path, definition: EncoderDefinition, name: str) -> Network:
    """Return a network from a TorchScript or ONNX file, probed.

    Args:
        family: a key of `GENERIC`.
        path: the file; a TorchScript one is run, so that it must be trusted.
        definition: its front-end and shortest wave.
        name: of the encoder, for messages.

    Raises:
        ConfigError: no front-end is declared, or it contradicts itself; or onnxruntime is missing.
        WeightsError: the file cannot be read, takes something else, or gives no embeddings.
    """
    return GENERIC[family](path, definition, name)


def _all_close(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool(((a - b).abs() <= TOLERANCE * b.abs().max()).all())


def _summarise_error(error: Exception) -> str:
    """Return the one line of an error that says most; TorchScript puts it last, after the program's own lines."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    told = next((line for line in reversed(lines) if "Error: " in line), lines[0])
    return told.partition(". This is an internal miniz error")[0].rstrip(".")[:200]
