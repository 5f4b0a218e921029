"""The protocol of `seed enhance --stdin`: enhance vectors one at a time, as lines of JSON or frames of float32.

Each vector is answered at once. The same vector gives the same bits, whatever came before it.
"""

import json
import math
import re
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal, TextIO

import click
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import SeedWarning, VectorError
from pipeline.model.diagnostics import Info
from pipeline.model.enhancer import Enhancer

OnBad = Literal["raise", "raw"]
StreamFormat = Literal["json", "f32"]
EMBEDDING = "embedding"
"""The key of a JSON object that holds the vector."""
FRAME = np.dtype("<f4")
"""The type of the numbers in a frame."""
_INFO_KEYS = ("moved", "atypicality", "confidence", "out_of_distribution")


def serve_stdin(
    enhancer: Enhancer, stream_format: StreamFormat, strength: float | None, on_bad: OnBad, with_info: bool
) -> None:
    """Enhance the vectors of standard input to standard output, until it ends.

    Raises:
        VectorError: a line or frame is malformed. Those before it were answered.
    """
    if stream_format == "json":
        answers = enhance_lines(enhancer, sys.stdin.buffer, strength, on_bad, with_info)
    else:
        frames = iter(partial(sys.stdin.buffer.read, frame_size(enhancer)), b"")
        answers = enhance_frames(enhancer, frames, strength, on_bad)
    for answer in answers:
        sys.stdout.buffer.write(answer)
        sys.stdout.buffer.flush()


@contextmanager
def warnings_on_stderr() -> Iterator[None]:
    """Print each kind of `SeedWarning` on a line of stderr, once even if its figures differ."""
    printed = set()

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        kind = re.sub(r"[\d.]+", "", str(message))
        if kind not in printed:
            printed.add(kind)
            click.echo(f"seed: warning: {message}", err=True)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", SeedWarning)
        warnings.showwarning = show
        yield


def frame_size(enhancer: Enhancer) -> int:
    """Return the number of bytes in a frame."""
    return enhancer.dim * FRAME.itemsize


def enhance_frames(
    enhancer: Enhancer, frames: Iterable[bytes], strength: float | None = None, on_bad: OnBad = "raise"
) -> Iterator[bytes]:
    """Yield the enhanced vector of each frame.

    Args:
        enhancer: the model, for vectors of D numbers.
        frames: D little-endian float32 each, so `frame_size` bytes.
        strength: 0 (raw) to 1 (fully enhanced), by default that of the enhancer.
        on_bad: treatment of vectors with NaN or infinite values: `raise`, or return them `raw`.

    Raises:
        VectorError: a frame is too short, or bad. Those before it were yielded.
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
    """Yield each line of JSON again, with its vector enhanced.

    Args:
        enhancer: the model, for vectors of D numbers.
        lines: each a list of D numbers, or an object with such a list as `embedding`; its other keys are kept. `null`
            counts as NaN. A number beyond the range of floats, such as 1e400, is returned as `null`.
        strength: 0 (raw) to 1 (fully enhanced), by default that of the enhancer.
        on_bad: treatment of vectors with NaN or infinite values: `raise`, or return them `raw`.
        with_info: add `moved`, `atypicality`, `confidence` and `out_of_distribution` (see `Info`) to the object. A
            list becomes an object.

    Raises:
        VectorError: a line is malformed, or its vector is bad. Those before it were answered.
    """
    for number, line in enumerate(lines, 1):
        place = f"line {number}"
        record, vector = _parse(line, place)
        x = _to_array(vector, enhancer.dim, place)
        extra: dict[str, Any] = {}
        usable = _usable(x, place, on_bad)
        if with_info:
            out, info = enhancer.enhance(x, strength, return_info=True, on_bad="raw")
            extra = _describe(info)
        elif usable:
            out = enhancer.enhance(x, strength)
        if usable:
            vector = out.tolist()
        if taken := sorted(extra.keys() & (record or {}).keys()):
            raise VectorError(f"{place}: already has {', '.join(taken)}. Rename these keys, or leave out --info.")
        answer = vector if record is None and not with_info else {**(record or {}), EMBEDDING: vector, **extra}
        yield json.dumps(answer).encode() + b"\n"


def _parse(line: bytes, place: str) -> tuple[dict[str, Any] | None, Any]:
    """Return the object of a line (None if it is a bare list), and its vector."""
    try:
        content = json.loads(line.decode("utf-8-sig"), parse_float=_finite)
    except (ValueError, RecursionError) as error:  # ValueError also for other encodings than UTF-8 and huge integers
        raise VectorError(f"{place}: is not JSON ({' '.join(str(error).split())[:100]}).") from None
    if not isinstance(content, dict):
        return None, content
    if EMBEDDING not in content:
        raise VectorError(f"{place}: the object has no key {EMBEDDING!r}.")
    return content, content[EMBEDDING]


def _finite(text: str) -> float | None:
    value = float(text)
    return value if math.isfinite(value) else None  # JSON has no infinity


def _to_array(vector: Any, dim: int, place: str) -> NDArray[np.float64]:
    if not isinstance(vector, list):
        raise VectorError(
            f"{place}: holds no list of numbers. Give [1.5, …], or an object with {EMBEDDING!r}: [1.5, …]."
        )
    if len(vector) != dim:
        raise VectorError(f"{place}: has {len(vector)} numbers; the model takes {dim}, the dimension of its encoder.")
    return np.array([_to_float(value, place) for value in vector], np.float64)


def _to_float(value: Any, place: str) -> float:
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise VectorError(f"{place}: {json.dumps(value)[:40]} is not a number.")
    try:
        return float(value)
    except OverflowError:  # an integer beyond the range of floats
        return math.inf


def _usable(x: NDArray[np.floating[Any]], place: str, on_bad: OnBad) -> bool:
    finite = bool(np.isfinite(x).all())
    if not finite and on_bad == "raise":
        raise VectorError(
            f"{place}: holds NaN or infinite values. Leave it out, or use --on-bad raw to return it unchanged."
        )
    return finite


def _describe(info: Info) -> dict[str, Any]:
    """Return the diagnostics of a vector. Infinite and unknown values are null, because JSON has no infinity."""
    confidence = math.nan if info.confidence is None else float(info.confidence)
    values = [float(info.moved), float(info.atypicality), confidence, bool(info.out_of_distribution)]
    return {key: value if math.isfinite(value) else None for key, value in zip(_INFO_KEYS, values, strict=True)}
