"""Base of encoders on WavLM (Chen et al., 2021, arXiv 2110.13900), as implemented in `transformers`."""

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
from pipeline.utils.shortage import raise_shortage

EXTRA = Extra("wavlm", "transformers")

BASE_PLUS: Mapping[str, Any] = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "feat_extract_norm": "group",
    "do_stable_layer_norm": False,
}
"""WavLM base and base+, which differ only in their training data; 94.4 M parameters."""
LARGE: Mapping[str, Any] = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
}
"""WavLM large, 315.5 M parameters."""
# Both use the defaults of `WavLMConfig` for the rest: seven convolutions of 512 channels without bias, a
# positional convolution over 128 frames in 16 groups, and 320 buckets of relative position up to 800 frames.

Rules = tuple[tuple[re.Pattern[str], str], ...]

_UNISPEECH = "feature_extract.model."
_PRETRAINING = re.compile(r"final_proj\.|label_embs_concat$")
"""Tensors of HuBERT's prediction of cluster labels."""

_WEIGHT_NORM: Rules = (
    (re.compile(r"(?<=pos_conv_embed\.conv\.)weight_g$"), "parametrizations.weight.original0"),
    (re.compile(r"(?<=pos_conv_embed\.conv\.)weight_v$"), "parametrizations.weight.original1"),
)
"""Names of weight norm since PyTorch 2, which transformers follows."""
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

    In evaluation mode, transformers' `WavLMModel` drops no layers or activations and masks no frames, and waves of one
    length need no attention mask. The memory of its attention grows with the square of the length.
    """

    def __init__(self, config: Any, dim: int, frames: int, normalise: bool) -> None:
        """Build the backbone from a `transformers.WavLMConfig`, or raise ConfigError if transformers is missing.

        A finite embedding takes at least `frames` of 20 ms. If `normalise`, waves get mean 0 and deviation 1.
        """
        super().__init__()
        self.dim, self.normalise = dim, normalise
        self.min_samples = count_samples(frames, config)
        self.wavlm: nn.Module = _from_transformers("WavLMModel")(config)

    def features(self, waves: Tensor) -> Tensor:
        """Return waves [B, S], normalised if the backbone was trained on normalised waves."""
        return F.layer_norm(waves, waves.shape[1:]) if self.normalise else waves

    def fold(self) -> None:
        """Make PyTorch compute the attention's projections as one matrix product, which saves a seventh of the time.

        The attention passes [T, B, C] as a view of [B, T, C]. `matmul` copies it for one product if the weight requires
        a gradient, and multiplies T small matrices otherwise. No gradient is computed.
        """
        self.wavlm.requires_grad_(True)

    def hidden_states(self, features: Tensor) -> tuple[Tensor, ...]:
        """Return the inputs of the L layers and the output of the encoder, L + 1 times [B, T, hidden].

        s3prl's hooks return the same list. The encoder of large ends in a LayerNorm, so only the last state is
        normalised. Some releases of transformers (5.x) list the output of the last layer without the LayerNorm, but
        `last_hidden_state` is the encoder's output in all releases.
        """
        output = self.wavlm(features, output_hidden_states=True)
        return (*output.hidden_states[:-1], output.last_hidden_state)


def make_published_config(states: int, **changes: Any) -> Any:
    """Return the `WavLMConfig` of the published model with this number of hidden states: 25 for large, 13 for base+.

    Raises:
        ConfigError: transformers is missing.
    """
    preset = LARGE if states == LARGE["num_hidden_layers"] + 1 else BASE_PLUS
    return _from_transformers("WavLMConfig")(**{**preset, **changes})


def count_samples(frames: int, config: Any) -> int:
    """Return the number of samples that the convolutions need for `frames` frames: 400, plus 320 per further frame."""
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
    """Rename magnitude and direction of the positional convolution to their names in transformers."""
    return {_rename(key, _WEIGHT_NORM): value for key, value in state.items()}


def adapt_unispeech(state: State) -> dict[str, Tensor]:
    """Rename the WavLM of a UniSpeech checkpoint from fairseq's names to those of transformers, below `wavlm.`.

    Tensors used only in pre-training are dropped. Other tensors, including those with transformers' names, keep their
    names.
    """
    adapted: dict[str, Tensor] = {}
    for key, value in state.items():
        if not key.startswith(_UNISPEECH):
            adapted[_rename(key, _WEIGHT_NORM)] = value
        elif not _PRETRAINING.match(name := key.removeprefix(_UNISPEECH)):
            adapted[f"wavlm.{_rename(_rename(name, _FAIRSEQ), _WEIGHT_NORM)}"] = value
    return adapted


def _from_transformers(name: str) -> Any:
    try:
        return getattr(importlib.import_module("transformers"), name)
    except (ImportError, OSError, RuntimeError) as error:  # OSError: from compiled packages such as torchaudio
        raise_shortage(error, "transformers")
        raise ConfigError(
            f"WavLM encoders need transformers, which cannot be imported ({' '.join(str(error).split())}): "
            "pip install '.[wavlm]' (docs/install.md)"
        ) from error


def _rename(name: str, rules: Rules) -> str:
    for pattern, replacement in rules:
        name = pattern.sub(replacement, name)
    return name
