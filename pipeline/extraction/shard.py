"""One shard of an extraction: read, corrupt, encode and write. Any process can do it, and repeat it."""

import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.audio.augment.corrupt import dump_trace
from pipeline.audio.augment.recipe import Recipe, make_views
from pipeline.audio.augment.sources import SourcePool
from pipeline.audio.denoise import Rnnoise
from pipeline.audio.reading import SAMPLE_RATE, read_recording
from pipeline.data.manifest import Utterance
from pipeline.encoders.encoder import Encoder
from pipeline.errors import AudioError
from pipeline.extraction.reuse import EarlierStores, row_fingerprint
from pipeline.store.integrity import hash_rows
from pipeline.store.row_contents import RowContents
from pipeline.store.schema import FAILED, OK
from pipeline.store.shard_writer import ShardWriter
from pipeline.store.zeros import zero_mask
from pipeline.utils.atomic import sha256_of
from pipeline.utils.prefetch import prefetch
from pipeline.utils.shortage import SCARCE, raise_shortage

ShortAudio = Literal["wrap", "fail"]
LoudAudio = Literal["keep", "normalize"]


@dataclass(frozen=True)
class ExtractionJob:
    """Everything that the encoding of a shard depends on."""

    manifest: Sequence[Utterance]
    root: Path
    recipe: Recipe
    pool: SourcePool
    encoder: Encoder
    seed: int
    short_audio: ShortAudio
    batch: int = 1
    """Number of utterances encoded together. The rest of a batch can change the last bits of a row."""
    prefetch: int = 0
    """Number of threads that read and corrupt ahead of the encoder."""
    denoiser: Rnnoise | None = None
    """The denoiser of every crop, after its corruption."""
    loud_audio: LoudAudio = "keep"
    """Treatment of recordings beyond `audio.reading.TOO_LOUD`."""


@dataclass(frozen=True)
class ShardResult:
    """Outcome of one shard; `failures` are (utterance, path, reason) and `warnings` (utterance, path, warning)."""

    rows: range
    failures: list[tuple[str, str, str]]
    warnings: list[tuple[str, str, str]]
    encoded: int
    """Number of utterances encoded now; the others were already, were reused, or failed."""
    reused: int
    """Number of utterances copied from earlier stores."""
    seconds: float
    """Seconds of audio encoded, over all draws and views."""
    checksum: bytes
    """Checksum of the shard, see `store.integrity.hash_rows`."""


@dataclass(frozen=True)
class _PreparedUtterance:
    """An utterance in memory: its waves by draw and view, with their traces; or the reason of its failure."""

    row: int
    waves: list[Tensor]
    traces: list[list[str]]
    reason: str | None = None
    warning: str | None = None


def encode_shard(job: ExtractionJob, rows: range, writer: ShardWriter, earlier: EarlierStores) -> ShardResult:
    """Encode and write one whole shard, except for the rows that it or an earlier store already holds.

    A complete shard is left as it is. Its worker may have died before it could report it.
    """
    held, status = writer.read(rows)
    if not (todo := [row for row in rows if status[row - rows.start] != OK]):
        checksum = hash_rows(status, held.values, held.traces, held.fingerprints)
        return ShardResult(rows, [], list_warnings(job.manifest, rows, held.traces), 0, 0, 0.0, checksum)
    prints = {row: found for row in todo if (found := row_fingerprint(job.manifest[row], job.root)) is not None}
    for row, found in prints.items():
        held.fingerprints[row - rows.start] = np.frombuffer(found, np.uint8)
    reused = _reuse_rows(earlier, prints, rows.start, held, status)
    left = [row for row in todo if status[row - rows.start] != OK]
    failures: dict[int, str] = {}
    samples = 0
    # Batches have fixed places in the shard, so that a resumed run forms the same ones.
    with closing(prefetch(partial(_prepare, job), left, job.batch + job.prefetch, job.prefetch)) as parts:
        for _, group in groupby(parts, lambda part: (part.row - rows.start) // job.batch):
            batch = list(group)
            failures |= {part.row: part.reason for part in batch if part.reason is not None}
            readable = [part for part in batch if part.reason is None]
            samples += sum(len(wave) for part in readable for wave in part.waves)
            failures |= _encode(job, readable, rows.start, held, status)
    for place in (row - rows.start for row in failures):
        held.values[place], held.traces[place], held.fingerprints[place], status[place] = np.nan, "", 0, FAILED
    checksum = writer.write(rows, held.values, status, held.traces, held.fingerprints)
    listed = [(job.manifest[row].utterance, job.manifest[row].path, failures[row]) for row in sorted(failures)]
    warned = list_warnings(job.manifest, rows, held.traces)
    return ShardResult(rows, listed, warned, len(left) - len(failures), reused, samples / SAMPLE_RATE, checksum)


def list_warnings(
    manifest: Sequence[Utterance], rows: range, traces: NDArray[np.object_]
) -> list[tuple[str, str, str]]:
    """Return (utterance, path, warning) of the rows with a warning in their traces [rows, draw, view]."""
    noted = [(row, text) for row, text in zip(rows, traces[:, 0, 0], strict=True) if '"warning":' in text]
    found = [(row, json.loads(text).get("warning")) for row, text in noted]
    return [(manifest[row].utterance, manifest[row].path, warning) for row, warning in found if warning]


def _reuse_rows(
    earlier: EarlierStores, prints: dict[int, bytes], start: int, held: RowContents, status: NDArray[np.uint8]
) -> int:
    """Fill in the rows that earlier stores hold, and return their number."""
    if (taken := earlier.take(prints)) is None:
        return 0
    places, content = taken[0] - start, taken[1]
    held.values[places], held.traces[places], status[places] = content.values, content.traces, OK
    return len(places)


def _prepare(job: ExtractionJob, row: int) -> _PreparedUtterance:
    """Read an utterance and make its views."""
    utterance = job.manifest[row]
    path = job.root / utterance.path
    try:
        recording = read_recording(path, normalize=job.loud_audio == "normalize")
        wave, warning = recording.wave, recording.warning
        if utterance.sha256 is not None and utterance.sha256 != sha256_of(path):
            raise AudioError(f"{path}: has changed since the manifest was made. Make the manifest again.")
        if job.short_audio == "fail" and len(wave) < job.encoder.min_samples:
            raise AudioError(
                f"{path}: {len(wave)} samples, encoder {job.encoder.name} needs {job.encoder.min_samples}"
                " (at 16 kHz). Leave it out, or set extract.short_audio to wrap."
            )
    except (AudioError, OSError) as error:  # OSError: the file was removed or locked after reading
        raise_shortage(error, path, SCARCE)
        return _PreparedUtterance(row, [], [], str(error))
    draws = make_views(job.recipe, wave, job.seed, utterance.utterance, job.pool, utterance.speaker, path, warning)
    made = [view.wave for views in draws for view in views]
    try:
        waves = [torch.from_numpy(job.denoiser(wave) if job.denoiser else wave) for wave in made]
    except AudioError as error:
        return _PreparedUtterance(row, [], [], f"{path}: {error}")
    traces = [[dump_trace(view.trace) for view in views] for views in draws]
    return _PreparedUtterance(row, waves, traces, warning=warning)


def _encode(
    job: ExtractionJob, batch: Sequence[_PreparedUtterance], start: int, held: RowContents, status: NDArray[np.uint8]
) -> dict[int, str]:
    """Encode a batch and fill in its rows; return the reasons of failures by row."""
    if not batch:
        return {}
    vectors = job.encoder([wave for part in batch for wave in part.waves]).numpy()
    failures = {}
    for part, values in zip(batch, vectors.reshape(len(batch), *held.values.shape[1:]), strict=True):
        place = part.row - start
        held.values[place], held.traces[place], status[place] = values, part.traces, OK
        if not np.isfinite(values).all():
            hint = f" Of the recording: {part.warning}." if part.warning else ""
            failures[part.row] = f"the encoder returned NaN or infinite values.{hint}"
        elif zero_mask(values).any():
            failures[part.row] = "the encoder returned a vector of zeros, which has no direction."
    return failures
