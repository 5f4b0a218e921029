"""Export trained models as one file for programs without this library: raw embeddings in, enhanced embeddings out."""

import io
import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path, PurePath

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.errors import ConfigError, ExportError, OutputError
from pipeline.model.apply import AS_TRAINED, check_sampling
from pipeline.model.diffusion.sampler import Sampling
from pipeline.model.model_file import ModelFile, load_model
from pipeline.model.seed_model import SeedModel
from pipeline.utils.atomic import check_output, replacing
from pipeline.utils.device import default_float32_cpu
from pipeline.utils.onnx import OPSET, check_onnx, onnx_bytes, quiet, root_cause, run_onnx
from pipeline.utils.paths import Place
from pipeline.utils.shortage import raise_shortage

FORMATS = {".onnx": "onnx", ".pt": "torchscript"}
"""Formats by suffix."""
INPUT, OUTPUT = "embeddings", "enhanced"
"""Names of an ONNX file's input and output."""
PROPERTIES = "seed.json"
"""Name of the model's description in a TorchScript file."""
TOLERANCE = 1e-5
"""Largest difference between an exported file and torch, relative to the largest value."""
_TRACED_BATCH = 3
"""Number of embeddings in the batch that is traced; the file accepts any number."""
_CHECKED_BATCHES = (1, 2, 257)
"""Numbers of embeddings in the batches that are compared."""

Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""A function from raw to enhanced embeddings [B, D]."""


class ExportModule(nn.Module):
    """A model with fixed sampling, as a module of one input and one output."""

    def __init__(self, model: SeedModel, sampling: Sampling) -> None:
        super().__init__()
        self.model, self.sampling = model, sampling

    def forward(self, embeddings: Tensor) -> Tensor:
        """Return enhanced embeddings [B, D] of raw ones."""
        enhanced: Tensor = self.model(embeddings, self.sampling)
        return enhanced

    def example(self, count: int) -> Tensor:
        """Return random embeddings [count, D]."""
        return torch.randn(count, self.model.dim, generator=torch.Generator().manual_seed(count))


def export_model(path: Place, out: Place, form: str | None = None, sampling: Sampling = AS_TRAINED) -> dict[str, str]:
    """Write a model to an ONNX or TorchScript file that maps raw embeddings [B, D] to enhanced ones [B, D], float32.

    The file holds the whole computation: preconditioning, scaling, the noise-free reverse process at fixed timesteps,
    and the interpolation between raw and enhanced embeddings. It does not check whether speech is in domain
    (`pipeline.model.domain`): the strength is the model's own, or that of `sampling`. The file is compared with torch
    and appears only if the two agree.

    Args:
        path: the model file.
        out: the file to write.
        form: onnx or torchscript; inferred from the suffix of `out` if not given.
        sampling: timestep, steps and strength.

    Returns:
        The description that is stored in the file.

    Raises:
        ConfigError: the form is unknown, the extra `onnx` is missing, or the model does not support the sampling.
        ExportError: the sampling draws noise, or the file gives other values than the model.
        OutputError: `out` is the model, or no regular file.
        WeightsError: the model cannot be read.
    """
    form = form or export_format(out)
    check_output(out)
    if form == "onnx":
        check_onnx()
    if out.resolve() == path.resolve():
        raise OutputError(f"{out}: is the model to export; give another path for the file.")
    loaded = load_model(path)
    check_sampling(loaded.model, sampling, path)
    if sampling.noise:
        raise ExportError(
            f"{path}: cannot be exported with draws of noise (enhance.noise {sampling.noise}), because a file gives the"
            " same output for the same input. Set enhance.noise and enhance.eta to 0."
        )
    if sampling.strength is None:
        sampling = replace(sampling, strength=round(loaded.model.default_strength, 6))
    module, properties = ExportModule(loaded.model, sampling).eval(), _properties(loaded, sampling)
    with replacing(out) as temporary:
        try:
            temporary.write_bytes(_WRITERS[form](module, properties))
            difference = _find_difference(module, _READERS[form](temporary))
        except Exception as error:  # exporters and runtimes raise anything
            raise_shortage(error, out)
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise ExportError(f"{path}: cannot be exported to {out}: {root_cause(error)}") from error
        if difference:
            raise ExportError(f"{path}: was not exported to {out}, because the file gave {difference}.")
    return properties


def export_format(out: PurePath | Place) -> str:
    """Return the format of a file by its suffix; raise ConfigError if the suffix is unknown."""
    try:
        return FORMATS[out.suffix.lower()]
    except KeyError:
        raise ConfigError(
            f"{out}: no export format has this suffix. Name it ….onnx or ….pt, or give --format."
        ) from None


def _properties(loaded: ModelFile, sampling: Sampling) -> dict[str, str]:
    """Return the description of a model; unknown facts about the encoder are left out."""
    encoder = {key: value for key, value in loaded.encoder.items() if value is not None}
    used = {name: getattr(sampling, name) for name in ("strength", "timestep", "steps", "spacing")}
    facts = {**encoder, "objective": loaded.model.settings.objective, **used, "model_sha256": loaded.sha256}
    return {key: value if isinstance(value, str) else json.dumps(value, sort_keys=True) for key, value in facts.items()}


def _onnx(module: ExportModule, properties: Mapping[str, str]) -> bytes:
    metadata = {**properties, "opset": str(OPSET)}
    return onnx_bytes(module, module.example(_TRACED_BATCH), (INPUT, OUTPUT), {0: "batch"}, metadata)


def _torchscript(module: ExportModule, properties: Mapping[str, str]) -> bytes:
    """Return a TorchScript file; whatever depends on timesteps alone is computed here and stored as a constant."""
    file = io.BytesIO()
    with quiet(), default_float32_cpu(), torch.no_grad():
        traced = torch.jit.trace(module, module.example(_TRACED_BATCH), check_trace=False)  # type: ignore[no-untyped-call]
        frozen = torch.jit.freeze(traced)
        torch.jit.save(frozen, file, _extra_files={PROPERTIES: json.dumps(properties, sort_keys=True)})
    return _strip_origin(file)


def _strip_origin(file: io.BytesIO) -> bytes:
    """Return an archive without its debug records: paths and line numbers on this machine."""
    stripped = io.BytesIO()
    with zipfile.ZipFile(file) as archive, zipfile.ZipFile(stripped, "w") as kept:
        for entry in archive.infolist():
            if not entry.filename.endswith(".debug_pkl"):
                kept.writestr(entry, archive.read(entry))
    return stripped.getvalue()


def _read_onnx(path: Path) -> Run:
    return lambda vectors: run_onnx(path, vectors)


def _read_torchscript(path: Path) -> Run:
    with quiet():
        module = torch.jit.load(str(path))  # type: ignore[no-untyped-call]

    def run(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.no_grad():
            return np.asarray(module(torch.from_numpy(vectors)).numpy())

    return run


_WRITERS = {"onnx": _onnx, "torchscript": _torchscript}
_READERS = {"onnx": _read_onnx, "torchscript": _read_torchscript}


@torch.no_grad()
def _find_difference(module: ExportModule, run: Run) -> str | None:
    """Describe how a file's output differs from the module's; None if the two agree."""
    for count in _CHECKED_BATCHES:
        raw = module.example(count)
        expected, actual = module(raw).numpy(), run(raw.numpy())
        if actual.shape != expected.shape or actual.dtype != np.float32:
            return f"{list(actual.shape)} {actual.dtype} instead of {list(expected.shape)} float32"
        error = float(np.abs(actual - expected).max() / np.abs(expected).max())
        if not error <= TOLERANCE:
            return f"values {error:.1e} off for {count} embeddings"
    return None
