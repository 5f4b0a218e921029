"""What SEED's encoders compute, written out plainly from a state dict in double precision."""

import hashlib
from collections.abc import Mapping
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.encoders.encoder import Network
from tests.conftest import voice
from tests.encoders.mel import mel_filters, mel_spectrogram
from tests.encoders.oracles import randomised

State = Mapping[str, Tensor]
T = TypeVar("T", bound=Network)


def prepared(network: T) -> T:
    """Give a network weights under which its layers neither fade nor blow up, frozen."""
    torch.manual_seed(0)
    for parameter in network.parameters():
        if parameter.ndim > 1:
            nn.init.kaiming_normal_(parameter, nonlinearity="linear")
    randomised(network)
    return network.requires_grad_(False)


def layout(network: Network) -> str:
    """Return the SHA-256 of the sorted lines `name shape` of a state dict."""
    lines = sorted(f"{name} {list(tensor.shape)}" for name, tensor in network.state_dict().items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def state_of(module: nn.Module) -> State:
    return {name: tensor.double() for name, tensor in module.state_dict().items()}


def within(state: State, prefix: str) -> State:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def waves(count: int, samples: int) -> Tensor:
    """Return talkers in faint noise [count, samples], so that no bin is silent."""
    talkers = [voice(100 + 30 * index, samples / 16_000 + 0.01, index)[:samples] for index in range(count)]
    noise = 0.01 * np.random.default_rng(0).standard_normal((count, samples))
    return torch.from_numpy((np.stack(talkers) + noise).astype(np.float32))


def log_mel(wave: NDArray[np.float32], mels: int, low: float, high: float) -> NDArray[np.float64]:
    """Return log(mel power + 1e-6) [mels, frames] of a pre-emphasised wave."""
    padded = np.concatenate([wave[1:2], wave]).astype(np.float64)
    filters = mel_filters(512, mels, low, high, htk=True)
    power = mel_spectrogram(padded[1:] - 0.97 * padded[:-1], filters, "hamming", 400, "reflect")
    return np.asarray(np.log(power + 1e-6))


def batch_norm(x: Tensor, state: State, name: str) -> Tensor:
    shape = (1, -1) + (1,) * (x.ndim - 2)
    mean, variance, weight, bias = (
        state[f"{name}.{part}"].reshape(shape) for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / (variance + 1e-5).sqrt() * weight + bias


def conv(x: Tensor, state: State, name: str, **options: int) -> Tensor:
    function = torch.conv2d if x.ndim == 4 else torch.conv1d
    return function(x, state[f"{name}.weight"], state.get(f"{name}.bias"), **options)


def linear(x: Tensor, state: State, name: str) -> Tensor:
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def attention_scores(x: Tensor, state: State) -> Tensor:
    """Convolution → ReLU → BatchNorm → convolution."""
    return conv(batch_norm(conv(x, state, "attention.0").relu(), state, "attention.2"), state, "attention.3")


def weights_of(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    exponentials = np.exp(scores - scores.max(axis=2, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=2, keepdims=True))
