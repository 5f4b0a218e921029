"""Room responses from SOFA files (AES69), the HDF5 format in which measured rooms are published."""

from pathlib import Path

import h5py
import numpy as np
import soxr
from numpy.typing import NDArray

from pipeline.audio.reading import SAMPLE_RATE
from pipeline.errors import AudioError
from pipeline.utils.hdf5 import UnsafeEntryError, has_entry, open_entry
from pipeline.utils.shortage import SCARCE, raise_shortage

SUFFIX = ".sofa"


def count_responses(path: Path) -> int:
    """Return the number of responses of a file, one for every measurement and receiver.

    Raises:
        AudioError: the file is missing, damaged, or holds no impulse responses.
    """
    with _open(path) as file:
        measurements, receivers, _ = _open_dataset(file, path, "Data.IR").shape
    return int(measurements * receivers)


def read_responses(path: Path, sample_rate: int = SAMPLE_RATE) -> NDArray[np.float32]:
    """Return all responses [measurement * receiver, taps] at `sample_rate` Hz, grouped by measurement.

    Raises:
        AudioError: see `count_responses`; or they are NaN, infinite or all zero.
    """
    with _open(path) as file:
        values = np.asarray(_open_dataset(file, path, "Data.IR"), dtype=np.float32)
        rates = np.ravel(_open_dataset(file, path, "Data.SamplingRate"))
    if rates.dtype.kind not in "iuf" or rates.size == 0 or not 1 <= rates[0] <= 1_000_000 or values.shape[-1] == 0:
        raise AudioError(f"{path}: has no taps, or an impossible sampling rate ({rates[:1]}). Use another file.")
    responses = values.reshape(-1, values.shape[-1])
    if not np.isfinite(responses).all() or not responses.any(axis=1).all():
        raise AudioError(f"{path}: holds NaN, infinite or all-zero responses. Use another file.")
    if rates[0] != sample_rate:
        responses = soxr.resample(responses.T, float(rates[0]), sample_rate).T
    return np.ascontiguousarray(responses, dtype=np.float32)


def _open(path: Path) -> h5py.File:
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise_shortage(error, path, SCARCE)
        reason = "no such file" if not path.exists() else f"not an HDF5 file ({' '.join(str(error).split())})"
        raise AudioError(f"{path}: {reason}. Copy the file again.") from error


def _open_dataset(file: h5py.File, path: Path, name: str) -> h5py.Dataset:
    """Return a dataset of a SOFA file with impulse responses, which must be stored in the file itself."""
    try:
        data = {each: open_entry(file, each) for each in ("Data.IR", "Data.SamplingRate") if has_entry(file, each)}
    except UnsafeEntryError as error:
        raise AudioError(f"{path}: {error}") from error
    except (KeyError, OSError, RuntimeError) as error:
        raise_shortage(error, path, SCARCE)
        raise AudioError(f"{path}: damaged ({' '.join(str(error).split())}). Copy the file again.") from error
    if len(data) < 2 or not all(isinstance(each, h5py.Dataset) for each in data.values()) or data["Data.IR"].ndim != 3:
        raise AudioError(f"{path}: holds no impulse responses (Data.IR [M, R, N]). Use a SOFA file of type FIR.")
    return data[name]
