"""Steps of a view, as parameter files have them: a corruption, or at most one of several."""

from typing import Annotated, Any

import numpy as np
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, SerializeAsAny, model_validator

from pipeline.audio.augment.corruption import Corruption
from pipeline.audio.augment.corruptions import find_corruption
from pipeline.utils.validation import Frozen


def _registered(kind: str) -> str:
    find_corruption(kind)
    return kind


class _Kind(BaseModel):
    kind: Annotated[str, Field(strict=True), AfterValidator(_registered)]


def _read_corruption(content: Any) -> Any:
    """Read plain data as the class of its `kind`, so that an error names the wrong key."""
    if isinstance(content, dict):
        return find_corruption(_Kind.model_validate(content).kind).model_validate(content)
    if isinstance(content, Corruption | OneOf):
        return content
    raise ValueError("must be a step, such as {kind: noise, snr: [0, 15]} or {one_of: [...]}")


def _read_step(content: Any) -> Any:
    one_of = isinstance(content, dict) and "one_of" in content
    return OneOf.model_validate(content) if one_of else _read_corruption(content)


class OneOf(Frozen):
    """At most one of several corruptions, each with its probability; none with what is left to 1."""

    one_of: list[Annotated[SerializeAsAny[Corruption], BeforeValidator(_read_corruption)]] = Field(min_length=1)

    @model_validator(mode="after")
    def _probabilities_are_shares(self) -> "OneOf":
        if sum(corruption.probability for corruption in self.one_of) > 1 + 1e-9:
            raise ValueError("the probabilities of one_of add up to more than 1")
        return self


Step = Annotated[SerializeAsAny[Corruption] | OneOf, BeforeValidator(_read_step)]


def alternatives(step: Corruption | OneOf) -> list[Corruption]:
    """Return the corruptions of which a step applies at most one."""
    return step.one_of if isinstance(step, OneOf) else [step]


def choose(step: Corruption | OneOf, rng: np.random.Generator) -> Corruption | None:
    """Draw the corruption that a step applies, if any; a certain one draws nothing."""
    corruptions = alternatives(step)
    if len(corruptions) == 1 and corruptions[0].probability == 1:
        return corruptions[0]
    value, reached = rng.random(), 0.0
    for corruption in corruptions:
        reached += corruption.probability
        if value < reached or reached > 1 - 1e-9:  # 0.1 ten times is a little less than 1
            return corruption
    return None
