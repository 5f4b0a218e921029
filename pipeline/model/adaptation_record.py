"""The record of an adaptation to another domain, see `pipeline.model.adaptation`."""

from pydantic import Field

from pipeline.utils.validation import Frozen

PRIOR_VECTORS = 10
"""Number of vectors at which the estimate lies halfway between the mean of training and that of the vectors."""
LIMIT = 6.0
"""Median atypicality of adapted vectors above which they are not taken for vectors of the model's encoder. Speech of
four corpora has 1.0 to 3.6 with models trained on another corpus alone, another encoder has 10 and more (GE2E)."""


class Adaptation(Frozen):
    """A record of an adaptation, stored in an adapted model's file and with the vectors that it enhanced."""

    base_sha256: str
    """SHA-256 of the file of the model that was adapted; empty if it has no file."""
    vectors: int = Field(ge=1)
    """Number of vectors that it was adapted to; of recordings, if it was adapted to crops of recordings."""
    recordings: int = Field(0, ge=0)
    """Number of recordings that its whitening was refitted to, see `pipeline.training.refit`; 0: it was not."""
    keeps_strength: bool = False
    """True if the strength was found on recordings, by a refit; a further adaptation to vectors then keeps it."""
    means: int = Field(1, ge=1, le=2)
    """Number of means: 2 if each vector gets that of its half of the vectors, see `MIN_POOL`."""
    weight: float = Field(ge=0, le=1)
    """Share of their mean in the estimate of the domain's mean; the rest is the mean of training."""
    atypicality: float = Field(ge=0)
    """Median atypicality of the vectors, moved so that their mean is that of training."""
    fingerprint: str
    """Start of the SHA-256 of the vector that is added."""

    @property
    def comparable_sha256(self) -> str:
        """SHA-256 of the file with whose other adaptations vectors can be compared; empty if there is none."""
        return "" if self.recordings else self.base_sha256

    @property
    def is_plausible(self) -> bool:
        """True unless the adapted vectors are unlike vectors of speech by the model's encoder."""
        return self.atypicality <= LIMIT

    def describe_problem(self) -> str | None:
        """Return what limits the adaptation and what to do, or None."""
        what = f"{self.vectors} {'recordings' if self.recordings else 'vectors'}"
        if not self.is_plausible:
            return (
                f"the {what} to adapt to are not of speech, or not of the model's encoder (atypicality"
                f" {self.atypicality:.1f} after adaptation; the limit is {LIMIT:g}), so vectors are returned raw. Give"
                " speech, encoded by that encoder"
            )
        if self.weight < 0.75 * self.vectors / (self.vectors + PRIOR_VECTORS):
            return (
                f"the {what} to adapt to vary little, like those of one or two speakers, so their mean has a weight of"
                f" only {self.weight:.2f}. Give speech of more speakers"
            )
        if self.vectors < 3 * PRIOR_VECTORS:
            return f"{what} to adapt to are few, so their mean has a weight of {self.weight:.2f}. Give 30 or more"
        return None
