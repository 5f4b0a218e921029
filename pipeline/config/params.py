"""All parameters: `params.yaml`, read as a validated, frozen model."""

from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field, model_validator

from pipeline.audio.denoise import Denoise
from pipeline.config.conditions import condition_steps
from pipeline.config.encoder import EncoderDefinition
from pipeline.config.extract import Extract
from pipeline.config.quality import Quality
from pipeline.config.score import Score
from pipeline.config.train import Enhance, Train
from pipeline.utils.validation import NAME, Frozen, load_yaml, validated

TRAIN = "train"
"""The name of the training set; every other set is an evaluation condition."""


class ManifestLimits(Frozen):
    """Limits on the part of the corpus to use (null: all of it)."""

    max_speakers: int | None = Field(None, ge=1)
    max_utterances: int | None = Field(None, ge=1)


def _as_list(names: object) -> object:
    return [names] if isinstance(names, str) else names


class Params(Frozen):
    """All of `params.yaml`."""

    corpus: Annotated[list[str], BeforeValidator(_as_list)] = Field(["demo"], min_length=1)
    """Names of the corpora: all are for training, and the first one is also tested on. A single name may be given as
    text."""
    data_root: str | None = None
    seed: int = Field(0, ge=0, lt=2**63)
    encoders: list[str] = Field(["ge2e"], min_length=1)
    encoder: dict[str, EncoderDefinition] = Field(
        {each: EncoderDefinition(family=each) for each in ("ge2e", "campplus")}
    )
    sets: list[str] = Field([TRAIN, "clean", "noise0"])
    conditions: list[str] = Field(["clean", "noise0"], min_length=1)
    manifest: ManifestLimits = ManifestLimits()
    extract: Extract = Extract()
    train: Train = Train()
    enhance: Enhance = Enhance()
    score: Score = Score()
    quality: Quality = Quality()

    @model_validator(mode="after")
    def _sets_are_train_and_conditions(self) -> "Params":
        for name in self.conditions:
            condition_steps(name)
        for key in ("corpus", "encoders", "conditions"):
            if len(set(getattr(self, key))) < len(getattr(self, key)):
                raise ValueError(f"{key} must differ from each other")
        for name in (*self.encoders, *self.encoder):
            if not NAME.fullmatch(name):
                raise ValueError(f"encoder name {name!r}: use letters, digits, '-' and '_', because it names folders")
        if "clean" not in self.conditions:
            raise ValueError("conditions must hold 'clean', the enrolment side of every trial")
        if self.sets != [TRAIN, *self.conditions]:
            raise ValueError(f"sets must be '{TRAIN}' followed by the conditions, in the same order")
        if wrong := self.train.find_timestep_conflict(self.enhance.timestep):
            raise ValueError(f"enhance.timestep {self.enhance.timestep}: of train, {wrong}")
        if wrong := self.train.find_sampling_conflict(self.enhance.steps, self.enhance.noise):
            raise ValueError(f"enhance: {wrong}")
        return self

    @property
    def tested_corpus(self) -> str:
        """The corpus whose test sets are enhanced and scored."""
        return self.corpus[0]

    def definition(self, name: str, weights: str | None = None, denoise: Denoise | None = None) -> EncoderDefinition:
        """Return an encoder's entry, or the family of that name; `weights` and `denoise` override it if given."""
        definition = self.encoder.get(name) or EncoderDefinition(family=name)
        if weights:
            definition = definition.model_copy(update={"weights": weights, "sha256": None})
        return definition.model_copy(update={"denoise": denoise}) if denoise else definition


def read_params(path: Path | None) -> Params:
    """Read a parameter file; None: the defaults.

    Raises:
        ConfigError: an unknown, missing or ill-typed key, named.
    """
    return Params() if path is None else validated(Params, load_yaml(path), str(path))
