"""Encoders: the protocol of networks, and a frozen network that takes waves of any lengths."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pipeline.encoders.features import SAMPLE_RATE

Precision = Literal["float32", "float16", "bfloat16"]

MAX_PASS_SECONDS = 120
"""Maximum seconds of audio in one pass of a network; bounds memory."""


class Network(nn.Module, ABC):
    """An architecture: `features` always runs in float32, `embed` in the chosen precision."""

    dim: int
    """Length of an embedding."""
    sample_rate: int = SAMPLE_RATE
    min_samples: int
    """Number of samples of the shortest wave with a finite embedding."""

    @abstractmethod
    def features(self, waves: Tensor) -> Tensor:
        """Return features of waves [B, S] at `sample_rate` in [-1, 1], with utterances along the first axis."""

    @abstractmethod
    def embed(self, features: Tensor) -> Tensor:
        """Return embeddings [B, dim] of features."""

    def forward(self, waves: Tensor) -> Tensor:
        """Return embeddings [B, dim] of waves [B, S]."""
        return self.embed(self.exact_features(waves))

    def exact_features(self, waves: Tensor) -> Tensor:
        """Return `features` in float32 even under autocast; half precision would spoil spectra and logarithms."""
        with torch.autocast(waves.device.type, enabled=False):
            return self.features(waves.float())

    def fold(self) -> None:
        """Optimise the network for fixed weights; called when it is frozen."""

    def encode(self, waves: Sequence[Tensor], device: torch.device) -> Tensor:
        """Return embeddings [B, dim] of B waves [S_i] of any lengths, on the network's `device`.

        Waves of the same length go through together; none is padded to another length.
        """
        result = torch.empty(len(waves), self.dim, device=device)
        for indices, stack in stack_equal_lengths(waves, device, self.sample_rate):
            result[indices] = self(stack).float()
        return result


def stack_equal_lengths(
    waves: Sequence[Tensor], device: torch.device, sample_rate: int
) -> Iterator[tuple[list[int], Tensor]]:
    """Yield the waves [S_i] of each length as [B, S] on `device` with their indices, one pass at a time."""
    lengths: dict[int, list[int]] = {}
    for index, wave in enumerate(waves):
        lengths.setdefault(len(wave), []).append(index)
    for length, indices in lengths.items():
        size = max(1, MAX_PASS_SECONDS * sample_rate // length)
        for start in range(0, len(indices), size):
            chosen = indices[start : start + size]
            stack = torch.stack([waves[index] for index in chosen])
            # One copy from pinned memory is faster than one pageable copy for each wave.
            yield chosen, (stack.pin_memory() if device.type == "cuda" else stack).to(device, non_blocking=True)


class Encoder:
    """A frozen network on its device, from waves of any lengths to float32 embeddings [B, dim] on the CPU."""

    def __init__(
        self,
        network: Network,
        name: str,
        family: str,
        weights_sha256: str | None,
        front_end: Mapping[str, Any] | None = None,
        device: torch.device | None = None,
        precision: Precision = "float32",
    ) -> None:
        """Freeze a network whose weights are loaded, and move it to `device` (the CPU if not given).

        `name` is the encoder's name in stores and tables, and `front_end` are the options of a declared front-end.
        `precision` is that of autocast; float32 disables it.
        """
        self.device = device or torch.device("cpu")
        self.network = network.eval().requires_grad_(False).to(self.device)
        self.parameters = sum(parameter.numel() for parameter in network.parameters())
        self.network.fold()
        self.name, self.family, self.weights_sha256 = name, family, weights_sha256
        self.front_end, self.precision = front_end, precision
        self.dim, self.sample_rate, self.min_samples = network.dim, network.sample_rate, network.min_samples

    def __call__(self, waves: Sequence[Tensor]) -> Tensor:
        """Return embeddings [B, dim] of B waves [S_i] at `sample_rate` Hz in [-1, 1], of any lengths.

        A wave shorter than `min_samples` is repeated up to that length.
        """
        long_enough = [repeat_to_length(wave, self.min_samples) for wave in waves]
        autocast = torch.autocast(
            self.device.type, dtype=getattr(torch, self.precision), enabled=self.precision != "float32"
        )
        with torch.no_grad(), autocast:
            return self.network.encode(long_enough, self.device).float().cpu()


def repeat_to_length(wave: Tensor, length: int) -> Tensor:
    """Repeat a wave [S] until it has `length` samples; return a longer one unchanged."""
    return wave if len(wave) >= length else wave.repeat(-(-length // len(wave)))[:length]
