"""An encoder family for SEED, small but complete: a projection of filter bank statistics."""

from pathlib import Path

import torch
from torch import Tensor, nn

from pipeline.encoders.encoder import Network
from pipeline.encoders.features import KaldiFbank


class OwnEncoder(Network):
    """Kaldi fbank → mean and deviation over time → Linear."""

    dim = 64
    min_samples = KaldiFbank.LENGTH + KaldiFbank.HOP
    """Length of two frames, because one frame has no deviation."""

    def __init__(self) -> None:
        """Build the network with fixed pseudo-random weights."""
        super().__init__()
        self.front_end = KaldiFbank(remove_mean=False)
        self.linear = nn.Linear(160, self.dim)
        generator = torch.Generator().manual_seed(0)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=160**-0.5, generator=generator)

    def features(self, waves: Tensor) -> Tensor:
        """Return features [B, frames, 80] of waves [B, S], always in float32."""
        return self.front_end(waves)

    def embed(self, features: Tensor) -> Tensor:
        """Return embeddings [B, 64] of features [B, frames, 80]."""
        return self.linear(torch.cat([features.mean(dim=1), features.std(dim=1)], dim=1))


def build(weights: Path | None) -> Network:
    """Return the network, with the weights file of params.yaml if it names one."""
    network = OwnEncoder()
    if weights is not None:
        network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    return network
