"""Draw what happens to a wave, write it down as a trace, and do what a trace says.

A trace is plain data for JSON. What is drawn is done only by way of its trace, so a trace says all there is to know.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.audio.augment import effects as degradations
from pipeline.audio.augment.effects import add_at_snr, babble, reverberate
from pipeline.audio.augment.sources import Source, SourcePool
from pipeline.audio.reading import Waveform, random_start
from pipeline.config.corruption import SOURCES, TALKERS, Effect, OneOf, effects
from pipeline.errors import CorpusError

Applied = dict[str, Any]
"""One step as it happened: `kind`; `snr` in dB; `sources`, each a `path` as listed with the `start` of its crop in
samples or the `index` of its response; `percent`, `kbit` or `quality`."""

Trace = dict[str, Any]
"""One view: `start` of its crop in the utterance, in samples, and the `steps` that happened, in turn."""


def corrupt(
    wave: Waveform,
    steps: Sequence[Effect | OneOf],
    rng: np.random.Generator,
    pool: SourcePool,
    speaker: str | None = None,
    own: Path | None = None,
) -> tuple[Waveform, list[Applied]]:
    """Apply steps to a wave [S] in turn, all drawn from `rng`; return the result and what happened.

    Args:
        wave: speech.
        steps: what may happen.
        rng: of everything that is drawn.
        pool: noise, music, rooms and talkers to draw on.
        speaker: who speaks; nobody babbles behind their own speech.
        own: the speech's file, kept out of the babble where the speaker is unknown.
    """
    trace = []
    for step in steps:
        effect = _which(step, rng)
        if effect is not None:
            applied = _draw(effect, len(wave), rng, pool, speaker, own)
            wave = _apply(wave, applied, pool)
            trace.append(applied)
    return wave, trace


def replay(wave: Waveform, steps: Sequence[Applied], pool: SourcePool) -> Waveform:
    """Do to a wave [S] what a trace's steps say."""
    for applied in steps:
        wave = _apply(wave, applied, pool)
    return wave


def dump_trace(trace: Trace) -> str:
    """Return a trace as JSON, the same text for the same trace."""
    return json.dumps(trace, separators=(",", ":"))


def pick(sources: Sequence[Source], rng: np.random.Generator) -> Source:
    """Draw one source, each as likely as any other."""
    return sources[int(rng.integers(len(sources)))]


def _which(step: Effect | OneOf, rng: np.random.Generator) -> Effect | None:
    """Draw what happens in a step; what is certain draws nothing."""
    choices = effects(step)
    if len(choices) == 1 and choices[0].probability == 1:
        return choices[0]
    value, reached = rng.random(), 0.0
    for effect in choices:
        reached += effect.probability
        if value < reached or reached > 1 - 1e-9:  # 0.1 ten times is a little less than 1
            return effect
    return None


def _draw(
    effect: Effect, length: int, rng: np.random.Generator, pool: SourcePool, speaker: str | None, own: Path | None
) -> Applied:
    """Draw how an effect happens to `length` samples, and return its trace."""
    applied: Applied = {"kind": effect.kind}
    if effect.kind == "reverb":
        source = pick(pool.sources["rooms"], rng)
        place = {"path": source.name} | ({} if source.index is None else {"index": source.index})
        return applied | {"sources": [place]}
    if effect.kind in SOURCES:
        chosen = (
            _talkers(effect, pool, rng, speaker, own)
            if effect.kind == "babble"
            else [pick(pool.sources[SOURCES[effect.kind]], rng)]
        )
        starts = [random_start(pool.length(source), length, rng) for source in chosen]
        applied["sources"] = [{"path": s.name, "start": start} for s, start in zip(chosen, starts, strict=True)]
    for key in ("snr", "percent"):
        limits = getattr(effect, key)
        if limits is not None:
            applied[key] = float(rng.uniform(*limits))
    for key in ("kbit", "quality"):
        values = getattr(effect, key)
        if values is not None:
            applied[key] = values[int(rng.integers(len(values)))]
    return applied


def _talkers(
    effect: Effect, pool: SourcePool, rng: np.random.Generator, speaker: str | None, own: Path | None
) -> list[Source]:
    """Draw a few talkers; one file a talker, never the utterance's own speaker."""
    groups = pool.talkers(speaker, own)
    if not groups:
        raise CorpusError("babble needs talkers other than the utterance's own speaker; add some to the babble list")
    fewest, most = effect.talkers or TALKERS
    count = int(rng.integers(fewest, most + 1))
    chosen = rng.choice(len(groups), size=min(count, len(groups)), replace=False)
    return [pick(groups[int(index)], rng) for index in chosen]


def _apply(wave: Waveform, applied: Applied, pool: SourcePool) -> Waveform:
    """Do to a wave [S] what a step's trace says."""
    kind, places = applied["kind"], applied.get("sources", ())
    sources = [pool.find(place["path"], place.get("index")) for place in places]
    if kind == "reverb":
        return reverberate(wave, pool.read(sources[0]))
    if kind in SOURCES:
        placed = zip(sources, places, strict=True)
        crops = [pool.crop(source, place["start"], len(wave)) for source, place in placed]
        return add_at_snr(wave, babble(crops) if kind == "babble" else crops[0], applied["snr"])
    if kind in ("phone", "gsm"):
        return degradations.telephone(wave) if kind == "phone" else degradations.gsm(wave)
    if kind == "clip":
        return degradations.clip(wave, applied["percent"])
    if kind == "vorbis":
        return degradations.vorbis(wave, applied["quality"])
    return (degradations.mp3 if kind == "mp3" else degradations.opus)(wave, applied["kbit"])
