"""Recipes of sets: the training views, or one evaluation condition."""

from collections.abc import Mapping, Sequence

from pipeline.audio.augment.corruption import Corruption
from pipeline.audio.augment.recipe import Recipe, View
from pipeline.audio.augment.steps import OneOf
from pipeline.config.conditions import condition_steps
from pipeline.config.extract import frames_to_samples
from pipeline.config.params import TRAIN, Params


def training_recipe(draws: int, crop: int, views: Mapping[str, Sequence[Corruption | OneOf]]) -> Recipe:
    """Return the recipe of training pairs: random crops, clean and as each of `views` corrupts them."""
    noisy = (View(name, tuple(steps)) for name, steps in views.items())
    return Recipe((View("clean"), *noisy), draws, crop, evaluation=False)


def condition_recipe(name: str, crops: int, crop: int | None) -> Recipe:
    """Return the recipe of an evaluation condition: one view, `crops` evenly spaced crops of `crop` samples."""
    return Recipe((View(name, condition_steps(name)),), crops, crop, evaluation=True)


def recipe_for(params: Params, name: str) -> Recipe:
    """Return the recipe of a set: the training views, or one evaluation condition.

    Raises:
        ConfigError: the name is neither the training set nor a condition.
    """
    extract = params.extract
    if name == TRAIN:
        return training_recipe(extract.draws, frames_to_samples(extract.frames), extract.views)
    frames = extract.eval_frames
    return condition_recipe(name, extract.eval_crops, None if frames is None else frames_to_samples(frames))
