"""Recipes: the views of an utterance in a store, and their corruption."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.audio.augment.corrupt import Trace, corrupt
from pipeline.audio.augment.corruption import Applied, Corruption
from pipeline.audio.augment.sources import Source, SourcePool
from pipeline.audio.augment.steps import OneOf, alternatives
from pipeline.audio.reading import Waveform, cut, even_starts, random_start
from pipeline.errors import CorpusError


def stream(seed: int, utterance: str, draw: int, view: str) -> np.random.Generator:
    """Return the random generator of one view, independent of all other views and of the order of calls."""
    key = "\0".join((str(seed), utterance, str(draw), view)).encode()
    return np.random.Generator(np.random.PCG64(int.from_bytes(hashlib.blake2b(key, digest_size=16).digest())))


@dataclass(frozen=True)
class View:
    """A named chain of corruptions; the clean view has none."""

    name: str
    steps: tuple[Corruption | OneOf, ...] = ()


@dataclass(frozen=True)
class ViewAudio:
    """A view of an utterance: its wave [S] at 16 kHz, and the trace of its corruption."""

    wave: Waveform
    trace: Trace


@dataclass(frozen=True)
class Recipe:
    """The content of a store for every utterance: `draws` crops of each view.

    A training recipe cuts random crops and corrupts each one separately. An evaluation recipe corrupts the whole
    recording once, as a microphone would, and then cuts evenly spaced crops.
    """

    views: tuple[View, ...]
    draws: int
    crop: int | None
    """Number of samples in a crop, or None for the whole recording (evaluation only)."""
    evaluation: bool

    def corruptions(self) -> list[Corruption]:
        """Return all corruptions that may happen."""
        return [corruption for view in self.views for step in view.steps for corruption in alternatives(step)]

    def source_kinds(self) -> set[str]:
        """Return the kinds of sources that the steps draw from."""
        return {corruption.source for corruption in self.corruptions() if corruption.source}


def make_views(
    recipe: Recipe,
    wave: Waveform,
    seed: int,
    utterance: str,
    pool: SourcePool,
    speaker: str | None = None,
    path: Path | None = None,
    warning: str | None = None,
) -> list[list[ViewAudio]]:
    """Return the waves and traces [draws][views] of one utterance, a function of (seed, utterance, draw, view).

    `utterance` is the id, and `wave` [S] is 16 kHz mono. The speaker is kept out of the babble, or the file at `path`
    if the speaker is unknown. The `warning` of the recording goes into the traces.
    """
    noted = {"warning": warning} if warning else {}

    def corrupt_views(wave: Waveform, draw: int) -> list[tuple[Waveform, list[Applied]]]:
        rngs = [stream(seed, utterance, draw, view.name) for view in recipe.views]
        return [
            corrupt(wave, view.steps, rng, pool, speaker, path) for view, rng in zip(recipe.views, rngs, strict=True)
        ]

    if recipe.evaluation:
        corrupted = corrupt_views(wave, 0)
        return [
            [
                ViewAudio(cut(each, start, recipe.crop), {"start": start, "steps": steps, **noted})
                for each, steps in corrupted
            ]
            for start in even_starts(len(wave), recipe.draws, recipe.crop)
        ]
    length = recipe.crop or len(wave)
    draws = []
    for draw in range(recipe.draws):
        start = random_start(len(wave), length, stream(seed, utterance, draw, "crop"))
        corrupted = corrupt_views(cut(wave, start, length), draw)
        draws.append([ViewAudio(each, {"start": start, "steps": steps, **noted}) for each, steps in corrupted])
    return draws


def check_sources(recipe: Recipe, sources: Mapping[str, Sequence[Source]], where: object) -> None:
    """Raise unless every step of a recipe can be applied.

    Raises:
        CorpusError: there are no sources for a step.
        ConfigError: libsndfile lacks a codec.
    """
    if missing := sorted(kind for kind in recipe.source_kinds() if not sources.get(kind)):
        names = "+".join(view.name for view in recipe.views)
        raise CorpusError(
            f"{where}: no {', '.join(missing)} files, which the recipe {names} needs."
            " Add them to the augmentation list, or leave the condition out."
        )
    for corruption in recipe.corruptions():
        corruption.check()
