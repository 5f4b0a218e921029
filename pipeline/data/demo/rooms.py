"""Simulated rooms: shoebox room impulse responses by the image source method (pyroomacoustics)."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.io import wavfile

from pipeline.errors import CorpusError

SAMPLE_RATE = 16000
# Maximum number of reflections: enough for a decay of 30 dB in all rooms drawn here, at 0.05 s per room.
MAX_ORDER = 40
WALL_DISTANCE = 0.5
TALKER_DISTANCE = 1.0


@dataclass(frozen=True)
class RoomRange:
    """Ranges (low, high) that rooms are drawn from uniformly, lengths in m, RT60 in s."""

    length: tuple[float, float]
    width: tuple[float, float]
    height: tuple[float, float]
    rt60: tuple[float, float]


TRAIN_ROOMS = RoomRange(length=(3, 9), width=(3, 8), height=(2.4, 4), rt60=(0.2, 0.8))
# Larger and more reverberant than the rooms of the training.
TEST_ROOMS = RoomRange(length=(5, 12), width=(4, 10), height=(2.6, 4.5), rt60=(0.4, 1.0))


@dataclass(frozen=True)
class Room:
    """One room: its size, the positions of talker and microphone [3] in m, and the desired RT60 in s."""

    size: NDArray[np.float64]
    talker: NDArray[np.float64]
    microphone: NDArray[np.float64]
    rt60: float


def draw_room(index: int, seed: int, rooms: RoomRange = TRAIN_ROOMS) -> Room:
    """Draw room number `index` of the family `seed`; both positions are 0.5 m off every wall and at least 1 m apart."""
    rng = np.random.default_rng([seed, index])
    size = np.array([rng.uniform(*bounds) for bounds in (rooms.length, rooms.width, rooms.height)])
    rt60 = float(rng.uniform(*rooms.rt60))
    while True:
        talker, microphone = rng.uniform(WALL_DISTANCE, size - WALL_DISTANCE, (2, 3))
        if np.linalg.norm(talker - microphone) >= TALKER_DISTANCE:
            return Room(size, talker, microphone, rt60)


def measure_rt60(response: NDArray[np.floating[Any]], sample_rate: int = SAMPLE_RATE) -> float:
    """Return the RT60 in s of an impulse response [taps]: Schroeder's backward integral, -5 to -25 dB, times three."""
    energy = np.cumsum(np.square(response[::-1], dtype=np.float64))[::-1]
    decay = 10 * np.log10(energy / energy[0] + 1e-12)
    return float(3 * (np.argmax(decay < -25) - np.argmax(decay < -5)) / sample_rate)


def simulate_room(index: int, seed: int, rooms: RoomRange = TRAIN_ROOMS) -> NDArray[np.float32]:
    """Return the impulse response [taps] of a room (see `draw_room`) at 16 kHz with peak 1, a pure function.

    Raises:
        CorpusError: pyroomacoustics is not installed.
    """
    room = draw_room(index, seed, rooms)
    volume, surface = float(room.size.prod()), 2 * float(room.size @ np.roll(room.size, 1))
    # Eyring: RT60 = 0.161 V / (-S ln(1 - absorption)). This holds for a diffuse field, and a flat room decays more
    # slowly. One correction by the measured decay gives the desired RT60.
    decay = 0.161 * volume / (surface * room.rt60)
    measured = measure_rt60(_image_sources(room, 1 - np.exp(-decay)))
    response = _image_sources(room, 1 - np.exp(-decay * measured / room.rt60))
    # The tail beyond the RT60 is inaudible, and would double the taps to convolve with.
    response = response[: int(np.argmax(np.abs(response))) + int(1.1 * room.rt60 * SAMPLE_RATE)]
    return np.asarray(response / np.abs(response).max(), dtype=np.float32)


def write_rooms(
    folder: Path, count: int, seed: int, rooms: RoomRange = TRAIN_ROOMS, wrote: Callable[[], None] = lambda: None
) -> None:
    """Write `room000.wav`, `room001.wav`, … into an existing folder: mono 32-bit float WAV, 16 kHz.

    Files of the same names are overwritten. `seed` is the family of rooms. `wrote` is called after each file.

    Raises:
        CorpusError: pyroomacoustics is not installed.
    """
    for index in range(count):
        # Not libsndfile, because its float WAV contains the time of writing (PEAK chunk).
        wavfile.write(folder / f"room{index:03d}.wav", SAMPLE_RATE, simulate_room(index, seed, rooms))
        wrote()


def _image_sources(room: Room, absorption: float) -> NDArray[np.float64]:
    """Return the impulse response [taps] of a shoebox whose walls absorb this share of the energy."""
    try:
        import pyroomacoustics
    except ImportError as error:
        need = "simulated rooms need pyroomacoustics, which is not installed: pip install '.[rooms]' (docs/install.md)"
        raise CorpusError(need) from error
    constants = pyroomacoustics.constants
    threads = constants.get("num_threads")
    # Threads add up the images in an arbitrary order. With one thread, the last bit does not depend on the machine.
    constants.set("num_threads", 1)
    try:
        walls = pyroomacoustics.Material(absorption)
        box = pyroomacoustics.ShoeBox(room.size, fs=SAMPLE_RATE, materials=walls, max_order=MAX_ORDER)
        box.add_source(room.talker)
        box.add_microphone(room.microphone)
        box.compute_rir()
    finally:
        constants.set("num_threads", threads)
    return np.asarray(box.rir[0][0], dtype=np.float64)
