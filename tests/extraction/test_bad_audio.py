"""Malformed files of every kind: each becomes a row, decoded or failed, and none stops or hangs a run.

Every case is a file made on the spot, with what must become of it: DECODED, or a piece of the reason for its failure.
"""

import csv
import faulthandler
import os
import signal
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from pipeline.audio.augment.sources import SourcePool
from pipeline.config.recipes import condition_recipe
from pipeline.data.corpus_files import list_utterances
from pipeline.data.manifest import Utterance, read_manifest, write_manifest
from pipeline.data.sets import FileInspector
from pipeline.encoders.encoder import Encoder
from pipeline.extraction.extract import ExtractionProgress, extract, failures_path, store_attributes, threaded_runner
from pipeline.extraction.shard import ExtractionJob
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.store.schema import FAILED, OK
from pipeline.utils.atomic import sha256_of
from tests.conftest import voice

DECODED = ""
WAVE = voice(140, 1.0, 0)
GOOD = 4
"""Sound files among the bad ones."""


def written(path: Path, wave: np.ndarray = WAVE, rate: int = 16_000, **options: str) -> bytes:
    """Write a sound file as asked for, and return its bytes."""
    soundfile.write(path, wave, rate, **options)
    return path.read_bytes()


def patched(content: bytes, offset: int, layout: str, value: int) -> bytes:
    """Return bytes with one number overwritten."""
    new = bytearray(content)
    struct.pack_into(layout, new, offset, value)
    return bytes(new)


def flac_of(content: bytes, total: int) -> bytes:
    """Return a FLAC file whose header claims `total` samples (36 bits; 0: unknown)."""
    field = int.from_bytes(content[18:26], "big")
    return content[:18] + ((field >> 36 << 36) | total).to_bytes(8, "big") + content[26:]


def as_bytes(folder: Path) -> dict[str, tuple[bytes, str]]:
    """Files by name: their bytes, and what becomes of them."""
    wav, flac = written(folder / "w.wav"), written(folder / "w.flac")
    ogg, mp3 = written(folder / "w.ogg", voice(140, 3.0, 0)), written(folder / "w.mp3")
    aiff, au, w64 = (written(folder / f"w.{kind}", subtype="PCM_16") for kind in ("aiff", "au", "w64"))
    floats = written(folder / "w.wav", subtype="FLOAT")
    loud = written(folder / "w.wav", WAVE * np.float32(1e37), subtype="FLOAT")
    for file in folder.iterdir():
        file.unlink()
    noise = np.random.default_rng(0)
    unreadable, cut, empty = "cannot be read as audio", "truncated", "holds no samples"
    return {
        "zero length.wav": (b"", "empty file (0 bytes)"),
        "zero length.flac": (b"", "empty file (0 bytes)"),
        "one byte.wav": (wav[:1], unreadable),
        "four bytes.wav": (wav[:4], unreadable),
        "header cut in fmt.wav": (wav[:20], unreadable),
        "header cut before data.wav": (wav[:36], unreadable),
        "header cut in data.wav": (wav[:43], empty),
        "header alone.wav": (wav[:44], cut),
        "half.wav": (wav[: len(wav) // 2], cut),
        "one byte short.wav": (wav[:-1], DECODED),
        "a few bytes short.wav": (wav[:-128], DECODED),
        "200 bytes short.wav": (wav[:-200], cut),
        "half.aiff": (aiff[: len(aiff) // 2], cut),
        "half.au": (au[: len(au) // 2], cut),
        "half.w64": (w64[: len(w64) // 2], cut),
        "half.flac": (flac[: len(flac) // 2], unreadable),
        "header cut.flac": (flac[:30], unreadable),
        "half.mp3": (mp3[: len(mp3) // 2], cut),
        "half.ogg": (ogg[: len(ogg) // 2], cut),
        "header cut.ogg": (ogg[:2000], unreadable),
        "hole.ogg": (ogg[:3000] + bytes(500) + ogg[3500:], unreadable),
        "claims no samples.wav": (patched(wav, 40, "<I", 0), DECODED),  # as of a recorder that died
        "claims no samples, has none.wav": (patched(wav[:44], 40, "<I", 0), empty),
        "claims 2 GB.wav": (patched(wav, 40, "<I", 2**31 - 1), DECODED),  # as a stream that was never closed
        "claims 4 GB.wav": (patched(wav, 40, "<I", 2**32 - 1), DECODED),
        "claims 64 MB.wav": (patched(wav, 40, "<I", 2**26), cut),
        "claims no length.flac": (flac_of(flac, 0), DECODED),
        "claims 275 GB.flac": (flac_of(flac, 2**36 - 1), cut),
        "claims 2 G frames.aiff": (patched(aiff, aiff.find(b"COMM") + 10, ">I", 2**31 - 1), DECODED),
        "claims 4 EB.w64": (patched(w64, w64.find(b"data") + 16, "<q", 2**62), DECODED),
        "no data chunk.wav": (wav[:36] + b"LIST" + wav[40:], unreadable),
        "huge fmt chunk.wav": (patched(wav, 16, "<I", 2**31), unreadable),
        "unknown codec.wav": (patched(wav, 20, "<H", 0x9999), unreadable),
        "no channels.wav": (patched(wav, 22, "<H", 0), unreadable),
        "65535 channels.wav": (patched(wav, 22, "<H", 65_535), unreadable),
        "0 Hz.wav": (patched(wav, 24, "<I", 0), unreadable),
        "1 Hz.wav": (patched(wav, 24, "<I", 1), "claims 1 Hz"),
        "2 GHz.wav": (patched(wav, 24, "<I", 2**31 - 1), "claims 2147483647 Hz"),
        "0 bit.wav": (patched(wav, 34, "<H", 0), unreadable),
        "1 bit.wav": (patched(wav, 34, "<H", 1), "1-bit samples"),
        "NaN.wav": (patched(floats, len(floats) - 400, "<I", 0x7FC00000), "holds NaN"),
        "Inf.wav": (patched(floats, len(floats) - 400, "<I", 0x7F800000), "holds NaN or infinite"),
        "as loud as floats go.wav": (
            loud,
            "the encoder returned NaN or infinite values. Of the recording: its peak is",
        ),
        "an MP3.wav": (mp3, DECODED),
        "a FLAC.mp3": (flac, DECODED),
        "a WAV.flac": (wav, DECODED),
        "no extension": (wav, DECODED),
        "prose.wav": (b"Once upon a time. " * 99, unreadable),
        "prose.mp3": (b"Once upon a time. " * 99, unreadable),
        "prose.au": (b"Once upon a time. " * 99, "no header that describes its format"),
        "prose.gsm": (b"Once upon a time. " * 99, "no header that describes its format"),
        "prose.raw": (b"Once upon a time. " * 99, unreadable),
        "noise.mp3": (noise.bytes(20_000), unreadable),
        "zeros.wav": (bytes(10_000), unreadable),
        "a zip.wav": (b"PK\x03\x04" + noise.bytes(3_000), unreadable),
        "not found.wav": (b"<html><body>404 Not Found</body></html>", unreadable),
    }


def as_waves() -> dict[str, tuple[np.ndarray, int, str, str]]:
    """Files by name: samples, rate, subtype, and what becomes of them."""
    fast = voice(140, 1.0, 0, 192_000)
    return {
        "24 bit.wav": (WAVE, 16_000, "PCM_24", DECODED),
        "8 bit.wav": (WAVE, 16_000, "PCM_U8", DECODED),
        "mu-law.wav": (WAVE, 8_000, "ULAW", DECODED),
        "ADPCM.wav": (WAVE, 16_000, "IMA_ADPCM", DECODED),
        "double.wav": (WAVE, 16_000, "DOUBLE", DECODED),
        "192 kHz.wav": (fast, 192_000, "PCM_16", DECODED),
        "7 channels.wav": (np.stack([WAVE] * 7, axis=1), 16_000, "PCM_16", DECODED),
        "silence.wav": (0 * WAVE, 16_000, "PCM_16", "silent"),
        "cancels out.wav": (np.stack([WAVE, -WAVE], axis=1), 16_000, "FLOAT", "channels cancel out"),
        "no samples.wav": (WAVE[:0], 16_000, "PCM_16", "holds no samples"),
        "one sample.wav": (np.full(1, 0.5), 16_000, "PCM_16", DECODED),
    }


def odd_entries(folder: Path, good: bytes) -> dict[bytes, str]:
    """Make what is no plain file, or has no plain name; return what becomes of each, by name."""
    os.mkfifo(folder / "pipe.wav")
    (folder / "folder.wav").mkdir()
    with socket.socket(socket.AF_UNIX) as end:
        end.bind(os.path.relpath(folder / "socket.wav"))
    os.symlink("/dev/zero", folder / "endless.wav")
    os.symlink("loop.wav", folder / "loop.wav")
    os.symlink("gone.wav", folder / "dangling.wav")
    os.symlink("pipe.wav", folder / "link to a pipe.wav")
    (folder / "closed.wav").write_bytes(good)
    (folder / "closed.wav").chmod(0)
    for name in (
        b"caf\xe9.wav",
        b"\xff\xfe.wav",
        "naïve 日本.wav".encode(),
        b"two\nlines.wav",
        b'"quoted", and so on.wav',
    ):
        Path(os.fsdecode(os.path.join(os.fsencode(folder), name))).write_bytes(good)
    return {
        b"pipe.wav": "not a regular file",
        b"folder.wav": "not a regular file",
        b"socket.wav": "not a regular file",
        b"endless.wav": "not a regular file",
        b"link to a pipe.wav": "not a regular file",
        b"loop.wav": "Too many levels of symbolic links",
        b"dangling.wav": "no such file",
        b"n" * 300 + b".wav": "File name too long",
        b"zero length.wav/below.wav": "no such file",
        b"never was.wav": "no such file",
        b"caf\xe9.wav": DECODED,
        b"\xff\xfe.wav": DECODED,
        "naïve 日本.wav".encode(): DECODED,
        b"two\nlines.wav": DECODED,
        b'"quoted", and so on.wav': DECODED,
    } | ({} if os.geteuid() == 0 else {b"closed.wav": "Permission denied"})  # which root may read


@contextmanager
def at_most(seconds: int) -> Iterator[None]:
    """Fail what takes longer; if even that does not help, since C code hangs, end the whole run with a traceback."""

    def late(*_: object) -> None:
        raise TimeoutError(f"still running after {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    faulthandler.dump_traceback_later(2 * seconds, exit=True)
    try:
        yield
    finally:
        signal.alarm(0)
        faulthandler.cancel_dump_traceback_later()
        signal.signal(signal.SIGALRM, before)


def run(
    rows: list[Utterance],
    root: Path,
    encoder: Encoder,
    out: Path,
    workers: int = 0,
    progress: Callable[[ExtractionProgress], None] | None = None,
) -> dict[str, str]:
    """Extract whole utterances, and return the reason of each failure by utterance."""
    recipe = condition_recipe("clean", 1, None)
    job = ExtractionJob(rows, root, recipe, SourcePool({}), encoder, 0, "wrap")
    with at_most(200):
        done = extract(job, out, store_attributes(job, None, None), 8, len(rows), progress, threaded_runner(workers))
    return {name: reason for name, _, reason in done.failures}


@pytest.fixture
def zoo(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """A folder of bad files, and what becomes of each path."""
    folder = tmp_path / "zoo"
    folder.mkdir()
    cases: dict[str, str] = {}
    for name, (content, outcome) in as_bytes(folder).items():
        (folder / name).write_bytes(content)
        cases[name] = outcome
    for name, (wave, rate, subtype, outcome) in as_waves().items():
        written(folder / name, wave, rate, subtype=subtype)
        cases[name] = outcome
    good = (folder / "a WAV.flac").read_bytes()
    cases |= {os.fsdecode(name): outcome for name, outcome in odd_entries(folder, good).items()}
    return folder, cases


@pytest.mark.parametrize("workers", [0, 2])
def test_each_bad_file_is_one_row_decoded_or_failed_with_its_reason(
    zoo: tuple[Path, dict[str, str]], tmp_path: Path, ge2e: Encoder, workers: int
) -> None:
    folder, cases = zoo
    assert len(cases) >= 50
    sound = [Utterance(f"sound {n}", f"sound{n}.wav") for n in range(GOOD)]
    for n, row in enumerate(sound):
        written(folder / row.path, voice(90 + 30 * n, 1.2, n))
    bad = [Utterance(f"case {n}", path) for n, path in enumerate(cases)]
    step = len(bad) // GOOD
    rows = [row for n in range(GOOD) for row in (sound[n], *bad[n * step : (n + 1) * step if n < GOOD - 1 else None])]
    write_manifest(tmp_path / "m.csv", rows)
    assert read_manifest(tmp_path / "m.csv") == rows  # whatever their names are made of

    reasons = run(rows, folder, ge2e, tmp_path / "s.zarr", workers)
    wrong = {
        row.path: (reasons.get(row.utterance, "decoded"), cases[row.path])
        for row in bad
        if (
            cases[row.path] not in reasons.get(row.utterance, "")
            or (row.utterance in reasons) == (cases[row.path] == DECODED)
        )
    }
    assert not wrong

    store = EmbeddingStore.open(tmp_path / "s.zarr")
    assert store.utterances == tuple(row.utterance for row in rows)
    failed = {name for name, status in zip(store.utterances, store.status, strict=True) if status == FAILED}
    assert failed == set(reasons)
    assert set(store.status.tolist()) == {OK, FAILED}
    listed = list(csv.DictReader(failures_path(tmp_path / "s.zarr").open(encoding="utf-8", newline="")))
    assert {row["utterance"]: row["reason"] for row in listed} == reasons

    assert run(sound, folder, ge2e, tmp_path / "alone.zarr") == {}
    alone = EmbeddingStore.open(tmp_path / "alone.zarr").read()
    places = [store.utterances.index(row.utterance) for row in sound]
    np.testing.assert_allclose(store.read()[places], alone, atol=1e-5)


def test_a_file_that_vanishes_while_the_run_goes_on_is_a_failed_row(tmp_path: Path, ge2e: Encoder) -> None:
    rows = [Utterance(f"u{n}", f"u{n}.wav") for n in range(24)]
    for row in rows:
        written(tmp_path / row.path)

    def take_away(now: ExtractionProgress) -> None:
        if now.done:  # after the first shard of eight, in whatever order they are taken
            for row in rows:
                (tmp_path / row.path).unlink(missing_ok=True)

    reasons = run(rows, tmp_path, ge2e, tmp_path / "s.zarr", progress=take_away)
    assert len(reasons) == 16
    assert all("no such file" in reason for reason in reasons.values())


def test_a_file_that_vanishes_between_two_looks_at_it_is_a_failed_row(
    tmp_path: Path, ge2e: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = []
    for n in range(3):
        written(tmp_path / f"u{n}.wav")
        rows.append(Utterance(f"u{n}", f"u{n}.wav", sha256=sha256_of(tmp_path / f"u{n}.wav")))

    def gone(path: Path) -> str:
        if path.name == "u1.wav":
            path.unlink()
        return sha256_of(path)

    monkeypatch.setattr("pipeline.extraction.shard.sha256_of", gone)
    reasons = run(rows, tmp_path, ge2e, tmp_path / "s.zarr")
    assert list(reasons) == ["u1"]
    assert "No such file" in reasons["u1"]


def test_names_that_are_not_utf8_are_listed_read_and_reported(tmp_path: Path, ge2e: Encoder) -> None:
    folder = tmp_path / "audio"
    folder.mkdir()
    for name, content in (
        (b"caf\xe9.wav", written(tmp_path / "w.wav")),
        (b"th\xe9.wav", b"no audio"),
        (b"tea.wav", None),
    ):
        path = Path(os.fsdecode(os.path.join(os.fsencode(folder), name)))
        path.write_bytes(content or written(tmp_path / "w.wav", voice(200, 1.0, 1)))
    described = FileInspector()
    rows = [described(row) for row in list_utterances(folder, "*.wav", r"^(\w+|caf.|th.)\.wav$")]
    assert [row.utterance for row in rows] == ["caf\\xe9.wav", "tea.wav", "th\\xe9.wav"]
    assert [row.speaker for row in rows] == ["caf\\xe9", "tea", "th\\xe9"]
    assert [row.seconds for row in rows] == [1.0, 1.0, None]
    assert all(row.sha256 for row in rows)
    write_manifest(tmp_path / "m.csv", rows)
    assert b"audio/caf\xe9.wav" in (tmp_path / "m.csv").read_bytes()
    assert [row.path for row in read_manifest(tmp_path / "m.csv")] == [row.path for row in rows]
    reasons = run(read_manifest(tmp_path / "m.csv"), Path(), ge2e, tmp_path / "s.zarr")
    assert list(reasons) == ["th\\xe9.wav"]
    failures_path(tmp_path / "s.zarr").read_text(encoding="utf-8")  # for whatever program reads it next


def test_days_of_silence_in_a_small_file_do_not_fill_the_memory(
    tmp_path: Path, ge2e: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.audio.reading.LONGEST", 60)
    written(tmp_path / "long.flac", np.full(61 * 16_000, 0.5, dtype=np.float32))
    written(tmp_path / "good.wav")
    assert (tmp_path / "long.flac").stat().st_size < 20_000
    rows = [Utterance("long", "long.flac"), Utterance("good", "good.wav")]
    reasons = run(rows, tmp_path, ge2e, tmp_path / "s.zarr")
    assert list(reasons) == ["long"]
    assert "longer than" in reasons["long"]


def test_a_file_is_the_same_wave_however_it_is_cut_into_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.audio.reading import read_audio

    stereo = np.stack([voice(100, 1.0, 0, 22_050), voice(150, 1.0, 1, 22_050)], axis=1)
    written(tmp_path / "a.flac", stereo, 22_050)
    whole = read_audio(tmp_path / "a.flac")
    monkeypatch.setattr("pipeline.audio.reading._BLOCK", 1_000)
    np.testing.assert_array_equal(read_audio(tmp_path / "a.flac"), whole)
    expected = soxr.resample(soundfile.read(tmp_path / "a.flac", dtype="float32")[0].mean(axis=1), 22_050, 16_000)
    np.testing.assert_array_equal(whole, expected)
