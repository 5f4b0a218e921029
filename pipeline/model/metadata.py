"""The metadata of a model file, as typed models."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipeline.config.train import Train
from pipeline.model.adaptation_record import Adaptation
from pipeline.model.training_stats import TrainingStats
from pipeline.utils.validation import Frozen

FORMAT = "seed-2"


class _Open(BaseModel):
    """Facts of known types, beside others, which only readers of the file look at."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)


class EncoderFacts(_Open):
    """The encoder of the training, see `EmbeddingStore.encoder`."""

    dim: int = Field(ge=1)
    encoder: str | None = None
    family: str | None = None
    weights_sha256: str | None = None
    front_end: Any = None
    denoise: str | None = None


class ErrorRates(Frozen):
    """EERs, %."""

    clean: float
    noisy: float


class HeldOutRates(Frozen):
    """EERs of held-out training speakers, %; none if they were not measured."""

    raw: ErrorRates | None = None
    enhanced: ErrorRates | None = None

    @model_validator(mode="after")
    def _check_both(self) -> "HeldOutRates":
        if (self.raw is None) != (self.enhanced is None):
            raise ValueError("needs both raw and enhanced, or neither")
        return self


class TrainingFacts(_Open):
    """How a model was trained, see `Trained.summary`."""

    timestep: int | None = Field(None, ge=0)
    seed: int | None = None
    utterances: int | None = None
    speakers: int | None = None
    domains: int | None = None
    draws: int | None = None
    noisy_views: list[str] = []
    held_out: str | None = None
    best_epoch: int | None = None
    epochs: int | None = None
    validation_loss: float | None = None
    first_validation_loss: float | None = None
    held_out_eer: HeldOutRates | None = None
    stopped: str | None = None
    init_sha256: str | None = None
    folds_failed: str | None = None
    converted_from_sha256: str | None = None


class Metadata(Frozen):
    """All metadata of a model file."""

    format: str
    settings: Train
    encoder: EncoderFacts
    training: TrainingFacts = TrainingFacts()
    strength: float | None = Field(None, ge=0, le=1)
    vectors: TrainingStats | None = None
    adaptation: Adaptation | None = None
    only_timestep: int | None = Field(None, ge=0)
    scale: Any = None
    """A description of the vectors' lengths, in files of older versions only."""
