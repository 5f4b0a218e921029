"""The block `quality` of `params.yaml`."""

from pydantic import Field

from pipeline.utils.validation import Frozen


class Quality(Frozen):
    """Thresholds of `seed store check`, as shares from 0 to 1, and the size of its samples."""

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
