"""The x-vector (Snyder et al., 2018) on WavLM's hidden states, `WavLMForXVector` in transformers."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.encoders.architectures import wavlm
from pipeline.encoders.architectures.wavlm import WavLMNetwork, make_published_config
from pipeline.encoders.family import Family, first_size
from pipeline.utils.checkpoint import State


class WavLMXVector(WavLMNetwork):
    """WavLM (Chen et al., 2021, arXiv 2110.13900) → weighted mean of layers → TDNN → mean and deviation → Linear.

    State-dict names and embeddings are those of `WavLMForXVector`, without its classifier and objective. Waves are not
    normalised (`do_normalize` is false): WavLM base was trained on plain waves, and the GroupNorm over time after its
    first convolution removes most of their scale and offset.
    """

    def __init__(self, config: Any = None) -> None:
        """Build the network on a backbone with a `transformers.WavLMConfig`, by default WavLM base+ with layer weights.

        The settings `tdnn_*`, `xvector_output_dim` and `use_weighted_layer_sum` concern the head.
        """
        config = config or make_published_config(13, use_weighted_layer_sum=True)
        dims, kernels, dilations = config.tdnn_dim, config.tdnn_kernel, config.tdnn_dilation
        # Without padding, the published convolutions cover 15 frames, and a deviation needs two outputs.
        context = sum((kernel - 1) * dilation for kernel, dilation in zip(kernels, dilations, strict=True))
        super().__init__(config, config.xvector_output_dim, frames=context + 2, normalise=False)
        self.layer_weights: nn.Parameter | None = None
        if config.use_weighted_layer_sum:
            self.layer_weights = nn.Parameter(torch.zeros(config.num_hidden_layers + 1))
        self.projector = nn.Linear(config.hidden_size, dims[0])
        shapes = zip((dims[0], *dims), dims, kernels, dilations, strict=False)
        self.tdnn = nn.Sequential(*(_Tdnn(*shape) for shape in shapes))
        self.feature_extractor = nn.Linear(2 * dims[-1], config.xvector_output_dim)

    def embed(self, features: Tensor) -> Tensor:
        """Return [B, dim] for waves [B, S] from `features`."""
        states = self.hidden_states(features)
        x = states[-1] if self.layer_weights is None else wavlm.weighted_mean(states, self.layer_weights)
        x = self.tdnn(self.projector(x).transpose(1, 2)).float()
        return self.feature_extractor(torch.cat([x.mean(dim=2), x.std(dim=2)], dim=1))


def build_wavlm_xvector(state: State) -> WavLMXVector:
    """Return the network for a checkpoint; without layer weights it uses only the last hidden state."""
    config = make_published_config(
        13,
        use_weighted_layer_sum="layer_weights" in state,
        xvector_output_dim=first_size(state, "feature_extractor.weight", 512),
    )
    return WavLMXVector(config)


class _Tdnn(nn.Module):
    """A dilated convolution [B, C, T] to [B, out, T'] and a ReLU, with the weights of a Linear [out, kernel C]."""

    def __init__(self, channels: int, out: int, kernel: int, dilation: int) -> None:
        super().__init__()
        self.shape, self.dilation = (out, kernel, channels), dilation
        self.kernel = nn.Linear(channels * kernel, out)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.kernel.weight.view(self.shape).transpose(1, 2)
        return F.relu(F.conv1d(x, weight, self.kernel.bias, dilation=self.dilation))


FAMILIES = (
    Family(
        name="wavlm_xvector",
        title="WavLM x-vector, 512-d",
        checkpoints="Hugging Face WavLMForXVector",
        build=build_wavlm_xvector,
        signature=("wavlm.feature_projection.projection.weight", "tdnn.0.kernel.weight"),
        dim=512,
        crops_per_second=1.8,
        example="hf://microsoft/wavlm-base-plus-sv/pytorch_model.bin",
        extra=wavlm.EXTRA,
        adapt=wavlm.adapt_weight_norm,
    ),
)
