"""Convert NumPy and torch arrays of any float type and leading shape to rows of float32, and back."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.errors import VectorError

Array = TypeVar("Array", bound="NDArray[Any] | Tensor")
"""The caller's array type, which is also the type of the result."""

MAX_ABS = 2.0**30
"""Largest absolute value that is processed as it is; larger vectors are scaled down first, so that no square overflows.
Next to values of this size, a mean of training vectors is below the rounding of float32."""
_TYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_MARGIN = 1 - 2.0**-20


@dataclass(frozen=True)
class InputRows:
    """Vectors in the form that a model takes."""

    values: Tensor
    """Values [B, D], float32 on the model's device; zeros for rows that are not finite."""
    exact: Tensor
    """The caller's values [B, D], of the original type and on the original device."""
    scale: Tensor
    """Divisors of `exact` [B, 1]: 1 except for huge vectors; on its device, float64 if it is float64, else float32."""
    finite: Tensor
    """Mask of the finite rows [B], on the device of `exact`."""
    plain: bool
    """True if all rows are finite and none is huge."""

    @cached_property
    def value_norms(self) -> Tensor:
        """L2 norms of `values` [B]."""
        norms: Tensor = self.values.norm(dim=1)
        return norms

    @cached_property
    def norms(self) -> Tensor:
        """L2 norms of the original rows [B], float64 on the CPU; 0 for rows that are not finite."""
        norms = self.value_norms.cpu().double()
        return norms if self.plain else norms * self.scale[:, 0].cpu().double()


def to_rows(x: "NDArray[Any] | Tensor", dim: int, device: torch.device) -> InputRows:
    """Return vectors [..., dim] as rows.

    Raises:
        VectorError: they are not floats, not a dense array, or of another dimension.
    """
    if not isinstance(x, np.ndarray | Tensor):
        raise VectorError(f"vectors are a {type(x).__name__}; pass a NumPy array or a torch tensor [..., {dim}].")
    native = x.detach() if isinstance(x, Tensor) else None
    if isinstance(x, np.ndarray) and x.dtype.kind == "f" and x.dtype.itemsize <= 8:
        native = torch.from_numpy(np.require(x, x.dtype.newbyteorder("="), ["C", "W"]))
    if native is not None and (native.layout is not torch.strided or native.is_meta):
        kind = "on the meta device" if native.is_meta else str(native.layout)
        raise VectorError(f"vectors are a tensor {kind}; pass a dense tensor [..., {dim}] with values.")
    if native is None or native.dtype not in _TYPES:
        raise VectorError(f"vectors are {x.dtype}; pass float16, float32, float64 or torch's bfloat16.")
    if x.ndim == 0 or x.shape[-1] != dim:
        raise VectorError(f"vectors have shape {tuple(x.shape)}; the model takes [..., {dim}], from its own encoder.")
    exact = native.reshape(-1, dim)
    wide = exact if exact.dtype == torch.float64 else exact.float()
    peak = wide.abs().amax(dim=1, keepdim=True)
    if (peak <= MAX_ABS).all():  # nearly always, and never with NaN; fewer calls save time
        ones = torch.ones_like(peak)
        return InputRows(wide.float().to(device), exact, ones, ones[:, 0].bool(), True)
    finite = peak.isfinite()
    scale = torch.where(finite & (peak > MAX_ABS), peak / MAX_ABS, torch.ones_like(peak))
    values = torch.where(finite, wide / scale, torch.zeros_like(wide)).float()
    return InputRows(values.to(device), exact, scale, finite[:, 0], False)


def restore_like(x: Array, rows: InputRows, result: Tensor, peak: float, scaled: bool, kept: Tensor) -> Array:
    """Return float32 vectors [B, D] in the shape and type of x [..., D], on its device.

    A vector too long for the type is shortened to the longest one that fits, so nothing becomes infinite.

    Args:
        x: the caller's vectors.
        rows: `to_rows` of x.
        result: the vectors computed from `rows.values`.
        peak: the largest absolute value of `result`.
        scaled: whether the result's length is proportional to that of x.
        kept: mask of the vectors of x to return unchanged [B], on the device of `rows.exact`.
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
