"""Draw the corruption of a wave as a trace, and apply traces.

A trace is plain data for JSON. Corruptions are applied only from their trace, so a trace holds all that was drawn.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.audio.augment.corruption import Applied, Corruption, SpeechInfo
from pipeline.audio.augment.corruptions import find_corruption
from pipeline.audio.augment.sources import SourcePool
from pipeline.audio.augment.steps import OneOf, choose
from pipeline.audio.reading import Waveform

Trace = dict[str, Any]
"""One view: `start` of its crop in the utterance, in samples, and the `steps` that happened, in turn; the recording's
`warning`, if it has one."""


def corrupt(
    wave: Waveform,
    steps: Sequence[Corruption | OneOf],
    rng: np.random.Generator,
    pool: SourcePool,
    speaker: str | None = None,
    path: Path | None = None,
) -> tuple[Waveform, list[Applied]]:
    """Apply steps to a wave [S] in turn; return the result and the steps that happened.

    The speaker is kept out of the babble, or the file at `path` if the speaker is unknown.
    """
    speech, trace = SpeechInfo(len(wave), speaker, path), []
    for step in steps:
        corruption = choose(step, rng)
        if corruption is not None:
            applied = {"kind": corruption.kind} | corruption.draw(speech, pool, rng)
            wave = corruption.apply(wave, applied, pool)
            trace.append(applied)
    return wave, trace


def replay(wave: Waveform, steps: Sequence[Applied], pool: SourcePool) -> Waveform:
    """Corrupt a wave [S] as the steps of a trace say."""
    for applied in steps:
        wave = find_corruption(applied["kind"]).apply(wave, applied, pool)
    return wave


def dump_trace(trace: Trace) -> str:
    """Return a trace as JSON, the same text for the same trace."""
    return json.dumps(trace, separators=(",", ":"))
