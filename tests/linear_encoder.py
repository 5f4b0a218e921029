"""An encoder of voices that are made up, in place of a real one: linear, and another one for every seed."""

from dataclasses import dataclass

import numpy as np

DIM, VOICE, ROOM = 32, 12, 6


@dataclass(frozen=True)
class Speech:
    """What clean and noisy recordings hold: [N, draws, VOICE] and, of each view, [N, draws, views, ROOM]."""

    voice: np.ndarray
    room: np.ndarray
    speakers: list[str]


def speech(speakers: int = 24, each: int = 6, draws: int = 2, noisy: int = 3, seed: int = 0) -> Speech:
    """Some recordings of some speakers, several crops of each, clean and in several noises."""
    rng = np.random.default_rng(seed)
    count = speakers * each
    voice = np.repeat(rng.standard_normal((speakers, 1, VOICE)), each, axis=0) + 0.2 * rng.standard_normal(
        (count, draws, VOICE)
    )
    room = rng.standard_normal((count, draws, 1 + noisy, ROOM)) * np.array([0.1, *[1.0] * noisy])[:, None]
    return Speech(voice, room, [f"s{row // each}" for row in range(count)])


def encoded(speech: Speech, encoder: int = 0) -> np.ndarray:
    """Return embeddings [N, draws, views, DIM] float32 of lengths from 6 to 17, view 0 clean."""
    rng = np.random.default_rng([7, encoder])
    of_voice, of_room = rng.standard_normal((DIM, VOICE)), 2 * rng.standard_normal((DIM, ROOM))
    usual = 4 * rng.standard_normal(DIM)
    sums = speech.voice[:, :, None] @ of_voice.T + speech.room @ of_room.T + usual
    fuzz = np.random.default_rng(encoder).standard_normal(sums.shape)
    return (0.3 * (sums + 0.3 * fuzz)).astype(np.float32)
