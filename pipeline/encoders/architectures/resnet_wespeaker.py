"""WeSpeaker's ResNet34 (Wang et al., ICASSP 2023, arXiv 2210.17016), after He et al., CVPR 2016 (arXiv 1512.03385)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.encoders.architectures.blocks import Residual
from pipeline.encoders.encoder import Network
from pipeline.encoders.family import Family, first_size
from pipeline.encoders.features import KaldiFbank

MELS = 80
WIDTH = 32
"""Number of channels of the first stage; each further stage doubles it."""
STAGES = (3, 4, 6, 3)
"""Number of residual blocks of each stage; stages after the first halve frequency and time."""


class WeSpeakerResNet34(Network):
    """Kaldi fbank → 2-D convolution → 4 stages of residual blocks → mean and deviation over time → Linear."""

    # 105 ms: nine frames leave two after three halvings, which a deviation needs.
    min_samples = KaldiFbank.LENGTH + 8 * KaldiFbank.HOP

    def __init__(self, dim: int = 256) -> None:
        """Build the network for embeddings of length `dim`; state-dict names are WeSpeaker's."""
        super().__init__()
        self.dim = dim
        self.front_end = KaldiFbank(window="hamming", scale=32_768)
        self.conv1 = nn.Conv2d(1, WIDTH, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTH)
        self.layer1 = _stage(WIDTH, WIDTH, STAGES[0], stride=1)
        self.layer2 = _stage(WIDTH, 2 * WIDTH, STAGES[1], stride=2)
        self.layer3 = _stage(2 * WIDTH, 4 * WIDTH, STAGES[2], stride=2)
        self.layer4 = _stage(4 * WIDTH, 8 * WIDTH, STAGES[3], stride=2)
        self.seg_1 = nn.Linear(2 * 8 * WIDTH * MELS // 8, dim)

    def features(self, waves: Tensor) -> Tensor:
        """Return [B, frames, 80] for waves [B, S]."""
        return self.front_end(waves)

    def embed(self, features: Tensor) -> Tensor:
        """Return [B, dim] for features [B, frames, 80] of at least nine frames."""
        x = self.conv1(features.transpose(1, 2).unsqueeze(1))
        # Convolutions are faster with channels innermost, and keep that layout.
        x = F.relu(self.bn1(x.contiguous(memory_format=torch.channels_last)), inplace=True)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x)))).float()
        deviation = (x.var(dim=3) + 1e-7).sqrt()
        return self.seg_1(torch.cat([x.mean(dim=3).flatten(1), deviation.flatten(1)], dim=1))


def _stage(channels: int, out: int, blocks: int, stride: int) -> nn.Sequential:
    rest = [Residual(out, out) for _ in range(blocks - 1)]
    return nn.Sequential(Residual(channels, out, stride), *rest)


FAMILIES = (
    Family(
        name="resnet34_wespeaker",
        title="ResNet34, 256-d",
        checkpoints="WeSpeaker, pyannote",
        build=lambda state: WeSpeakerResNet34(first_size(state, "seg_1.weight", 256)),
        signature=("layer3.5.conv2.weight", "seg_1.weight"),
        dim=256,
        crops_per_second=13.5,
        example="hf://Wespeaker/wespeaker-voxceleb-resnet34-LM/avg_model.pt",
    ),
)
