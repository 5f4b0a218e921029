"""What is told to training and to enhancement: the blocks `train` and `enhance` of `params.yaml`."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from pipeline.utils.validation import Frozen

DIFFUSED = ("seed", "gap")
"""Objectives whose network sees Gaussian noise."""
MOVING = (*DIFFUSED, "bridge")
"""Objectives whose network sees a point of a path, which has a velocity."""
WATCHING = ("log", "save_every")
"""Parameters of training that its result does not depend on."""
ONE_PASS = ("dae", "vmf-pl")
"""Objectives whose network sees an embedding once, at no time in particular."""


def _views(wanted: Any) -> Any:
    number = isinstance(wanted, int) and not isinstance(wanted, bool) and wanted >= 1
    names = isinstance(wanted, list) and wanted and all(isinstance(name, str) for name in wanted)
    if not (wanted is None or number or names):
        raise ValueError("must be null, a number from 1 up, or a list of names of views")
    return wanted


NoisyViews = Annotated[int | list[str] | None, BeforeValidator(_views)]
"""So many corrupted views, the first of a store; or those of these names; or all."""


class NetworkSettings(Frozen):
    """The denoising network and what it is given."""

    predict: Literal["sample", "correction", "epsilon", "v"] = "correction"
    precondition: Literal["none", "center", "whiten", "project", "ridge", "wiener"] = "whiten"
    blocks: int = Field(1, ge=1)
    width: int = Field(1, ge=1, le=64)
    dropout: float = Field(0.1, ge=0, lt=1)


class Train(Frozen):
    """Stage two: fit SEED on cached pairs."""

    network: NetworkSettings = NetworkSettings()
    objective: Literal["seed", "gap", "dae", "vmf-pl", "bridge"] = "seed"
    loss: Literal["l1", "l2", "huber"] = "l1"
    scale: Literal["both", "sampling"] = "both"
    noisy_views: NoisyViews = None
    target: Literal["crop", "utterance"] = "utterance"
    swap: float = Field(0.5, ge=0, le=1)
    contrast: float = Field(2.0, ge=0)
    temperature: float = Field(0.1, gt=0)
    timesteps: int = Field(1000, ge=2, le=100_000)
    max_timestep: int | None = Field(100, ge=0)
    beta_start: float = Field(1e-4, gt=0, lt=1)
    beta_end: float = Field(0.02, gt=0, lt=1)
    batch_size: int = Field(256, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(5e-5, ge=0)
    clip: float | None = Field(None, gt=0)
    warmup: float = Field(2.0, ge=0)
    schedule: Literal["constant", "cosine"] = "cosine"
    ema: float = Field(0.99, ge=0, lt=1)
    max_epochs: int = Field(20, ge=0)
    patience: int = Field(20, ge=1)
    validation: float = Field(0.1, gt=0, lt=1)
    strength: float = Field(1.0, ge=0, le=1)
    folds: int = Field(3, ge=0)
    memory: float = Field(8.0, gt=0)
    threads: int = Field(2, ge=1)
    device: str = "auto"
    log: list[Literal["tensorboard", "dvclive"]] = Field([])
    save_every: int = Field(100, ge=0)

    @model_validator(mode="after")
    def _goes_together(self) -> "Train":
        if self.objective not in DIFFUSED and self.network.predict == "epsilon":
            raise ValueError(f"objective {self.objective} has no noise to predict; set network.predict to sample")
        if self.objective not in MOVING and self.network.predict == "v":
            raise ValueError(f"objective {self.objective} has no velocity to predict; set network.predict to sample")
        if self.objective == "vmf-pl" and self.loss != "l1":
            raise ValueError("objective vmf-pl is a loss of its own; leave loss at l1")
        if self.objective == "vmf-pl" and self.contrast:
            raise ValueError("objective vmf-pl is a loss of its own; set contrast to 0")
        if self.max_timestep is not None and self.max_timestep >= self.timesteps:
            raise ValueError("max_timestep must be below timesteps")
        if self.max_epochs == 0 and self.network.predict == "sample":
            raise ValueError("max_epochs 0 needs network.predict: correction; an untrained sample is zero")
        if self.objective == "gap" and self.scale == "sampling":
            raise ValueError("objective gap compares lengths, which must be one in training, too; set scale to both")
        return self

    def misfit_of_timestep(self, timestep: int) -> str | None:
        """Return why a model that is trained so cannot enhance from a timestep, if it cannot."""
        if timestep >= self.timesteps:
            return f"there are timesteps from 0 to {self.timesteps - 1}"
        if self.objective in DIFFUSED and self.max_timestep is not None and timestep > self.max_timestep:
            return f"nothing is learnt above max_timestep, which is {self.max_timestep}"
        return None


class Enhance(Frozen):
    """The way back from timestep t."""

    timestep: int = Field(50, ge=0)
    steps: int = Field(1, ge=1)
    eta: float = Field(0.0, ge=0, le=1)
    spacing: Literal["leading", "trailing", "linspace"] = "trailing"
    noise: int = Field(0, ge=0)
    strength: float | None = Field(None, ge=0, le=1)

    @model_validator(mode="after")
    def _goes_together(self) -> "Enhance":
        if self.steps > self.timestep + 1:
            raise ValueError(f"{self.steps} steps do not fit below timestep {self.timestep}")
        if self.eta > 0 and self.noise == 0:
            raise ValueError("eta needs noise: 1 draw or more")
        return self


def misfit(objective: str, steps: int, noise: int) -> str | None:
    """Return why a model of an objective cannot enhance in so many steps with so many draws of noise, if it cannot."""
    if objective in ONE_PASS and steps > 1:
        return f"objective {objective} takes one pass of the network; set steps to 1"
    if objective not in DIFFUSED and noise > 0:
        return f"objective {objective} is trained without Gaussian noise; set noise to 0"
    return None
