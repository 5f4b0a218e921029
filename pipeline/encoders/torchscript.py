"""Networks from TorchScript files.

A TorchScript file is a program that runs with all rights of this process. Load only files that you trust, and pin them
by SHA-256.
"""

import torch
from torch import Tensor

from pipeline.encoders.generic import GenericNetwork, summarise_error


class TorchScriptNetwork(GenericNetwork):
    """A file of torch.jit.save."""

    def _open(self) -> None:
        try:
            self.module = torch.jit.load(str(self.path), map_location="cpu").eval()  # type: ignore[no-untyped-call]
        except Exception as error:  # a damaged archive may raise anything
            raise self._fault(
                f"cannot be read as TorchScript ({summarise_error(error)})",
                "download it again, or save the scripted or traced module with torch.jit.save",
            ) from error

    def _run(self, features: Tensor) -> object:
        # Unoptimised, because torch profiles the first runs and fuses later ones, which would change values.
        with torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
            return self.module(features)
