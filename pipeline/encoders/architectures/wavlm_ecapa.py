"""UniSpeech's speaker verification: ECAPA-TDNN (Desplanques et al., 2020, arXiv 2005.07143) on WavLM."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.encoders.architectures import wavlm
from pipeline.encoders.architectures.wavlm import WavLMNetwork, make_published_config
from pipeline.encoders.family import Family, first_size
from pipeline.utils.checkpoint import State

CHANNELS, POOLED, BOTTLENECK, SCALE = 512, 1536, 128, 8


class WavLMEcapa(WavLMNetwork):
    """WavLM (Chen et al., 2021, arXiv 2110.13900) → weighted mean of layers → SE-Res2 blocks → attention → Linear.

    State-dict names are those of UniSpeech, except that the backbone has transformers' names below `wavlm.`
    (`adapt_unispeech` renames them).
    """

    def __init__(self, config: Any = None, dim: int = 256) -> None:
        """Build the network on a backbone with a `transformers.WavLMConfig`, by default WavLM base+."""
        config = config or make_published_config(13)
        # As in fairseq and s3prl, a feature extractor with LayerNorms (large) was trained on waves of mean 0 and
        # deviation 1, and one with a GroupNorm (base+) on plain waves. Two frames, because PyTorch refuses an instance
        # norm over a single value.
        super().__init__(config, dim, frames=2, normalise=config.feat_extract_norm == "layer")
        self.feature_weight = nn.Parameter(torch.zeros(config.num_hidden_layers + 1))
        self.layer1 = _ConvReluBn(config.hidden_size, CHANNELS, kernel=5)
        self.layer2 = _SERes2Block(dilation=2)
        self.layer3 = _SERes2Block(dilation=3)
        self.layer4 = _SERes2Block(dilation=4)
        self.conv = nn.Conv1d(3 * CHANNELS, POOLED, 1)
        self.pooling = _AttentiveStatistics()
        self.bn = nn.BatchNorm1d(2 * POOLED)
        self.linear = nn.Linear(2 * POOLED, dim)

    def embed(self, features: Tensor) -> Tensor:
        """Return [B, dim] for waves [B, S] from `features`."""
        mean = wavlm.weighted_mean(self.hidden_states(features), self.feature_weight)
        x = self.layer1(F.instance_norm(mean.transpose(1, 2) + 1e-6))
        second = self.layer2(x)
        third = self.layer3(second)
        x = F.relu(self.conv(torch.cat([second, third, self.layer4(third)], dim=1)))
        return self.linear(self.bn(self.pooling(x)))


def build_wavlm_ecapa(state: State) -> WavLMEcapa:
    """Return the network for a checkpoint: 25 layer weights mean WavLM large, 13 mean base+."""
    return WavLMEcapa(
        make_published_config(first_size(state, "feature_weight", 13)), first_size(state, "linear.weight", 256)
    )


class _ConvReluBn(nn.Sequential):
    """[B, C, T] to [B, out, T]: convolution, ReLU, BatchNorm."""

    def __init__(self, channels: int, out: int, kernel: int = 1) -> None:
        super().__init__()
        self.conv, self.relu = nn.Conv1d(channels, out, kernel, padding=kernel // 2), nn.ReLU()
        self.bn = nn.BatchNorm1d(out)


class _SERes2Block(nn.Module):
    """Pointwise, multi-scale and pointwise convolutions and a gate for each channel, around a shortcut."""

    def __init__(self, dilation: int) -> None:
        super().__init__()
        self.Conv1dReluBn1 = _ConvReluBn(CHANNELS, CHANNELS)
        self.Res2Conv1dReluBn = _Res2(dilation)
        self.Conv1dReluBn2 = _ConvReluBn(CHANNELS, CHANNELS)
        self.SE_Connect = _Gate()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.SE_Connect(self.Conv1dReluBn2(self.Res2Conv1dReluBn(self.Conv1dReluBn1(x))))


class _Res2(nn.Module):
    """Eight groups of channels: seven convolutions that each add the previous result, and one unchanged group."""

    def __init__(self, dilation: int) -> None:
        super().__init__()
        width = CHANNELS // SCALE
        convs = (nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation) for _ in range(SCALE - 1))
        self.convs = nn.ModuleList(convs)
        self.bns = nn.ModuleList(nn.BatchNorm1d(width) for _ in range(SCALE - 1))

    def forward(self, x: Tensor) -> Tensor:
        *groups, last = x.chunk(SCALE, dim=1)
        outputs: list[Tensor] = []
        for group, conv, bn in zip(groups, self.convs, self.bns, strict=True):
            outputs.append(bn(F.relu(conv(group + outputs[-1] if outputs else group))))
        return torch.cat([*outputs, last], dim=1)


class _Gate(nn.Module):
    """Squeeze and excitation."""

    def __init__(self) -> None:
        super().__init__()
        self.linear1 = nn.Linear(CHANNELS, BOTTLENECK)
        self.linear2 = nn.Linear(BOTTLENECK, CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(self.linear2(F.relu(self.linear1(x.mean(dim=2)))))
        return x * gate.unsqueeze(2)


class _AttentiveStatistics(nn.Module):
    """[B, C, T] to [B, 2 C]: mean and deviation over time, with an attention for each channel."""

    def __init__(self) -> None:
        super().__init__()
        self.linear1 = nn.Conv1d(POOLED, BOTTLENECK, 1)
        self.linear2 = nn.Conv1d(BOTTLENECK, POOLED, 1)

    def forward(self, x: Tensor) -> Tensor:
        # float32 even under autocast, because the variance is a small difference.
        attention = torch.softmax(self.linear2(torch.tanh(self.linear1(x))).float(), dim=2)
        x = x.float()
        mean = (attention * x).sum(dim=2)
        variance = (attention * x.square()).sum(dim=2) - mean.square()
        return torch.cat([mean, variance.clamp(min=1e-9).sqrt()], dim=1)


FAMILIES = (
    Family(
        name="wavlm_ecapa",
        title='WavLM base+ or large, ECAPA-TDNN, 256-d ("WavLM-ECAPA" of the SEED paper)',
        checkpoints="UniSpeech",
        build=build_wavlm_ecapa,
        signature=("feature_weight", "layer2.SE_Connect.linear1.weight"),
        dim=256,
        crops_per_second=1.9,
        extra=wavlm.EXTRA,
        adapt=wavlm.adapt_unispeech,
    ),
)
