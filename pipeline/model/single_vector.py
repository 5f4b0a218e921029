"""Enhance a single vector without torch's modules.

A forward pass of modules spends most of a single vector's time in Python, between the operations. Here the same
operations follow one another on tensors that were looked up once.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import linear, silu

from pipeline.model.diagnostics import MIN_NORM
from pipeline.model.diffusion.network import DiffusionNetwork
from pipeline.model.diffusion.objectives.seed import infer_by_ddim
from pipeline.model.diffusion.sampler import Sampling
from pipeline.model.seed_model import SeedModel
from pipeline.utils.arrays import MAX_ABS, Array

Layers = tuple[list[int], Tensor, Tensor, float, Tensor, Tensor]
"""Shape, weight, bias and epsilon of a LayerNorm; weight and bias of the linear layer after its SiLU."""


class SingleVectorPath:
    """Enhance single float32 vectors on the CPU in one noise-free step; results have the bits of the forward pass.

    Networks with a forward pass of their own, such as that of the objective gap, are not covered.
    """

    def __init__(self, model: SeedModel, sampling: Sampling) -> None:
        network: Any = model.network
        strength = sampling.strength
        self._model, self._sampling = model, sampling
        self._supported = (
            all(getattr(type(network), name) is getattr(DiffusionNetwork, name) for name in ("forward", "_predict"))
            and (sampling.steps, sampling.noise) == (1, 0)
            and model.mean.device.type == "cpu"
        )
        if not self._supported or strength is None:
            self._supported = False
            return
        low, high = model.training_stats.fences if model.training_stats else (0.0, MAX_ABS)
        self._low, self._high = max(low, MIN_NORM), min(high, MAX_ABS)
        ((self._timestep, conditioning),) = model.compute_conditioning(sampling.timestep).items()
        self._time = torch.tensor([self._timestep], device="cpu")
        # Scalars are tensors, which take less time to pass than Python's numbers.
        self._strength, self._rest, self._root = (
            torch.tensor(value, dtype=torch.float32, device="cpu") for value in (strength, 1 - strength, model.dim**0.5)
        )
        self._interpolated, self._network, self._predicted = strength < 1, network, network.predict
        ddim = model.objective.infer is infer_by_ddim
        self._signal = model.abar[self._timestep].sqrt() if ddim else None
        self._move = model.move if model.adaptation else None
        self._mean, self._matrix = model.mean, model.matrix
        self._input = _detach(network.input_proj.weight, network.input_proj.bias)
        self._blocks = [
            (_layers(block.in_layers), time, _layers(block.out_layers))
            for block, time in zip(network.res_blocks, conditioning, strict=True)
        ]
        self._output = _layers(network.out)

    def __reduce__(self) -> tuple[Any, ...]:
        return SingleVectorPath, (self._model, self._sampling)

    def __call__(self, x: Array) -> Array | None:
        """Return the enhanced vector of a raw one [..., D]; None if the path does not cover the model or the vector."""
        raw = self._row(x)
        if raw is None or torch.is_autocast_enabled("cpu"):
            return None
        norm = _norm(raw)
        if not self._low <= norm.item() <= self._high:  # NaN is in no interval
            return None
        if self._move is not None:
            raw = self._move(raw)
            norm = _norm(raw)
            if not norm.item() >= MIN_NORM:
                return None
        prepared = linear(raw - self._mean, self._matrix)
        length = _norm(prepared)
        if not length.item() >= MIN_NORM:
            return None
        prepared.div_(length).mul_(self._root)
        if self._signal is None:
            result = self._model.objective.infer(self._predict_at, prepared, self._sampling, self._model.abar, ())
        else:
            result = self._predict(prepared.mul_(self._signal))
        length = _norm(result)
        if not MIN_NORM <= length.item() <= MAX_ABS:
            return None
        out: Any = self._interpolate(raw, norm, result.div(length)) if self._interpolated else result
        return (out.numpy() if isinstance(x, np.ndarray) else out).reshape(x.shape)  # type: ignore[no-any-return]

    def _row(self, x: Any) -> Tensor | None:
        """Return a vector as [1, D] if its type and layout are the usual ones."""
        if not self._supported:
            return None
        dim = self._model.dim
        if type(x) is np.ndarray:
            fits = x.size == dim and x.dtype == np.float32 and x.flags.carray
        else:
            fits = type(x) is Tensor and x.numel() == dim and x.dtype is torch.float32
            fits = fits and x.is_cpu and x.layout is torch.strided
        if not fits or x.shape[-1:] != (dim,):
            return None
        return torch.from_numpy(x.reshape(1, -1)) if isinstance(x, np.ndarray) else x.detach().reshape(1, -1)

    def _predict_at(self, x: Tensor, t: Tensor) -> Tensor:
        known = len(t) == 1 and int(t) == self._timestep
        return self._predict(x) if known else self._network(x, t)

    def _predict(self, x: Tensor) -> Tensor:
        """Return the predicted clean embedding [1, D], as `DiffusionNetwork` does at the timestep."""
        hidden = linear(x, *self._input)
        for inner, time, outer in self._blocks:
            hidden = _apply(outer, _apply(inner, hidden).add_(time)).add_(hidden)
        out = _apply(self._output, hidden)
        if self._predicted == "correction":
            return out.add_(x)
        return out if self._predicted == "sample" else self._network._convert_to_clean(x, self._time, out)

    def _interpolate(self, raw: Tensor, norm: Tensor, unit: Tensor) -> Tensor:
        """Return what `interpolate` does, given the norm [1, 1] of the raw vector and the enhanced unit vector."""
        raw_unit = raw / norm
        angle = torch.atan2(_norm(raw_unit - unit), _norm(raw_unit + unit))
        angle.add_(angle).clamp_min_(1e-3)
        mixed = torch.addcmul(raw_unit.mul_((angle * self._rest).sin_()), angle.mul_(self._strength).sin_(), unit)
        return mixed.mul_(norm.div_(_norm(mixed).clamp_min_(1e-12)))


def _layers(layers: Any) -> Layers:
    norm, linear = layers[0], layers[-1]
    scale, shift, weight, bias = _detach(norm.weight, norm.bias, linear.weight, linear.bias)
    return list(norm.normalized_shape), scale, shift, norm.eps, weight, bias


def _detach(*parameters: Tensor) -> list[Tensor]:
    return [parameter.detach() for parameter in parameters]


def _apply(layers: Layers, hidden: Tensor) -> Tensor:
    shape, scale, shift, eps, weight, bias = layers
    return linear(silu(torch.layer_norm(hidden, shape, scale, shift, eps, False), inplace=True), weight, bias)


def _norm(x: Tensor) -> Tensor:
    """Return the L2 norm [1, 1] of a vector [1, D]."""
    norm: Tensor = torch.linalg.vector_norm(x, 2, 1, True)
    return norm
