"""The one place for knobs: `params.yaml`, read through a validated, frozen model."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from pipeline.augment.recipe import Recipe, condition_recipe, training_recipe
from pipeline.augment.steps import Steps, condition_steps
from pipeline.encoders.definition import Denoise, EncoderDefinition
from pipeline.operating_points import STANDARD, OperatingPoint
from pipeline.systems import CohortUse, Column, System
from pipeline.train_settings import Enhance, Train, misfit
from pipeline.validation import Frozen, load_yaml, validated

HOP = 160
"""Samples in a frame's shift at 16 kHz."""
OVERHANG = 240
"""Samples of the last 400-sample window beyond its shift."""

_NAME = re.compile(r"[A-Za-z0-9_-]+")

TRAIN = "train"
"""The name of the training set; every other set is an evaluation condition."""


DEFAULT_VIEWS: dict[str, list[Any]] = {
    "noise": [
        {
            "one_of": [
                {"kind": "babble", "probability": 0.3, "snr": [0.0, 15.0], "talkers": [3, 7]},
                {"kind": "noise", "probability": 0.7, "snr": [0.0, 15.0]},
            ]
        }
    ],
    "music": [{"kind": "music", "snr": [5.0, 15.0]}],
    "reverb": [{"kind": "reverb"}],
}
"""The training views of `params.yaml`."""


def _named(views: dict[str, Steps]) -> dict[str, Steps]:
    for name in views:
        if name == "clean" or not _NAME.fullmatch(name):
            raise ValueError(f"view {name!r}: take a name of letters, digits, '-' and '_'; 'clean' is there already")
    return views


Views = Annotated[dict[str, Steps], Field(min_length=1), AfterValidator(_named)]


class Cutting(Frozen):
    """How much of the corpus to use (null: all)."""

    max_speakers: int | None = Field(None, ge=1)
    max_utterances: int | None = Field(None, ge=1)


class Extract(Frozen):
    """Stage one: encode clean and corrupted crops."""

    draws: int = Field(4, ge=1)
    frames: int = Field(200, ge=10)
    views: Views = Field(DEFAULT_VIEWS, validate_default=True)
    eval_crops: int = Field(1, ge=1)
    eval_frames: int | None = Field(None, ge=10)
    shard: int = Field(64, ge=1)
    batch: int = Field(1, ge=1)
    scheduler: str = Field("threads", pattern=r"^(threads|processes|[a-z]+://.+)$")
    workers: int = Field(2, ge=0)
    prefetch: int = Field(2, ge=0)
    max_failures: int = Field(10, ge=0)
    short_audio: Literal["wrap", "fail"] = "wrap"
    precision: Literal["float32", "float16", "bfloat16"] = "float32"
    device: str = "auto"


class Score(Frozen):
    """Trials and what is measured on them."""

    max_trials: int = Field(1_000_000, ge=2)
    comparison: Literal["cosine", "pairwise"] = "cosine"
    both_sides: bool = True
    format: Literal["csv", "kaldi", "txt"] = "csv"
    bootstrap: int = Field(1000, ge=0)
    operating_points: list[OperatingPoint] = Field(list(STANDARD), min_length=1)
    systems: dict[str, System] = Field({})
    cohort: CohortUse = CohortUse()
    groups: dict[Column, list[float]] = Field({"gender": [], "age": [18.0], "duration": [3.0, 6.0]})

    @model_validator(mode="after")
    def _points_differ(self) -> "Score":
        if len({point.name for point in self.operating_points}) < len(self.operating_points):
            raise ValueError("operating_points must differ from each other")
        for column, edges in self.groups.items():
            if column == "gender" and edges:
                raise ValueError("groups.gender has no edges; only numbers are cut into ranges")
            if sorted(set(edges)) != edges:
                raise ValueError(f"groups.{column} must rise")
        for name in self.systems:
            if not _NAME.fullmatch(name):
                raise ValueError(f"system name {name!r}: use letters, digits, '-' and '_'")
        return self


class Quality(Frozen):
    """Thresholds of `seed store check`, as shares from 0 to 1, and how much it looks at."""

    max_missing: float = Field(0.0, ge=0, le=1)
    max_failed: float = Field(0.05, ge=0, le=1)
    max_broken: float = Field(0.0, ge=0, le=1)
    max_duplicates: float = Field(0.05, ge=0, le=1)
    duplicate_cosine: float = Field(0.99, ge=-1, le=1)
    max_cosine: float = Field(0.999, ge=-1, le=1)
    max_clipped: float = Field(0.1, ge=0, le=1)
    max_upsampled: float = Field(0.1, ge=0, le=1)
    rows: int = Field(20_000, ge=2)
    files: int = Field(50, ge=1)


class Params(Frozen):
    """All of `params.yaml`."""

    corpus: str = "demo"
    data_root: str | None = None
    seed: int = Field(0, ge=0, lt=2**63)
    encoders: list[str] = Field(["ge2e"], min_length=1)
    encoder: dict[str, EncoderDefinition] = Field(
        {name: EncoderDefinition(family=name) for name in ("ge2e", "campplus")}
    )
    sets: list[str] = Field([TRAIN, "clean", "noise0"])
    conditions: list[str] = Field(["clean", "noise0"], min_length=1)
    manifest: Cutting = Cutting()
    extract: Extract = Extract()
    train: Train = Train()
    enhance: Enhance = Enhance()
    score: Score = Score()
    quality: Quality = Quality()

    @model_validator(mode="after")
    def _sets_are_train_and_conditions(self) -> "Params":
        for name in self.conditions:
            condition_steps(name)
        for key, names in (("encoders", self.encoders), ("conditions", self.conditions)):
            if len(set(names)) < len(names):
                raise ValueError(f"{key} must differ from each other")
        for name in (*self.encoders, *self.encoder):
            if not _NAME.fullmatch(name):
                raise ValueError(f"encoder name {name!r}: use letters, digits, '-' and '_', for it names folders")
        if "clean" not in self.conditions:
            raise ValueError("conditions must hold 'clean', the enrolment side of every trial")
        if self.sets != [TRAIN, *self.conditions]:
            raise ValueError(f"sets must be '{TRAIN}' followed by the conditions, in the same order")
        if wrong := self.train.misfit_of_timestep(self.enhance.timestep):
            raise ValueError(f"enhance.timestep {self.enhance.timestep}: of train, {wrong}")
        wrong = misfit(self.train.objective, self.enhance.steps, self.enhance.noise)
        if wrong:
            raise ValueError(f"enhance: {wrong}")
        return self

    def definition(self, name: str, weights: str | None = None, denoise: Denoise | None = None) -> EncoderDefinition:
        """Return what an encoder's name stands for: its own entry, or the family of that name; what is given wins."""
        found = self.encoder.get(name) or EncoderDefinition(family=name)
        if weights:
            found = found.model_copy(update={"weights": weights, "sha256": None})
        return found.model_copy(update={"denoise": denoise}) if denoise else found

    def recipe(self, name: str) -> Recipe:
        """Return the recipe of a set: the training views, or one evaluation condition."""
        extract = self.extract
        if name == TRAIN:
            return training_recipe(extract.draws, samples(extract.frames), extract.views)
        frames = extract.eval_frames
        return condition_recipe(name, extract.eval_crops, None if frames is None else samples(frames))


def samples(frames: int) -> int:
    """Return the samples that `frames` 25 ms windows at 10 ms shift span at 16 kHz, as the paper counts them."""
    return frames * HOP + OVERHANG


def read_params(path: Path | None) -> Params:
    """Read a parameter file; None gives the defaults.

    Raises:
        ConfigError: an unknown, missing or ill-typed key, named.
    """
    if path is None:
        return Params()
    return validated(Params, load_yaml(path), str(path))
