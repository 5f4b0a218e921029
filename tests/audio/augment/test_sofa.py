from pathlib import Path

import h5py
import numpy as np
import pytest

from pipeline.audio.augment.sofa import count_responses, read_responses
from pipeline.audio.augment.sources import Source, SourcePool
from pipeline.audio.reading import read_audio
from pipeline.errors import AudioError, CorpusError


@pytest.fixture
def sofa(tmp_path: Path) -> Path:
    with h5py.File(tmp_path / "r.sofa", "w") as file:
        file["Data.IR"] = np.random.default_rng(0).standard_normal((3, 2, 50))
        file["Data.SamplingRate"] = [16_000.0]
    return tmp_path / "r.sofa"


def test_every_measurement_and_receiver_is_a_response(sofa: Path) -> None:
    responses = read_responses(sofa)
    assert responses.shape == (count_responses(sofa), 50) == (6, 50)
    with h5py.File(sofa) as file:
        np.testing.assert_array_equal(responses[3], np.asarray(file["Data.IR"], dtype=np.float32)[1, 1])
    pool = SourcePool({"rooms": [Source(sofa, index=3)]})
    np.testing.assert_array_equal(pool.read(Source(sofa, index=3)), responses[3])
    with pytest.raises(CorpusError, match="has no response 6"):
        pool.read(Source(sofa, index=6))


def test_other_rates_are_resampled(sofa: Path) -> None:
    with h5py.File(sofa, "a") as file:
        file["Data.SamplingRate"][:] = 48_000
    assert read_responses(sofa).shape == (6, 17)


@pytest.mark.parametrize("damage", ["missing", "not HDF5", "no responses", "NaN"])
def test_a_damaged_file_is_one_clear_line(sofa: Path, damage: str) -> None:
    if damage == "missing":
        sofa.unlink()
    elif damage == "not HDF5":
        sofa.write_text("rooms")
    else:
        with h5py.File(sofa, "a") as file:
            if damage == "NaN":
                file["Data.IR"][0, 0, 0] = np.nan
            else:
                del file["Data.IR"]
    with pytest.raises(AudioError) as caught:
        read_responses(sofa)
    assert str(caught.value).startswith(str(sofa))
    assert "\n" not in str(caught.value)


@pytest.mark.corpora
def test_a_real_sofa_file_holds_what_its_wav_files_hold(real_corpora: Path) -> None:
    responses = read_responses(real_corpora / "rir/surrey_room_a.sofa")
    assert responses.shape[0] == 74
    wave = read_audio(real_corpora / "rir/surrey_room_a/az000_L.wav")
    likeness = [abs(np.dot(wave, row[: len(wave)])) / np.linalg.norm(wave) / np.linalg.norm(row) for row in responses]
    assert max(likeness) > 0.999
