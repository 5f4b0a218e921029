"""A model's way from raw to enhanced vectors, written down by torch.jit as one program without Python in it.

TorchScript files hold it (`export_model`), and single vectors are enhanced by it: the steps that Python takes from one
operation to the next are most of a vector's time, and nothing of a batch's.
"""

import threading
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.model.diagnostics import ZERO
from pipeline.model.diffusion.sampler import Sampling
from pipeline.model.seed_model import SeedModel
from pipeline.utils.arrays import HUGE, Array
from pipeline.utils.device import usual_defaults
from pipeline.utils.onnx import quiet

TRACED = 3
"""Vectors in the batch that is followed; a program takes any number."""
_COMPILING = threading.Lock()


class Way(nn.Module):
    """A model's one way as a forward pass."""

    def __init__(self, model: SeedModel, how: Sampling) -> None:
        super().__init__()
        self.model, self.how = model, how

    def forward(self, embeddings: Tensor) -> Any:
        """Return enhanced embeddings [B, D] of raw ones."""
        return self.model(embeddings, self.how)

    def example(self, count: int) -> Tensor:
        """Return random embeddings [count, D]."""
        return torch.randn(count, self.model.dim, generator=torch.Generator().manual_seed(count))


@usual_defaults()
def traced(way: Way, count: int = TRACED) -> torch.jit.ScriptModule:
    """Return the program, whose constants are folded: what depends on timesteps alone is computed here."""
    with quiet(), torch.no_grad():
        followed = torch.jit.trace(way.eval(), way.example(count), check_trace=False)  # type: ignore[no-untyped-call]
        program: torch.jit.ScriptModule = torch.jit.freeze(followed)
        return program


class _Watched(Way):
    """The way, and what tells whether all is well with it."""

    def forward(self, embeddings: Tensor) -> Any:
        """Return enhanced embeddings [B, D] and the L2 norms [B, 1] of raw and enhanced ones."""
        result = self.model(embeddings, self.how)
        return result, *(torch.linalg.vector_norm(each, dim=1, keepdim=True) for each in (embeddings, result))


class SingleVectorPath:
    """The way of single vectors, of float32 on the CPU; results have the bits of the model's own.

    It is compiled when the first one comes, which takes a tenth of a second. Copies, and what is pickled, compile anew.
    """

    def __init__(self, model: SeedModel, how: Sampling) -> None:
        self._model, self._how, self._dim = model, how, model.dim
        self._program: torch.jit.ScriptModule | None = None
        low, high = model.training_stats.fences if model.training_stats else (0.0, HUGE)
        self._low, self._high = max(low, ZERO), min(high, HUGE)
        self._here = model.mean.device.type == "cpu"

    def __call__(self, x: Array) -> Array | None:
        """Return a vector [..., D] of one enhanced; None if anything about it is unusual, and needs a closer look."""
        given = self._tensor(x)
        if given is None or not self._here or torch.is_autocast_enabled("cpu"):
            return None
        result, length, enhanced = self._compiled()(given)
        if self._low <= float(length) <= self._high and float(enhanced) <= HUGE:  # NaN is in no interval
            result = result.reshape(x.shape)
            return result.numpy() if isinstance(x, np.ndarray) else result  # type: ignore[no-any-return]
        return None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_program": None}

    def _tensor(self, x: Any) -> Tensor | None:
        """Return a vector as [1, D], if it is of the most usual kind."""
        if type(x) is np.ndarray:
            fits = x.size == self._dim and x.dtype == np.float32 and x.flags.carray
        else:
            fits = type(x) is Tensor and x.numel() == self._dim and x.dtype is torch.float32
            fits = fits and x.is_cpu and x.layout is torch.strided
        if not fits or x.shape[-1:] != (self._dim,):
            return None
        return (torch.from_numpy(x) if isinstance(x, np.ndarray) else x.detach()).reshape(1, -1)

    def _compiled(self) -> torch.jit.ScriptModule:
        if self._program is None:
            with _COMPILING:
                self._program = self._program or traced(_Watched(self._model, self._how), 1)
        return self._program
