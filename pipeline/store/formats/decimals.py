"""Numbers of text files, which do not say how precise they were."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def parsed(words: Sequence[str]) -> NDArray[Any]:
    """Return decimal numbers as float32, or as float64 if float32 does not hold them.

    Raises:
        ValueError: one is no number.
    """
    numbers = np.array([float(word) for word in words], dtype=np.float64)
    with np.errstate(over="ignore"):
        singles = numbers.astype(np.float32)
    places = np.flatnonzero(np.isfinite(numbers) & (singles != numbers))
    # A float32 may be written with 6 digits or with 12: it is held if, rounded to as many, it is the same.
    digits = np.array([_digits(words[place]) for place in places.tolist()], dtype=np.float64)
    size = np.abs(numbers[places])
    last = 10.0 ** (np.floor(np.log10(size)) - digits + 1)
    apart = np.abs(singles[places].astype(np.float64) - numbers[places])
    return numbers if (apart > 0.5 * last + 4e-16 * size).any() else singles  # that much float64 itself is wrong


def _digits(word: str) -> int:
    """Return how many digits a number other than 0 has, from the first that is not 0."""
    mantissa, _, _ = word.strip().lower().partition("e")
    # Zeros before the point may be there for the size of the number alone.
    return len(mantissa.lstrip("+-0.").replace(".", "") if "." in mantissa else mantissa.strip("+-0"))
