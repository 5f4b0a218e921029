"""Settings of training and enhancement: the sections `train` and `enhance` of `params.yaml`."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from pipeline.config.objectives import DISTANCES, ObjectiveTraits, list_objectives, read_traits
from pipeline.utils.validation import MAX_COUNT, MAX_WORKERS, Frozen, OneOf

WATCHING = ("log", "save_every", "keep_every")
"""Parameters of training that do not change its result."""


def _check_views(views: Any) -> Any:
    number = isinstance(views, int) and not isinstance(views, bool) and views >= 1
    names = isinstance(views, list) and views and all(isinstance(name, str) for name in views)
    if not (views is None or number or names):
        raise ValueError("must be null, a number from 1 up, or a list of names of views")
    return views


NoisyViews = Annotated[int | list[str] | None, BeforeValidator(_check_views)]
"""The number of corrupted views to use, the first of a store; or their names; or None for all."""


class NetworkSettings(Frozen):
    """The denoising network and the map in front of it."""

    predict: Literal["sample", "correction", "epsilon", "v"] = "correction"
    precondition: Literal["none", "center", "whiten", "project", "ridge", "wiener"] = "whiten"
    blocks: int = Field(1, ge=1, le=1000)
    width: int = Field(1, ge=1, le=64)
    dropout: float = Field(0.1, ge=0, lt=1)


class Train(Frozen):
    """Training of SEED on cached pairs."""

    network: NetworkSettings = NetworkSettings()
    objective: Annotated[str, OneOf(list_objectives)] = "seed"
    loss: Annotated[str, OneOf(DISTANCES.keys)] = "l1"
    scale: Literal["both", "sampling"] = "both"
    noisy_views: NoisyViews = None
    target: Literal["crop", "utterance"] = "utterance"
    swap: float = Field(0.5, ge=0, le=1)
    contrast: float = Field(2.0, ge=0)
    temperature: float = Field(0.1, gt=0)
    noise_per: Literal["pair", "view"] = "pair"
    timesteps: int = Field(1000, ge=2, le=100_000)
    max_timestep: int | None = Field(100, ge=0)
    beta_start: float = Field(1e-4, gt=0, lt=1)
    beta_end: float = Field(0.02, gt=0, lt=1)
    batch_size: int = Field(256, ge=1, le=MAX_COUNT)
    drop_last: bool = False
    epoch_crops: Literal["all", "one"] = "all"
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(5e-5, ge=0)
    clip: float | None = Field(None, gt=0)
    warmup: float = Field(2.0, ge=0)
    schedule: Literal["constant", "cosine"] = "cosine"
    ema: float = Field(0.99, ge=0, lt=1)
    max_epochs: int = Field(20, ge=0, le=MAX_COUNT)
    patience: int | None = Field(20, ge=1, le=MAX_COUNT)
    validation: float = Field(0.1, gt=0, lt=1)
    strength: float = Field(1.0, ge=0, le=1)
    folds: int = Field(3, ge=0, le=1000)
    memory: float = Field(8.0, gt=0)
    threads: int = Field(2, ge=1, le=MAX_WORKERS)
    device: str = "auto"
    log: list[Literal["tensorboard", "dvclive"]] = Field([])
    save_every: int = Field(100, ge=0, le=MAX_COUNT)
    keep_every: int = Field(0, ge=0, le=MAX_COUNT)

    @property
    def traits(self) -> ObjectiveTraits:
        """The traits of the objective."""
        return read_traits(self.objective)

    @model_validator(mode="after")
    def _check_combination(self) -> "Train":
        traits = self.traits
        for target, name, known in (("epsilon", "noise", traits.gaussian_noise), ("v", "velocity", traits.velocity)):
            if self.network.predict == target and not known:
                raise ValueError(f"objective {self.objective} has no {name} to predict; set network.predict to sample")
        if traits.own_loss and self.loss != "l1":
            raise ValueError(f"objective {self.objective} has a loss of its own; leave loss at l1")
        if traits.own_loss and self.contrast:
            raise ValueError(f"objective {self.objective} has a loss of its own; set contrast to 0")
        if self.max_timestep is not None and self.max_timestep >= self.timesteps:
            raise ValueError("max_timestep must be below timesteps")
        if self.max_epochs == 0 and self.network.predict == "sample":
            raise ValueError("max_epochs 0 needs network.predict: correction; an untrained sample is zero")
        if traits.scaled_pairs and self.scale == "sampling":
            raise ValueError(f"objective {self.objective} needs vectors of one length in training; set scale to both")
        return self

    def find_timestep_conflict(self, timestep: int) -> str | None:
        """Return why a model trained with these settings cannot enhance from a timestep; None if it can."""
        if timestep >= self.timesteps:
            return f"timesteps are from 0 to {self.timesteps - 1}"
        if self.traits.gaussian_noise and self.max_timestep is not None and timestep > self.max_timestep:
            return f"nothing is learnt above max_timestep, which is {self.max_timestep}"
        return None

    def find_sampling_conflict(self, steps: int, noise: int) -> str | None:
        """Return why a model cannot enhance with this many steps and draws of noise; None if it can."""
        if self.traits.one_pass and steps > 1:
            return f"objective {self.objective} takes one pass of the network; set steps to 1"
        if not self.traits.gaussian_noise and noise > 0:
            return f"objective {self.objective} is trained without Gaussian noise; set noise to 0"
        return None


class Enhance(Frozen):
    """The reverse process, from timestep t back to an enhanced embedding."""

    timestep: int = Field(50, ge=0)
    steps: int = Field(1, ge=1)
    eta: float = Field(0.0, ge=0, le=1)
    spacing: Literal["leading", "trailing", "linspace"] = "trailing"
    noise: int = Field(0, ge=0, le=10_000)
    strength: float | None = Field(None, ge=0, le=1)
    adapt: str | None = None
    """The vectors to adapt the model to: the name of a set, whose store lies beside the one to enhance, or a store."""

    def sampling(self) -> dict[str, Any]:
        """Return the settings of `pipeline.model.diffusion.sampler.Sampling`."""
        return self.model_dump(exclude={"adapt"})

    @model_validator(mode="after")
    def _check_combination(self) -> "Enhance":
        if self.steps > self.timestep + 1:
            raise ValueError(f"{self.steps} steps do not fit below timestep {self.timestep}")
        if self.eta > 0 and self.noise == 0:
            raise ValueError("eta needs noise: 1 draw or more")
        return self
