"""Recipes: which views of an utterance a store holds, and how each one is corrupted."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.audio import Waveform, even_crops, random_crop
from pipeline.augment.effects import add_at_snr, babble, reverberate
from pipeline.augment.sources import Source, SourcePool
from pipeline.augment.streams import stream
from pipeline.errors import ConfigError, CorpusError

TALKERS = (3, 7)
"""Fewest and most voices in babble, as in the usual MUSAN recipes."""

_PART = re.compile(r"(?P<kind>noise|music|babble)(?P<snr>-?\d+)|(?P<room>reverb)")


@dataclass(frozen=True)
class Step:
    """One corruption: `kind` is noise, music, babble, noise|babble or rooms; `snr` is drawn from (low, high) dB."""

    kind: str
    snr: tuple[float, float] = (0.0, 0.0)
    babble_share: float = 0.0


@dataclass(frozen=True)
class View:
    """A named chain of corruptions; the clean view has none."""

    name: str
    steps: tuple[Step, ...] = ()


@dataclass(frozen=True)
class Recipe:
    """What is stored for every utterance: `draws` crops of each view.

    A training recipe crops first, at random, and corrupts each crop anew; an evaluation recipe corrupts the whole
    recording once, as a microphone would, and then cuts evenly spaced crops.
    """

    views: tuple[View, ...]
    draws: int
    crop: int | None
    """Samples in a crop, or None for the whole recording (evaluation only)."""
    evaluation: bool

    def kinds(self) -> set[str]:
        """Return the kinds of sources the steps draw on."""
        steps = [step for view in self.views for step in view.steps]
        return {step.kind for step in steps} | {"babble" for step in steps if step.babble_share > 0}


def training_recipe(
    draws: int,
    crop: int,
    noise_snr: tuple[float, float],
    music_snr: tuple[float, float],
    babble_share: float,
) -> Recipe:
    """Return the recipe of SEED's training pairs: clean, noise, music and reverberation on fresh crops."""
    views = (
        View("clean"),
        View("noise", (Step("noise", noise_snr, babble_share),)),
        View("music", (Step("music", music_snr),)),
        View("reverb", (Step("rooms"),)),
    )
    return Recipe(views, draws, crop, evaluation=False)


def condition_view(name: str) -> View:
    """Read a condition's name: `clean`, or parts joined by `_` of noise<dB>, music<dB>, babble<dB> and reverb.

    Raises:
        ConfigError: the name is no such condition.
    """
    if name == "clean":
        return View(name)
    steps = []
    for part in name.split("_"):
        match = _PART.fullmatch(part)
        if match is None:
            raise ConfigError(
                f"unknown condition {name!r}: it is 'clean', or noise<dB>, music<dB>, babble<dB> and reverb"
                " joined by '_', for example noise5 or reverb_noise5"
            )
        snr = float(match["snr"] or 0)
        if not -60 <= snr <= 100:
            raise ConfigError(f"condition {name!r}: an SNR of {snr:g} dB leaves nothing of one signal or the other")
        steps.append(Step("rooms") if match["room"] else Step(match["kind"], (snr, snr)))
    return View(name, tuple(steps))


def condition_recipe(name: str, crops: int, crop: int | None) -> Recipe:
    """Return the recipe of an evaluation condition: one view, `crops` evenly spaced crops of `crop` samples."""
    return Recipe((condition_view(name),), crops, crop, evaluation=True)


def make_views(
    recipe: Recipe,
    wave: Waveform,
    seed: int,
    utterance: str,
    pool: SourcePool,
    speaker: str | None = None,
    own: Path | None = None,
) -> list[list[Waveform]]:
    """Return the waves [draws][views] of one utterance, a pure function of (seed, utterance, draw, view).

    Args:
        recipe: what to make.
        wave: the utterance, 16 kHz mono [S].
        seed: the run's seed.
        utterance: its id.
        pool: noise, music, rooms and talkers to draw on.
        speaker: its speaker, whose own voice is kept out of the babble.
        own: its file, kept out of the babble where the speaker is unknown.
    """
    if recipe.evaluation:
        corrupted = [
            corrupt(wave, view, stream(seed, utterance, 0, view.name), pool, speaker, own) for view in recipe.views
        ]
        crops = [even_crops(each, recipe.draws, recipe.crop) for each in corrupted]
        return [list(views) for views in zip(*crops, strict=True)]
    draws = []
    for draw in range(recipe.draws):
        crop = random_crop(wave, recipe.crop or len(wave), stream(seed, utterance, draw, "crop"))
        draws.append(
            [corrupt(crop, view, stream(seed, utterance, draw, view.name), pool, speaker, own) for view in recipe.views]
        )
    return draws


def corrupt(
    wave: Waveform,
    view: View,
    rng: np.random.Generator,
    pool: SourcePool,
    speaker: str | None = None,
    own: Path | None = None,
) -> Waveform:
    """Apply a view's steps to a wave [S] in turn, with sources and SNRs drawn from `rng`."""
    for step in view.steps:
        if step.kind == "rooms":
            wave = reverberate(wave, pool.read(pick(pool.sources["rooms"], rng)))
            continue
        kind = "babble" if step.babble_share > 0 and rng.random() < step.babble_share else step.kind
        if kind == "babble":
            noise = _babble(pool, len(wave), rng, speaker, own)
        else:
            noise = random_crop(pool.read(pick(pool.sources[kind], rng)), len(wave), rng)
        wave = add_at_snr(wave, noise, float(rng.uniform(*step.snr)))
    return wave


def check_sources(recipe: Recipe, sources: Mapping[str, Sequence[Source]], where: Path | str) -> None:
    """Raise CorpusError unless there is something to draw on for every step of a recipe."""
    missing = sorted(kind for kind in recipe.kinds() if not sources.get(kind))
    if missing:
        names = "+".join(view.name for view in recipe.views)
        raise CorpusError(
            f"{where}: no {', '.join(missing)} files, which the recipe {names} needs."
            " Add them to the augmentation list, or leave the condition out."
        )


def pick(sources: Sequence[Source], rng: np.random.Generator) -> Source:
    """Draw one source, each as likely as any other."""
    return sources[int(rng.integers(len(sources)))]


def _babble(pool: SourcePool, length: int, rng: np.random.Generator, speaker: str | None, own: Path | None) -> Waveform:
    """Mix a few talkers; one file a talker, never the utterance's own speaker."""
    groups = pool.talkers(speaker, own)
    if not groups:
        raise CorpusError("babble needs talkers other than the utterance's own speaker; add some to the babble list")
    count = int(rng.integers(TALKERS[0], TALKERS[1] + 1))
    chosen = rng.choice(len(groups), size=min(count, len(groups)), replace=False)
    return babble([pool.read(pick(groups[int(index)], rng)) for index in chosen], length, rng)
