"""One independent random stream for every (seed, utterance, draw, view)."""

import hashlib

import numpy as np


def stream(seed: int, utterance: str, draw: int, view: str) -> np.random.Generator:
    """Return the generator of one view, whoever asks for it and in whatever order."""
    key = "\0".join((str(seed), utterance, str(draw), view)).encode()
    return np.random.Generator(np.random.PCG64(int.from_bytes(hashlib.blake2b(key, digest_size=16).digest())))
