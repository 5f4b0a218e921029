import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from pipeline.data.demo import rooms
from pipeline.data.demo.rooms import TEST_ROOMS, TRAIN_ROOMS
from pipeline.errors import CorpusError


def test_reverberation_time_of_an_exponential_decay() -> None:
    time = np.arange(16000) / 16000
    response = np.random.default_rng(0).standard_normal(16000) * 10 ** (-3 * time / 0.4)
    assert rooms.measure_rt60(response) == pytest.approx(0.4, rel=0.03)


@pytest.mark.parametrize("kind", [TRAIN_ROOMS, TEST_ROOMS], ids=["train", "test"])
def test_places_keep_their_distances(kind: rooms.RoomRange) -> None:
    for index in range(200):
        room = rooms.draw_room(index, 1, kind)
        bounds = (kind.length, kind.width, kind.height)
        assert all(low <= side <= high for side, (low, high) in zip(room.size, bounds, strict=True))
        assert kind.rt60[0] <= room.rt60 <= kind.rt60[1]
        for place in (room.talker, room.microphone):
            assert (place >= 0.5).all()
            assert (place <= room.size - 0.5).all()
        assert np.linalg.norm(room.talker - room.microphone) >= 1.0


@pytest.mark.parametrize("kind", [TRAIN_ROOMS, TEST_ROOMS], ids=["train", "test"])
def test_a_room_reverberates_as_asked(kind: rooms.RoomRange) -> None:
    pytest.importorskip("pyroomacoustics")
    for index in range(4):
        response = rooms.simulate_room(index, 2, kind)
        assert response.dtype == np.float32
        assert np.abs(response).max() == 1
        assert rooms.measure_rt60(response) == pytest.approx(rooms.draw_room(index, 2, kind).rt60, rel=0.25)


def test_a_room_is_deterministic_whatever_the_random_state(tmp_path: Path) -> None:
    pytest.importorskip("pyroomacoustics")
    first = rooms.simulate_room(0, 1)
    np.random.seed(123)  # noqa: NPY002 - the global state is what must not matter
    np.testing.assert_array_equal(first, rooms.simulate_room(0, 1))
    assert not np.array_equal(first, rooms.simulate_room(1, 1))
    assert not np.array_equal(first, rooms.simulate_room(0, 2))

    written: list[None] = []
    rooms.write_rooms(tmp_path, 2, 1, wrote=lambda: written.append(None))
    assert len(written) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["room000.wav", "room001.wav"]
    response, rate = soundfile.read(tmp_path / "room000.wav", dtype="float32")
    info = soundfile.info(tmp_path / "room000.wav")
    assert (rate, info.channels, info.subtype) == (16000, 1, "FLOAT")
    np.testing.assert_array_equal(response, first)
    # libsndfile would note the time of writing here, and two runs would differ.
    assert b"PEAK" not in (tmp_path / "room000.wav").read_bytes()[:100]


def test_without_pyroomacoustics_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyroomacoustics", None)
    with pytest.raises(CorpusError, match=r"pip install '\.\[rooms\]'"):
        rooms.simulate_room(0, 1)
