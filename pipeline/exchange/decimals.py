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
    for place in np.flatnonzero(np.isfinite(numbers) & (singles != numbers)).tolist():
        # A float32 may be written with 6 digits or with 12: it is held if, written with as many, it is the same.
        mantissa = words[place].lower().partition("e")[0].strip().lstrip("+-0.")
        digits = max(1, sum(map(str.isdigit, mantissa)))
        if float(f"{singles[place]:.{digits - 1}e}") != numbers[place]:
            return numbers
    return singles
