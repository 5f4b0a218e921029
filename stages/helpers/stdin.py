"""Vectors that come one at a time, from another program: lines of JSON, or frames of float32.

Each is enhanced by itself, so that whoever waits for an answer has it at once, and the same vector gives the same bits
whatever came before it, or with it.
"""

import json
import math
from collections.abc import Iterable, Iterator
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import VectorError
from pipeline.model.diagnostics import Info
from pipeline.model.enhancer import Enhancer

OnBad = Literal["raise", "raw"]
Form = Literal["json", "f32"]
EMBEDDING = "embedding"
"""The key of an object that holds the vector."""
FRAME = np.dtype("<f4")
"""What a frame is made of."""
_TOLD = ("moved", "atypicality", "confidence", "out_of_distribution")


def frame_size(enhancer: Enhancer) -> int:
    """Return the bytes of a vector in a frame."""
    return enhancer.dim * FRAME.itemsize


def enhance_frames(
    enhancer: Enhancer, frames: Iterable[bytes], strength: float | None = None, on_bad: OnBad = "raise"
) -> Iterator[bytes]:
    """Yield the enhanced vector of each frame, which is D little-endian float32 without anything between.

    Args:
        enhancer: of vectors of D numbers.
        frames: of `frame_size` bytes each.
        strength: 0 (raw) to 1 (all of the way), by default that of the enhancer.
        on_bad: what to do about vectors with NaN or infinite values: `raise`, or hand them back `raw`.

    Raises:
        VectorError: a frame is too short, or bad; those before it were yielded.
    """
    size = frame_size(enhancer)
    for number, frame in enumerate(frames, 1):
        if len(frame) != size:
            raise VectorError(
                f"frame {number}: has {len(frame)} bytes; the model takes {enhancer.dim} float32, which are {size}."
            )
        x = np.frombuffer(frame, FRAME)
        if _usable(x, f"frame {number}", on_bad):
            yield enhancer.enhance(x, strength).astype(FRAME, copy=False).tobytes()
        else:
            yield frame


def enhance_lines(
    enhancer: Enhancer,
    lines: Iterable[bytes],
    strength: float | None = None,
    on_bad: OnBad = "raise",
    with_info: bool = False,
) -> Iterator[bytes]:
    """Yield a line of JSON for each, with the vector enhanced.

    Args:
        enhancer: of vectors of D numbers.
        lines: each a list of D numbers, or an object whose `embedding` is one and whose other keys are kept. `null` is
            no number, as NaN is none; a number beyond all floats, such as 1e400, becomes it.
        strength: 0 (raw) to 1 (all of the way), by default that of the enhancer.
        on_bad: what to do about vectors with what is no number or infinite: `raise`, or hand them back `raw`.
        with_info: whether to add `moved`, `atypicality`, `confidence` and `out_of_distribution`, see `Info`, to the
            object; a list becomes one.

    Raises:
        VectorError: a line is no such JSON, or bad; those before it were answered.
    """
    for number, line in enumerate(lines, 1):
        place = f"line {number}"
        record, given = _parsed(line, place)
        x = _numbers(given, enhancer.dim, place)
        result = given
        told: dict[str, Any] = {}
        usable = _usable(x, place, on_bad)
        if with_info:
            out, info = enhancer.enhance(x, strength, return_info=True, on_bad="raw")
            told = _described(info)
        elif usable:
            out = enhancer.enhance(x, strength)
        if usable:
            result = out.tolist()
        if taken := sorted(told.keys() & (record or {}).keys()):
            raise VectorError(f"{place}: has {', '.join(taken)} of its own. Rename them, or do without --info.")
        answer = result if record is None and not with_info else {**(record or {}), EMBEDDING: result, **told}
        yield json.dumps(answer).encode() + b"\n"


def _parsed(line: bytes, place: str) -> tuple[dict[str, Any] | None, Any]:
    """Return the object of a line, if it is one, and its vector."""
    try:
        content = json.loads(line.decode("utf-8-sig"), parse_float=_float)
    except (ValueError, RecursionError) as error:  # ValueError: also of text that is not UTF-8, and of huge integers
        raise VectorError(f"{place}: is no JSON ({' '.join(str(error).split())[:100]}).") from None
    if not isinstance(content, dict):
        return None, content
    if EMBEDDING not in content:
        raise VectorError(f"{place}: the object has no key {EMBEDDING!r}.")
    return content, content[EMBEDDING]


def _float(text: str) -> float | None:
    value = float(text)
    return value if math.isfinite(value) else None  # JSON has no word for infinity


def _numbers(given: Any, dim: int, place: str) -> NDArray[np.float64]:
    if not isinstance(given, list):
        raise VectorError(
            f"{place}: holds no list of numbers. Give [1.5, …], or an object with {EMBEDDING!r}: [1.5, …]."
        )
    if len(given) != dim:
        raise VectorError(f"{place}: has {len(given)} numbers; the model takes {dim}, of its own encoder.")
    return np.array([_number(value, place) for value in given], np.float64)


def _number(value: Any, place: str) -> float:
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise VectorError(f"{place}: {json.dumps(value)[:40]} is no number.")
    try:
        return float(value)
    except OverflowError:  # an integer beyond all floats
        return math.inf


def _usable(x: NDArray[np.floating[Any]], place: str, on_bad: OnBad) -> bool:
    finite = bool(np.isfinite(x).all())
    if not finite and on_bad == "raise":
        raise VectorError(f"{place}: holds NaN or infinite values. Leave it out, or get it back with --on-bad raw.")
    return finite


def _described(info: Info) -> dict[str, Any]:
    """Return what is told of a vector; null for infinity, which JSON has no word for, and for what nobody knows."""
    sure = math.nan if info.confidence is None else float(info.confidence)
    values = [float(info.moved), float(info.atypicality), sure, bool(info.out_of_distribution)]
    return {key: value if math.isfinite(value) else None for key, value in zip(_TOLD, values, strict=True)}
