"""How far a pass over training pairs is."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from time import perf_counter
from typing import TypeVar

_Part = TypeVar("_Part")


@dataclass(frozen=True)
class Pace:
    """How far a pass over the pairs is."""

    epoch: int
    """0 is the pass that fits the preconditioner of a streamed store."""
    done: int
    pairs: int
    rate: float
    """Pairs per second since the pass began."""
    what: str = ""
    """Of several trainings, which it is."""


Watch = Callable[[Pace], None]


def watched(
    parts: Iterable[_Part], size: Callable[[_Part], int], pairs: int, epoch: int, watch: Watch | None
) -> Iterator[_Part]:
    """Yield the parts of a pass, and tell after each how far it is."""
    started, done = perf_counter(), 0
    for part in parts:
        yield part
        done += size(part)
        if watch:
            watch(Pace(epoch, done, pairs, done / (perf_counter() - started)))
