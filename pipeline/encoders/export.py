"""Export of encoders as ONNX files, for ONNX Runtime and for machines without torch."""

import copy
from pathlib import Path

import torch
from torch import Tensor, nn

from pipeline.encoders.encoder import Network
from pipeline.errors import ExportError
from pipeline.utils.atomic import replacing
from pipeline.utils.onnx import check_onnx, onnx_bytes, root_cause, run_onnx

TOLERANCE = 1e-4
"""Largest difference between an exported file and torch, relative to the largest value."""
TRACED = ((2, 3.0), (3, 4.0))
"""Waves and seconds of the traced batch, and of a second one that shows which axes of the features vary."""
CHECKED = ((1, 1.0), (3, 4.3))
"""Waves and seconds of the batches that check the file."""


def export_onnx(network: Network, path: Path) -> None:
    """Write `embed` of a network to an ONNX file, from `features` to `embeddings`, for any batch and any duration.

    The front-end is not part of the file: declare it where the file is used (`front_end` in params.yaml). The file is
    checked against torch on other batches and durations than the traced ones, and is written only if it agrees. The
    network stays unchanged. Needs the extra `onnx`; takes half a minute for CAM++.

    Raises:
        ConfigError: onnxruntime or onnxscript is missing.
        ExportError: the network cannot be traced, or the file gives other embeddings.
    """
    check_onnx()
    try:
        copied = copy.deepcopy(network).cpu().eval().requires_grad_(False)
        content = _export(copied)
        faults = [fault for waves, seconds in CHECKED if (fault := _find_fault(copied, content, waves, seconds))]
    except Exception as error:  # the exporter may raise anything
        raise ExportError(
            f"{type(network).__name__} cannot be exported to {path}: {root_cause(error)}; its `embed` must be written"
            " so that torch.export can trace it with any batch and any duration"
        ) from error
    if faults:
        raise ExportError(
            f"{type(network).__name__} was not exported to {path}, because the file gave {faults[0]}; its `embed` must"
            " not depend on the values or the shape of the traced batch"
        )
    with replacing(path) as temporary:
        temporary.write_bytes(content)


class _Embed(nn.Module):
    """A module whose forward pass is `embed` of a network."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, features: Tensor) -> Tensor:
        return self.network.embed(features)


def _export(network: Network) -> bytes:
    example, other = (_features(network, waves, seconds) for waves, seconds in TRACED)
    names = ("batch", *("frames" if axis == 1 else f"axis{axis}" for axis in range(1, example.ndim)))
    dynamic = {axis: name for axis, name in enumerate(names) if example.shape[axis] != other.shape[axis]}
    return onnx_bytes(_Embed(network).eval(), example, ("features", "embeddings"), dynamic)


def _features(network: Network, waves: int, seconds: float) -> Tensor:
    """Return features of noise. Use at least 3 s, because a time axis of length 1 would be traced as fixed."""
    samples = max(network.min_samples, int(seconds * network.sample_rate))
    noise = torch.randn(waves, samples, generator=torch.Generator().manual_seed(waves))
    with torch.no_grad():
        return network.exact_features(0.1 * noise)


def _find_fault(network: Network, content: bytes, waves: int, seconds: float) -> str | None:
    """Describe how the embeddings of a file differ from torch, or return None if they agree."""
    features = _features(network, waves, seconds)
    with torch.no_grad():
        expected = network.embed(features)
    actual = run_onnx(content, features.numpy())
    if actual.shape != tuple(expected.shape):
        return f"{list(actual.shape)} instead of {list(expected.shape)} for {waves} waves of {seconds} s"
    error = (torch.from_numpy(actual) - expected).abs().max() / expected.abs().max()
    return None if error <= TOLERANCE else f"values {float(error):.1e} off for {waves} waves of {seconds} s"
