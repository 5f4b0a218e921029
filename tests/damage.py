"""Damage to files: flipped bits, lost ends, emptied and removed files, drawn with a seed."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

CountDamage = Callable[[str], None]
"""Counts an outcome: noticed, or harmless. Silent damage fails the test."""


def damages(content: bytes, flips: int, seed: int) -> Iterator[tuple[str, bytes | None]]:
    """Yield damaged contents of a file with a description: `flips` of single bits, and losses; None: file removed."""
    rng = np.random.default_rng(seed)
    for place in sorted(rng.choice(len(content), min(flips, len(content)), replace=False).tolist()):
        bit = int(rng.integers(8))
        yield f"bit {bit} of byte {place}", content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :]
    yield "empty", b""
    yield "cut", content[: len(content) // 2]
    yield "removed", None


def damage(file: Path, content: bytes | None) -> None:
    """Replace a file's content, or remove it for None; a hard link elsewhere keeps the old content."""
    file.unlink()
    if content is not None:
        file.write_bytes(content)
