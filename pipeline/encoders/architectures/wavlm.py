"""WavLM (Chen et al., 2021, arXiv 2110.13900) as `transformers` has it: what encoders on top of it share."""

import importlib
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.encoders.encoder import Network
from pipeline.encoders.family import Extra
from pipeline.errors import ConfigError
from pipeline.utils.checkpoint import State

EXTRA = Extra("wavlm", "transformers")

BASE_PLUS: Mapping[str, Any] = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "feat_extract_norm": "group",
    "do_stable_layer_norm": False,
}
"""WavLM base and base+, which differ in what they were trained on only; 94.4 M parameters."""
LARGE: Mapping[str, Any] = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
}
"""WavLM large, 315.5 M parameters."""
# The rest is the same in both, and `WavLMConfig`'s default: seven convolutions of 512 channels without bias, a
# positional convolution over 128 frames in 16 groups, and 320 buckets of relative position up to 800 frames.

Rules = tuple[tuple[re.Pattern[str], str], ...]

_UNISPEECH = "feature_extract.model."
_PRETRAINING = re.compile(r"final_proj\.|label_embs_concat$")
"""HuBERT's prediction of cluster labels."""

_WEIGHT_NORM: Rules = (
    (re.compile(r"(?<=pos_conv_embed\.conv\.)weight_g$"), "parametrizations.weight.original0"),
    (re.compile(r"(?<=pos_conv_embed\.conv\.)weight_v$"), "parametrizations.weight.original1"),
)
"""PyTorch 2 moved weight norm among the parametrizations; transformers has it there wherever PyTorch does."""
_FAIRSEQ: Rules = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        (r"^(feature_extractor\.conv_layers\.\d+)\.0\.", r"\1.conv."),
        (r"^(feature_extractor\.conv_layers\.\d+)\.2\.(1\.)?", r"\1.layer_norm."),  # 2.1 between two transpositions
        (r"^layer_norm\.", "feature_projection.layer_norm."),
        (r"^post_extract_proj\.", "feature_projection.projection."),
        (r"^mask_emb$", "masked_spec_embed"),
        (r"^encoder\.pos_conv\.0\.", "encoder.pos_conv_embed.conv."),
        (r"\.self_attn_layer_norm\.", ".layer_norm."),
        (r"\.self_attn\.grep_a$", ".attention.gru_rel_pos_const"),
        (r"\.self_attn\.grep_linear\.", ".attention.gru_rel_pos_linear."),
        (r"\.self_attn\.relative_attention_bias\.", ".attention.rel_attn_embed."),
        (r"\.self_attn\.", ".attention."),
        (r"\.fc1\.", ".feed_forward.intermediate_dense."),
        (r"\.fc2\.", ".feed_forward.output_dense."),
    )
)


class WavLMNetwork(Network):
    """A network on WavLM's hidden states.

    Out of training mode transformers' `WavLMModel` drops no layers and no activations and masks no frames, and waves of
    one length need no attention mask. The memory of its attention grows with the square of the length.
    """

    def __init__(self, config: Any, dim: int, frames: int, normalise: bool) -> None:
        """Lay out the backbone.

        Args:
            config: a `transformers.WavLMConfig`.
            dim: length of an embedding.
            frames: fewest frames of 20 ms that give a finite embedding.
            normalise: whether the waves are brought to mean 0 and deviation 1.

        Raises:
            ConfigError: transformers is missing.
        """
        super().__init__()
        self.dim, self.normalise = dim, normalise
        self.min_samples = count_samples(frames, config)
        self.wavlm: nn.Module = _from_transformers("WavLMModel")(config)

    def features(self, waves: Tensor) -> Tensor:
        """Return [B, S] for waves [B, S]: the waves, normalised where the backbone was trained like that."""
        return F.layer_norm(waves, waves.shape[1:]) if self.normalise else waves

    def fold(self) -> None:
        """Let PyTorch take the attention's projections as one product of matrices, which saves a seventh of the time.

        Its attention hands them [T, B, C] as a view of [B, T, C]. Whether `matmul` copies that for one product, or
        multiplies T small matrices, it decides by whether the weight requires a gradient, though none is computed.
        """
        self.wavlm.requires_grad_(True)

    def hidden_states(self, features: Tensor) -> tuple[Tensor, ...]:
        """Return what goes into each of L layers and what comes out of the encoder, L + 1 times [B, T, hidden].

        That is the list that s3prl's hooks give. In large the encoder ends in a LayerNorm of its own, so the last one
        is normalised and the rest are not. Some releases of transformers (5.x) list the last layer's bare output
        instead; `last_hidden_state` has been the encoder's in all of them.
        """
        output = self.wavlm(features, output_hidden_states=True)
        return (*output.hidden_states[:-1], output.last_hidden_state)


def make_published_config(states: int, **changes: Any) -> Any:
    """Return the `WavLMConfig` of the published model with this many hidden states: 25 are large's, 13 are base+'s.

    Raises:
        ConfigError: transformers is missing.
    """
    preset = LARGE if states == LARGE["num_hidden_layers"] + 1 else BASE_PLUS
    return _from_transformers("WavLMConfig")(**{**preset, **changes})


def count_samples(frames: int, config: Any) -> int:
    """Return how many samples the convolutions need for `frames` frames: 400 for one, 320 for each further one."""
    length = frames
    for kernel, stride in zip(reversed(config.conv_kernel), reversed(config.conv_stride), strict=True):
        length = (length - 1) * stride + kernel
    return length


def weighted_mean(states: tuple[Tensor, ...], weights: Tensor) -> Tensor:
    """Return the mean [B, T, hidden] of L hidden states [B, T, hidden] under softmax(weights [L]), in float32."""
    shares = torch.softmax(weights.float(), dim=0)
    total = shares[0] * states[0].float()
    for share, state in zip(shares[1:], states[1:], strict=True):
        total += share * state.float()
    return total


def adapt_weight_norm(state: State) -> dict[str, Tensor]:
    """Rename the positional convolution's magnitude and direction to how transformers' module has them now."""
    return {_renamed(key, _WEIGHT_NORM): value for key, value in state.items()}


def adapt_unispeech(state: State) -> dict[str, Tensor]:
    """Rename a UniSpeech checkpoint's WavLM from its own names (fairseq's) to those of transformers, below `wavlm.`.

    What only its pre-training used is left out. Tensors of other names, so also of a checkpoint that already has
    transformers' names, are as they were.
    """
    adapted: dict[str, Tensor] = {}
    for key, value in state.items():
        if not key.startswith(_UNISPEECH):
            adapted[_renamed(key, _WEIGHT_NORM)] = value
        elif not _PRETRAINING.match(name := key.removeprefix(_UNISPEECH)):
            adapted[f"wavlm.{_renamed(_renamed(name, _FAIRSEQ), _WEIGHT_NORM)}"] = value
    return adapted


def _from_transformers(name: str) -> Any:
    """Import a class of transformers when it is needed: the package is optional, and slow to import."""
    try:
        return getattr(importlib.import_module("transformers"), name)
    except (ImportError, OSError, RuntimeError) as error:  # OSError: of compiled packages that it tries, as torchaudio
        raise ConfigError(
            f"WavLM encoders need transformers, which cannot be imported ({' '.join(str(error).split())}): "
            "pip install 'speaker-seed[wavlm]'"
        ) from error


def _renamed(name: str, rules: Rules) -> str:
    for pattern, replacement in rules:
        name = pattern.sub(replacement, name)
    return name
