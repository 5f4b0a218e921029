"""Sizes in WAV headers: every file is built byte by byte, and read as the one documented rule says."""

import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from pipeline.audio.reading import exact_length, inspect_audio, read_audio, read_duration, read_piece, read_recording
from pipeline.audio.wav_header import FEW, read_wav_header
from pipeline.errors import AudioError

SAMPLES = np.round(9_000 * np.sin(np.arange(2_000) / 7)).astype("<i2")
BODY = SAMPLES.tobytes()
PCM = struct.pack("<HHIIHH", 1, 1, 16_000, 32_000, 2, 16)


def chunk(name: bytes, body: bytes, size: int | None = None, order: str = "<") -> bytes:
    """Return a chunk whose header claims `size` bytes, by default its true size."""
    return name + struct.pack(order + "I", len(body) if size is None else size) + body + b"\0" * (len(body) % 2)


LIST = chunk(b"LIST", b"INFO" + chunk(b"ISFT", b"test"))


def wav(
    size: int | None = None, body: bytes = BODY, fmt: bytes = PCM, between: bytes = b"", after: bytes = b""
) -> bytes:
    """Return a WAV file whose data chunk claims `size` bytes, by default its true size."""
    content = b"WAVE" + chunk(b"fmt ", fmt) + between + chunk(b"data", body, size) + after
    return b"RIFF" + struct.pack("<I", len(content)) + content


def rf64(size: int, form: bytes = b"RF64", small: int = 0xFFFFFFFF, after: bytes = b"") -> bytes:
    """Return an RF64 or BW64 file whose ds64 chunk claims `size` bytes of data."""
    sizes = chunk(b"ds64", struct.pack("<QQQI", 2**64 - 1, size, 0, 0))
    content = b"WAVE" + sizes + chunk(b"fmt ", PCM) + chunk(b"data", BODY, small) + after
    return form + struct.pack("<I", 0xFFFFFFFF) + content


def rifx(size: int) -> bytes:
    """Return a big-endian WAV file whose data chunk claims `size` bytes."""
    fmt = chunk(b"fmt ", struct.pack(">HHIIHH", 1, 1, 16_000, 32_000, 2, 16), order=">")
    content = b"WAVE" + fmt + chunk(b"data", SAMPLES.astype(">i2").tobytes(), size, ">")
    return b"RIFX" + struct.pack(">I", len(content)) + content


def written(folder: Path, content: bytes, name: str = "a.wav") -> Path:
    (folder / name).write_bytes(content)
    return folder / name


def assert_reads(path: Path, expected: np.ndarray) -> str | None:
    """Assert that all readers agree on the samples of a 16 kHz mono file; return the warning."""
    recording = read_recording(path)
    np.testing.assert_array_equal(recording.wave, expected.astype(np.float32) / 32_768)
    np.testing.assert_array_equal(read_audio(path), recording.wave)
    seconds = len(expected) / 16_000
    assert read_duration(path) == pytest.approx(seconds)
    assert inspect_audio(path) == (pytest.approx(seconds), recording.warning)
    if exact_length(path) is not None:
        assert exact_length(path) == len(expected)
        np.testing.assert_array_equal(read_piece(path, 100, 50), recording.wave[100:150])
    return recording.warning


UNKNOWN = {
    "a recorder that died": 0,
    "sox": 0x7FFFF000,
    "sox, 24 bit stereo": 0x7FFFF000 - 0x7FFFF000 % 6,
    "sox, 8 channels of 32 bit": 0x7FFFF000 - 0x7FFFF000 % 32,
    "2 GiB less 1": 0x7FFFFFFF,
    "2 GiB less the header": 0x7FFFFFFF - 36,
    "arecord": 0x80000000,
    "arecord, 24 bit": 0x80000000 - 0x80000000 % 3,
    "ffmpeg": 0xFFFFFFFF,
    "4 GiB less the header": 0xFFFFFFFF - 36,
    "4 GiB, whole samples": 0xFFFFFFFC,
}


@pytest.mark.parametrize("size", UNKNOWN.values(), ids=UNKNOWN.keys())
def test_sizes_that_mean_unknown_are_read_to_the_end(tmp_path: Path, size: int) -> None:
    warning = assert_reads(written(tmp_path, wav(size)), SAMPLES)
    assert warning == f"its header gives no length (size {size:#x}), so all 4,000 bytes to its end are read"
    assert assert_reads(written(tmp_path, rifx(size)), SAMPLES) == warning
    assert exact_length(tmp_path / "a.wav") == 2_000


@pytest.mark.parametrize("form", [b"RF64", b"BW64"])
def test_rf64_and_bw64_of_unknown_size_are_read_to_the_end(tmp_path: Path, form: bytes) -> None:
    for size in (2**64 - 1, 2**63 - 1, 0, 0xFFFFFFFF):
        warning = assert_reads(written(tmp_path, rf64(size, form)), SAMPLES)
        assert warning is not None
        assert "gives no length" in warning
    for small in (0xFFFFFFFF, 4_000):
        assert assert_reads(written(tmp_path, rf64(4_000, form, small)), SAMPLES) is None
        assert assert_reads(written(tmp_path, rf64(4_000, form, small, LIST)), SAMPLES) is None
    with pytest.raises(AudioError, match="truncated, holds 4000 of 8000 bytes of audio"):
        read_audio(written(tmp_path, rf64(8_000, form)))


def test_a_few_missing_bytes_are_no_truncation_but_said(tmp_path: Path) -> None:
    for extra in (1, 8, 36, 44, FEW):
        warning = assert_reads(written(tmp_path, wav(4_000 + extra)), SAMPLES)
        assert warning == f"its header promises {4_000 + extra:,} bytes of audio, but it holds 4,000, which are read"
    assert assert_reads(written(tmp_path, wav()[:-1]), SAMPLES[:-1]) is not None
    for size in (4_000 + FEW + 1, 8_000, 2**26, 0x70000000, 0xC0000000):
        path = written(tmp_path, wav(size))
        for read in (read_audio, lambda path: read_piece(path, 0, 10)):
            with pytest.raises(AudioError, match=f"truncated, holds 4000 of {size} bytes of audio"):
                read(path)
        assert read_duration(path) is None
        assert inspect_audio(path) == (None, None)
        assert exact_length(path) is None


def test_what_follows_the_audio_is_not_read(tmp_path: Path) -> None:
    for after in (LIST, LIST + chunk(b"id3 ", b"odd"), chunk(b"bext", bytes(602)) + LIST):
        assert assert_reads(written(tmp_path, wav(after=after)), SAMPLES) is None
    assert assert_reads(written(tmp_path, wav(between=LIST)), SAMPLES) is None
    assert assert_reads(written(tmp_path, wav(0, between=LIST)), SAMPLES) is not None
    warning = assert_reads(written(tmp_path, wav(1_000)), SAMPLES[:500])
    assert warning == "its header promises 1,000 bytes of audio, but 3,000 bytes follow, which are not read"


def test_a_file_without_samples_is_empty_even_with_chunks_behind(tmp_path: Path) -> None:
    for content in (wav(body=b""), wav(body=b"", after=LIST), wav(0xFFFFFFFF, body=b""), wav(FEW, body=b"")):
        with pytest.raises(AudioError, match="empty, holds no samples"):
            read_audio(written(tmp_path, content))


@pytest.mark.parametrize("size", [None, 0, 0x7FFFF000 - 0x7FFFF000 % 3, 0xFFFFFFFF])
def test_odd_extensible_24_bit_and_float_data(tmp_path: Path, size: int | None) -> None:
    guid = struct.pack("<HHII", 22, 16, 4, 1) + bytes.fromhex("00001000800000aa00389b71")
    extensible = struct.pack("<HHIIHH", 0xFFFE, 1, 16_000, 32_000, 2, 16) + guid
    assert len(extensible) == 40
    assert (assert_reads(written(tmp_path, wav(size, fmt=extensible)), SAMPLES) is None) == (size is None)

    wide = b"".join(struct.pack("<i", int(sample) << 8)[:3] for sample in SAMPLES[:1_333])
    assert len(wide) % 2 == 1  # a byte of padding follows, which is not a sample
    pcm24 = struct.pack("<HHIIHH", 1, 1, 16_000, 48_000, 3, 24)
    assert_reads(written(tmp_path, wav(size, wide, pcm24)), SAMPLES[:1_333])

    floats = (SAMPLES / np.float32(32_768)).astype("<f4").tobytes()
    ieee = struct.pack("<HHIIHH", 3, 1, 16_000, 64_000, 4, 32)
    assert_reads(written(tmp_path, wav(size, floats, ieee)), SAMPLES)

    bytes8 = (SAMPLES[:1_001] // 256 + 128).astype(np.uint8).tobytes()
    pcm8 = struct.pack("<HHIIHH", 1, 1, 16_000, 16_000, 1, 8)
    whole = read_audio(written(tmp_path, wav(size, bytes8, pcm8, after=LIST if size is None else b"")))
    assert len(whole) == (1_001 if size is None else 1_002)  # the padding is read if no size excludes it


@pytest.mark.parametrize("subtype", ["ULAW", "ALAW", "IMA_ADPCM", "MS_ADPCM", "GSM610", "G721_32"])
def test_compressed_samples_of_unknown_size_are_those_of_the_same_file_with_a_size(
    tmp_path: Path, subtype: str
) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, SAMPLES, 16_000, subtype=subtype)
    whole, content = read_recording(path), bytearray(path.read_bytes())
    assert whole.warning is None
    at, fact = content.find(b"data") + 4, content.find(b"fact") + 8
    assert read_recording(written(tmp_path, bytes(content) + LIST)).warning is None
    for size in (0, 0x7FFFF000, 0xFFFFFFFF):
        struct.pack_into("<I", content, at, size)
        struct.pack_into("<I", content, fact, size)
        np.testing.assert_array_equal(read_audio(written(tmp_path, bytes(content))), whole.wave)


def test_streams_of_other_formats_are_read_to_the_end_too(tmp_path: Path) -> None:
    for suffix, place, layout, sizes in (
        ("aiff", (b"SSND", 4), ">I", (0x7F000008, 0x7FFFFFFF, 0xFFFFFFFF)),
        ("au", (b".snd", 8), ">I", (0x7FFFF000, 0xFFFFFFFF)),
    ):
        path = tmp_path / f"a.{suffix}"
        soundfile.write(path, SAMPLES, 16_000, subtype="PCM_16")
        content = bytearray(path.read_bytes())
        for size in sizes:
            struct.pack_into(layout, content, content.find(place[0]) + place[1], size)
            assert_reads(written(tmp_path, bytes(content), path.name), SAMPLES)


def test_chunks_that_claim_too_much_are_left_to_libsndfile(tmp_path: Path) -> None:
    for content in (wav()[:30], b"RIFF\0\0\0\0WAVE", wav().replace(b"data", b"dat2"), b"RIFF" + bytes(4) + b"AVI "):
        assert read_wav_header(written(tmp_path, content)) is None
    many = wav(between=chunk(b"JUNK", b"") * 2_000)
    assert read_wav_header(written(tmp_path, many)) is None
    np.testing.assert_array_equal(read_audio(tmp_path / "a.wav"), SAMPLES / np.float32(32_768))


@pytest.mark.parametrize("scale", [32_768, 100])
def test_a_level_that_cannot_be_is_said_and_scaled_only_if_asked(tmp_path: Path, scale: int) -> None:
    wave, path = (SAMPLES / np.float32(32_768)).astype(np.float32), tmp_path / "a.wav"
    soundfile.write(path, wave * scale, 16_000, subtype="FLOAT")
    kept, scaled = read_recording(path), read_recording(path, normalize=True)
    np.testing.assert_allclose(kept.wave, wave * scale, rtol=1e-6)
    np.testing.assert_allclose(scaled.wave, wave / np.abs(wave).max(), rtol=1e-6)
    warning = f"its peak is {scale * np.abs(wave).max():.4g}, where full scale is 1"
    assert (kept.warning, scaled.warning) == (warning, f"{warning}; scaled to a peak of 1")
    assert inspect_audio(path) == (0.125, warning)
    for usual in (1.0, 3.9):  # lossy codecs and sums go somewhat beyond full scale
        soundfile.write(path, usual * wave / np.abs(wave).max(), 16_000, subtype="FLOAT")
        assert read_recording(path, normalize=True).warning is None
        assert np.abs(read_recording(path, normalize=True).wave).max() == pytest.approx(usual)


@pytest.mark.parametrize("form", [b"RF64", b"BW64"])
@pytest.mark.parametrize("long", [0, len(BODY) // 2, len(BODY), 2**64 - 1])
def test_a_size_of_32_bits_counts_more_than_that_of_ds64(tmp_path: Path, form: bytes, long: int) -> None:
    assert assert_reads(written(tmp_path, rf64(long, form, small=len(BODY))), SAMPLES) is None


@pytest.mark.parametrize("padding", [b"", b"\0"])
def test_a_tag_at_the_end_is_no_audio_and_no_fault(tmp_path: Path, padding: bytes) -> None:
    tag = padding + b"TAG" + b"title".ljust(125, b"\0")
    assert assert_reads(written(tmp_path, wav(after=tag)), SAMPLES) is None
