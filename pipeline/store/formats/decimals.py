"""Decimal numbers of text files, whose precision is unknown."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def parse_decimals(words: Sequence[str]) -> NDArray[Any]:
    """Return numbers as float32, or float64 if float32 does not hold them; raise ValueError for other words."""
    numbers = np.array([float(word) for word in words], dtype=np.float64)
    with np.errstate(over="ignore"):
        singles = numbers.astype(np.float32)
    places = np.flatnonzero(np.isfinite(numbers) & (singles != numbers))
    # A float32 may be written with 6 or 12 digits: it holds a number if it rounds to the same digits.
    digits = np.array([_digits(words[place]) for place in places.tolist()], dtype=np.float64)
    size = np.abs(numbers[places])
    last = 10.0 ** (np.floor(np.log10(size)) - digits + 1)
    apart = np.abs(singles[places].astype(np.float64) - numbers[places])
    return numbers if (apart > 0.5 * last + 4e-16 * size).any() else singles  # 4e-16: float64's own error


def _digits(word: str) -> int:
    """Return the number of digits of a number other than 0, from the first that is not 0."""
    mantissa, _, _ = word.strip().lower().partition("e")
    # Trailing zeros of a whole number may only express its size.
    return len(mantissa.lstrip("+-0.").replace(".", "") if "." in mantissa else mantissa.strip("+-0"))
