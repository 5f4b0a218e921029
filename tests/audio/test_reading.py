import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from pipeline.audio.reading import cut, even_starts, exact_length, random_start, read_audio, read_duration, read_piece
from pipeline.errors import AudioError


def sine(rate: int, hertz: float = 440.0, seconds: float = 1.0) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate)).astype(np.float32)


@pytest.mark.parametrize(("rate", "suffix"), [(8_000, "wav"), (22_050, "flac"), (44_100, "ogg"), (48_000, "wav")])
def test_any_rate_comes_out_at_16_khz_with_its_pitch(tmp_path: Path, rate: int, suffix: str) -> None:
    soundfile.write(tmp_path / f"a.{suffix}", sine(rate), rate)
    wave = read_audio(tmp_path / f"a.{suffix}")
    assert wave.dtype == np.float32
    assert abs(len(wave) - 16_000) <= 2
    spectrum = np.abs(np.fft.rfft(wave[:16_000] * np.hanning(len(wave[:16_000]))))
    assert abs(np.argmax(spectrum) - 440) <= 1
    assert np.sqrt(np.mean(wave**2)) == pytest.approx(0.3 / np.sqrt(2), rel=0.05)


def test_channels_are_averaged(tmp_path: Path) -> None:
    left, right = sine(16_000), sine(16_000, 1_000)
    soundfile.write(tmp_path / "a.wav", np.stack([left, right], axis=1), 16_000, subtype="FLOAT")
    np.testing.assert_allclose(read_audio(tmp_path / "a.wav"), (left + right) / 2, atol=1e-7)


def broken(folder: Path) -> dict[str, Path]:
    """One file of every kind of damage, by what the message must say."""
    files = {name: folder / f"{name}.wav" for name in ("no such file", "empty file", "no samples", "NaN", "silent")}
    files["empty file"].touch()
    soundfile.write(files["no samples"], np.zeros(0, dtype=np.float32), 16_000)
    values = sine(16_000)
    values[100] = np.nan
    soundfile.write(files["NaN"], values, 16_000, subtype="FLOAT")
    soundfile.write(files["silent"], np.zeros(1_000), 16_000)
    text = folder / "text.wav"
    text.write_text("RIFF? no, prose")
    whole = folder / "whole.wav"
    soundfile.write(whole, sine(16_000), 16_000)
    cut = folder / "cut.wav"
    cut.write_bytes(whole.read_bytes()[:20_000])
    flac = folder / "whole.flac"
    soundfile.write(flac, np.random.default_rng(0).uniform(-0.5, 0.5, 32_000), 16_000)
    cut_flac = folder / "cut.flac"
    cut_flac.write_bytes(flac.read_bytes()[:30_000])
    return files | {
        "cannot be read as audio": text,
        "truncated": cut,
        "cut.flac": cut_flac,
        "not a regular file": folder,
    }


def test_a_pipe_is_refused_rather_than_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.wav")
    with pytest.raises(AudioError, match="not a regular file"):
        read_audio(tmp_path / "a.wav")


def test_what_is_inaudible_or_nothing_at_16_khz_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.full(1, 0.5), 44_100)
    with pytest.raises(AudioError, match="shorter than one sample"):
        read_audio(path)
    soundfile.write(path, 1e-30 * sine(16_000), 16_000, subtype="FLOAT")
    with pytest.raises(AudioError, match="silent"):
        read_audio(path)
    soundfile.write(path, np.stack([sine(16_000), -sine(16_000)], axis=1), 16_000, subtype="FLOAT")
    with pytest.raises(AudioError, match="its channels cancel out"):
        read_audio(path)


@pytest.mark.parametrize(
    "damage",
    [
        "no such file",
        "empty file",
        "no samples",
        "NaN",
        "silent",
        "cannot be read as audio",
        "truncated",
        "cut.flac",
        "not a regular file",
    ],
)
def test_a_bad_file_is_one_clear_line_that_names_it(tmp_path: Path, damage: str) -> None:
    path = broken(tmp_path)[damage]
    with pytest.raises(AudioError) as caught:
        read_audio(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert damage in message
    assert "\n" not in message


def test_a_streamed_wav_header_is_no_damage(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", sine(16_000), 16_000)
    data = bytearray((tmp_path / "a.wav").read_bytes())
    data[4:8] = data[40:44] = b"\xff\xff\xff\xff"  # what a writer leaves that cannot seek back
    (tmp_path / "a.wav").write_bytes(data)
    assert len(read_audio(tmp_path / "a.wav")) == 16_000


@given(length=st.integers(1, 400), crop=st.integers(1, 300), seed=st.integers(0, 99))
def test_a_random_crop_is_a_piece_of_the_wave_or_the_wave_repeated(length: int, crop: int, seed: int) -> None:
    wave = np.arange(length, dtype=np.float32)
    piece = cut(wave, random_start(length, crop, np.random.default_rng(seed)), crop)
    assert len(piece) == crop
    if length >= crop:
        np.testing.assert_array_equal(piece, np.arange(piece[0], piece[0] + crop))
    else:
        np.testing.assert_array_equal(piece, np.arange(crop) % length)


@given(length=st.integers(10, 400), count=st.integers(1, 12), crop=st.integers(1, 300))
def test_even_crops_run_from_the_first_sample_to_the_last(length: int, count: int, crop: int) -> None:
    wave = np.arange(length, dtype=np.float32)
    crops = [cut(wave, start, crop) for start in even_starts(length, count, crop)]
    assert [len(each) for each in crops] == [crop] * count
    if length >= crop:
        assert crops[0][0] == 0
        starts = [each[0] for each in crops]
        assert np.ptp(np.diff(starts)) <= 1 if count > 1 else True
        assert count == 1 or crops[-1][-1] == length - 1


def test_no_crop_length_means_the_whole_wave() -> None:
    wave = np.arange(50, dtype=np.float32)
    np.testing.assert_array_equal(cut(wave, *even_starts(50, 1, None), None), wave)


def test_duration_is_read_from_the_header_or_not_at_all(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", sine(22_050, seconds=1.5), 22_050)
    assert read_duration(tmp_path / "a.wav") == pytest.approx(1.5, abs=1e-3)
    assert read_duration(tmp_path / "b.wav") is None


@pytest.mark.parametrize(
    ("suffix", "subtype"),
    [("wav", "PCM_16"), ("wav", "PCM_24"), ("wav", "FLOAT"), ("flac", "PCM_16"), ("aiff", "PCM_16"), ("au", "PCM_16")],
)
def test_a_piece_is_that_of_the_whole(tmp_path: Path, suffix: str, subtype: str) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, rng.uniform(-0.5, 0.5, (70_000, 2)), 16_000, subtype=subtype)
    assert exact_length(path) == 70_000
    whole = read_audio(path)
    for start, length in ((0, 1), (12_345, 32_240), (69_999, 1), (0, 70_000)):
        np.testing.assert_array_equal(read_piece(path, start, length), whole[start : start + length])


def test_lossy_resampled_and_missing_files_are_read_as_a_whole(tmp_path: Path) -> None:
    wave = np.random.default_rng(0).uniform(-0.5, 0.5, 30_000)
    for name, rate, subtype in (("a.ogg", 16_000, "VORBIS"), ("a.mp3", 16_000, None), ("a.wav", 8_000, "PCM_16")):
        soundfile.write(tmp_path / name, wave, rate, subtype=subtype)
        assert exact_length(tmp_path / name) is None
    soundfile.write(tmp_path / "law.wav", wave, 16_000, subtype="ULAW")
    assert exact_length(tmp_path / "law.wav") is None
    assert exact_length(tmp_path / "none.wav") is None


def test_a_piece_that_is_not_there_or_not_finite_is_an_error(tmp_path: Path) -> None:
    wave = np.zeros(1000, np.float32)
    wave[800] = np.nan
    soundfile.write(tmp_path / "a.wav", wave, 16_000, subtype="FLOAT")
    assert len(read_piece(tmp_path / "a.wav", 0, 500)) == 500
    with pytest.raises(AudioError, match="NaN"):
        read_piece(tmp_path / "a.wav", 500, 500)
    with pytest.raises(AudioError, match="ends at sample 1000"):
        read_piece(tmp_path / "a.wav", 900, 500)
    with pytest.raises(AudioError, match="no such file"):
        read_piece(tmp_path / "b.wav", 0, 1)
    (tmp_path / "c.wav").write_bytes((tmp_path / "a.wav").read_bytes()[:2000])
    with pytest.raises(AudioError, match="truncated"):
        read_piece(tmp_path / "c.wav", 0, 100)
