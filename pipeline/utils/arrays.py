"""Arrays of others, NumPy or torch, of any float type and leading shape: to rows of float32, and back."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.errors import VectorError

Array = TypeVar("Array", bound="NDArray[Any] | Tensor")
"""What comes in is what goes out."""

MAX_ABS = 2.0**30
"""Vectors with larger values are made smaller by a factor first: no square of theirs is infinite then. Next to values
of this size, a mean of training vectors is less than the rounding of float32."""
_TYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_MARGIN = 1 - 2.0**-20


@dataclass(frozen=True)
class InputRows:
    """Vectors as a model takes them."""

    values: Tensor
    """[B, D] float32 where the model lives; zeros where they are not finite."""
    exact: Tensor
    """[B, D] as they came, where they came from."""
    scale: Tensor
    """What `exact` was divided by [B, 1]: 1, but for huge vectors; beside `exact`, float64 if that is, else float32."""
    finite: Tensor
    """Which rows are [B], beside `exact`."""
    plain: bool
    """Whether all are finite, and none is huge."""

    @cached_property
    def lengths(self) -> Tensor:
        """L2 norms of `values` [B]."""
        lengths: Tensor = self.values.norm(dim=1)
        return lengths

    @cached_property
    def norms(self) -> Tensor:
        """L2 norms of the rows as they came [B], float64 on the CPU; 0 where they are not finite."""
        norms = self.lengths.cpu().double()
        return norms if self.plain else norms * self.scale[:, 0].cpu().double()


def to_rows(x: "NDArray[Any] | Tensor", dim: int, device: torch.device) -> InputRows:
    """Return vectors [..., dim] as rows.

    Raises:
        VectorError: they are no floats, no dense array, or of another dimension.
    """
    if not isinstance(x, np.ndarray | Tensor):
        raise VectorError(f"vectors are a {type(x).__name__}; give a NumPy array or a torch tensor [..., {dim}].")
    native = x.detach() if isinstance(x, Tensor) else None
    if isinstance(x, np.ndarray) and x.dtype.kind == "f" and x.dtype.itemsize <= 8:
        native = torch.from_numpy(np.require(x, x.dtype.newbyteorder("="), ["C", "W"]))
    if native is not None and (native.layout is not torch.strided or native.is_meta):
        kind = "on the meta device" if native.is_meta else str(native.layout)
        raise VectorError(f"vectors are a tensor {kind}; give a dense one [..., {dim}] with values.")
    if native is None or native.dtype not in _TYPES:
        raise VectorError(f"vectors are {x.dtype}; give float16, float32 or float64, or torch's bfloat16.")
    if x.ndim == 0 or x.shape[-1] != dim:
        raise VectorError(f"vectors have shape {tuple(x.shape)}; the model takes [..., {dim}], of its own encoder.")
    exact = native.reshape(-1, dim)
    wide = exact if exact.dtype == torch.float64 else exact.float()
    peak = wide.abs().amax(dim=1, keepdim=True)
    if (peak <= MAX_ABS).all():  # as it is nearly always, and NaN is not: one vector's time goes to the number of calls
        ones = torch.ones_like(peak)
        return InputRows(wide.float().to(device), exact, ones, ones[:, 0].bool(), True)
    finite = peak.isfinite()
    scale = torch.where(finite & (peak > MAX_ABS), peak / MAX_ABS, torch.ones_like(peak))
    values = torch.where(finite, wide / scale, torch.zeros_like(wide)).float()
    return InputRows(values.to(device), exact, scale, finite[:, 0], False)


def restore_like(x: Array, rows: InputRows, result: Tensor, peak: float, scaled: bool, kept: Tensor) -> Array:
    """Return vectors [B, D] of float32 in the shape, type and place of x [..., D].

    What is too long for the type becomes the longest vector of its direction that is not: nothing becomes infinite.

    Args:
        x: what `rows` were made of.
        rows: of x.
        result: made of `rows.values`.
        peak: the largest absolute value of that.
        scaled: whether the result's length goes with that of x.
        kept: which vectors of x stay as they are [B], beside `rows.exact`.
    """
    most = torch.finfo(rows.exact.dtype).max * _MARGIN
    if rows.plain and peak <= most and not kept.any():
        out = result.to(rows.exact.device, rows.exact.dtype).reshape(x.shape)
    else:
        wide = result.to(rows.exact.device).to(rows.scale.dtype)
        room = most / wide.abs().amax(dim=1, keepdim=True).clamp(min=1e-30)
        factor = torch.minimum(rows.scale if scaled else torch.ones_like(room), room)
        out = torch.where(kept[:, None], rows.exact, (wide * factor).to(rows.exact.dtype)).reshape(x.shape)
    return out.numpy().astype(x.dtype, copy=False) if isinstance(x, np.ndarray) else out  # type: ignore[return-value]
