"""What the tests of the architectures share."""

import hashlib

import torch
from torch import nn


def randomised(module: nn.Module, seed: int = 0, kaiming: bool = False) -> nn.Module:
    """Give a module biases and BatchNorms that do something, unlike at initialisation; in evaluation mode.

    With `kaiming`, matrices and convolutions are drawn anew, as large as keeps a signal's size: a deep network of
    torch's smaller initial weights gives nearly the same output for any input.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if name.endswith("running_var"):
                tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
            elif name.endswith("running_mean") or (name.endswith("bias") and tensor.ndim == 1):
                tensor.copy_(0.1 * torch.randn(tensor.shape, generator=generator))
            elif kaiming and tensor.ndim > 1:
                tensor.copy_((2 / tensor[0].numel()) ** 0.5 * torch.randn(tensor.shape, generator=generator))
            elif tensor.is_floating_point() and tensor.ndim == 1 and name.endswith("weight"):
                tensor.copy_(1 + 0.1 * torch.randn(tensor.shape, generator=generator))
    return module.eval()


def signature(module: nn.Module) -> str:
    """Sum up the names and shapes of a state dict, so that a test can pin those of published checkpoints."""
    lines = sorted(f"{name} {list(tensor.shape)}" for name, tensor in module.state_dict().items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
