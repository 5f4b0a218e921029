"""Trained models as one file for programs without this library: raw embeddings in, enhanced ones out."""

import io
import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path, PurePath

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.errors import ConfigError, ExportError, OutputError
from pipeline.model.apply import AS_TRAINED, check_sampling
from pipeline.model.compiled import TRACED, Way, traced
from pipeline.model.diffusion.sampler import Sampling
from pipeline.model.model_file import ModelFile, load_model
from pipeline.utils.atomic import check_output, replacing
from pipeline.utils.onnx import OPSET, check_onnx, onnx_bytes, quiet, root_cause, run_onnx
from pipeline.utils.paths import Place

FORMATS = {".onnx": "onnx", ".pt": "torchscript"}
"""By suffix."""
INPUT, OUTPUT = "embeddings", "enhanced"
"""Names of an ONNX file's input and output."""
PROPERTIES = "seed.json"
"""Name of what is said of a model in a TorchScript file."""
TOLERANCE = 1e-5
"""By how much of the largest value an exported file may differ from torch."""
_CHECKED = (1, 2, 257)
"""Embeddings in a batch."""

Vectors = NDArray[np.float32]


def export_model(path: Place, out: Place, form: str | None = None, how: Sampling = AS_TRAINED) -> dict[str, str]:
    """Write a model to an ONNX or TorchScript file that maps raw embeddings [B, D] to enhanced ones [B, D], float32.

    Everything between is in the file: preconditioner, scale, the noise-free way back with its timesteps fixed, and the
    way between raw and enhanced embeddings. What is not is whether the model may be trusted with some kind of speech
    (`pipeline.model.domain`): the strength is the model's own, or that of `how`. The file is checked against torch, and
    appears only if it agrees.

    Args:
        path: of the model.
        out: the file to write.
        form: onnx or torchscript; by the suffix of `out` if not given.
        how: timestep, steps and strength.

    Returns:
        What the file says of itself.

    Raises:
        ConfigError: the form is unknown, the extra `onnx` is missing, or the model cannot enhance in this way.
        ExportError: there is noise in the way, or the file gives something else than the model.
        OutputError: `out` is the model, or no regular file.
        WeightsError: the model cannot be read.
    """
    form = form or export_format(out)
    check_output(out)
    if form == "onnx":
        check_onnx()
    if out.resolve() == path.resolve():
        raise OutputError(f"{out}: is the model to export; give another place for the file.")
    loaded = load_model(path)
    check_sampling(loaded.model, how, path)
    if how.noise:
        raise ExportError(
            f"{path}: cannot be exported with draws of noise (enhance.noise {how.noise}), as a file gives the same for"
            " the same input. Set enhance.noise to 0, and enhance.eta as well."
        )
    if how.strength is None:
        how = replace(how, strength=round(float(loaded.model.strength), 6))
    way, properties = Way(loaded.model, how).eval(), _properties(loaded, how)
    with replacing(out) as temporary:
        try:
            temporary.write_bytes(_WRITERS[form](way, properties))
            fault = _difference(way, _READERS[form](temporary))
        except Exception as error:  # exporters and runtimes raise anything
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise ExportError(f"{path}: cannot be exported to {out}: {root_cause(error)}") from error
        if fault:
            raise ExportError(f"{path}: was not exported to {out}, as the file gave {fault}.")
    return properties


def export_format(out: PurePath | Place) -> str:
    """Return the form of a file by its suffix; ConfigError if it says none."""
    try:
        return FORMATS[out.suffix.lower()]
    except KeyError:
        raise ConfigError(f"{out}: no form has this suffix. Name it ….onnx or ….pt, or give --format.") from None


def _properties(loaded: ModelFile, how: Sampling) -> dict[str, str]:
    """Return what a file says of its model; what is not known of the encoder is left out."""
    encoder = {key: value for key, value in loaded.encoder.items() if value is not None}
    facts = {
        **encoder,
        "objective": loaded.model.settings.objective,
        "strength": how.strength,
        "timestep": how.timestep,
        "steps": how.steps,
        "spacing": how.spacing,
        "model_sha256": loaded.sha256,
    }
    return {key: value if isinstance(value, str) else json.dumps(value, sort_keys=True) for key, value in facts.items()}


def _onnx(way: Way, properties: Mapping[str, str]) -> bytes:
    said = {**properties, "opset": str(OPSET)}
    return onnx_bytes(way, way.example(TRACED), (INPUT, OUTPUT), {0: "batch"}, said)


def _torchscript(way: Way, properties: Mapping[str, str]) -> bytes:
    file = io.BytesIO()
    with quiet():
        torch.jit.save(traced(way), file, _extra_files={PROPERTIES: json.dumps(properties, sort_keys=True)})
    return _without_origin(file)


def _without_origin(file: io.BytesIO) -> bytes:
    """Return an archive without what it notes of the code it came from: paths and lines of this machine."""
    cleaned = io.BytesIO()
    with zipfile.ZipFile(file) as archive, zipfile.ZipFile(cleaned, "w") as kept:
        for entry in archive.infolist():
            if not entry.filename.endswith(".debug_pkl"):
                kept.writestr(entry, archive.read(entry))
    return cleaned.getvalue()


def _read_onnx(path: Path) -> Callable[[Vectors], Vectors]:
    return lambda vectors: run_onnx(path, vectors)


def _read_torchscript(path: Path) -> Callable[[Vectors], Vectors]:
    with quiet():
        module = torch.jit.load(str(path))  # type: ignore[no-untyped-call]

    def run(vectors: Vectors) -> Vectors:
        with torch.no_grad():
            return np.asarray(module(torch.from_numpy(vectors)).numpy())

    return run


_WRITERS = {"onnx": _onnx, "torchscript": _torchscript}
_READERS = {"onnx": _read_onnx, "torchscript": _read_torchscript}


@torch.no_grad()
def _difference(way: Way, run: Callable[[Vectors], Vectors]) -> str | None:
    """Return what is wrong with a file's embeddings, if anything is."""
    for count in _CHECKED:
        raw = way.example(count)
        expected, found = way(raw).numpy(), run(raw.numpy())
        if found.shape != expected.shape or found.dtype != np.float32:
            return f"{list(found.shape)} {found.dtype} instead of {list(expected.shape)} float32"
        error = float(np.abs(found - expected).max() / np.abs(expected).max())
        if not error <= TOLERANCE:
            return f"values {error:.1e} off for {count} embeddings"
    return None
