"""Encoders as ONNX files, for ONNX Runtime and for machines without torch."""

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.encoders.encoder import Network
from pipeline.errors import ConfigError, ExportError
from pipeline.files import replacing

OPSET = 18
"""Of the exported files: ONNX Runtime 1.18 and newer read them."""
TOLERANCE = 1e-4
"""By how much of the largest value an exported file may differ from torch."""
TRACED = ((2, 3.0), (3, 4.0))
"""Waves and seconds of the batch that is traced, and of one that shows which axes of the features depend on these."""
CHECKED = ((1, 1.0), (3, 4.3))
"""Waves and seconds of the batches that the file must agree on."""


def export_onnx(network: Network, path: Path) -> None:
    """Write `embed` of a network to an ONNX file: `features` in, `embeddings` out, of any batch and any duration.

    The front-end stays outside: declare it where the file is used (`front_end` in params.yaml). The file is checked
    against torch on other batches and durations than it was traced on, and appears only if it agrees. The network is
    left as it is. Needs the extra `onnx`; takes half a minute for CAM++.

    Raises:
        ConfigError: onnxruntime or onnxscript is missing.
        ExportError: the network cannot be traced, or the file gives something else.
    """
    try:
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"exporting to ONNX needs {error.name}; pip install 'speaker-seed[onnx]'.") from None
    try:
        copied = copy.deepcopy(network).cpu().eval().requires_grad_(False)
        content = _exported(copied)
        faults = [fault for waves, seconds in CHECKED if (fault := _difference(copied, content, waves, seconds))]
    except Exception as error:  # the exporter raises what the network's code raises, and more
        raise ExportError(
            f"{type(network).__name__} cannot be exported to {path}: {_root_cause(error)}; its `embed` must be written"
            " so that torch.export can trace it with any batch and any duration"
        ) from error
    if faults:
        raise ExportError(
            f"{type(network).__name__} was not exported to {path}, as the file gave {faults[0]}; its `embed` must not"
            " depend on the values or the shape that it was traced with"
        )
    with replacing(path) as temporary:
        temporary.write_bytes(content)


class _Embed(nn.Module):
    """`embed` of a network as the forward pass of a module."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, features: Tensor) -> Tensor:
        return self.network.embed(features)


def _exported(network: Network) -> bytes:
    example, other = (_features(network, waves, seconds) for waves, seconds in TRACED)
    names = ("batch", *("frames" if axis == 1 else f"axis{axis}" for axis in range(1, example.ndim)))
    dynamic = {axis: name for axis, name in enumerate(names) if example.shape[axis] != other.shape[axis]}
    with _quiet():
        program = torch.onnx.export(
            _Embed(network).eval(),
            (example,),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=["features"],
            output_names=["embeddings"],
            dynamic_shapes=(dynamic,),
            external_data=False,
        )
    assert program is not None
    model = program.model_proto
    _forget_origin(model.graph)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _features(network: Network, waves: int, seconds: float) -> Tensor:
    """Return features of noise; of 3 s and more, so that no length along time is 1, which would be taken as fixed."""
    samples = max(network.min_samples, int(seconds * network.sample_rate))
    noise = torch.randn(waves, samples, generator=torch.Generator().manual_seed(waves))
    with torch.no_grad():
        return network.exact_features(0.1 * noise)


def _difference(network: Network, content: bytes, waves: int, seconds: float) -> str | None:
    """Return what is wrong with a file's embeddings, if anything is."""
    import onnxruntime

    features = _features(network, waves, seconds)
    with torch.no_grad():
        expected = network.embed(features)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    (found,) = session.run(["embeddings"], {"features": features.numpy()})
    if found.shape != tuple(expected.shape):
        return f"{list(found.shape)} instead of {list(expected.shape)} for {waves} waves of {seconds} s"
    error = (torch.from_numpy(found) - expected).abs().max() / expected.abs().max()
    return None if error <= TOLERANCE else f"values {float(error):.1e} off for {waves} waves of {seconds} s"


def _forget_origin(graph: Any) -> None:
    """Take out of a graph what the exporter notes of the code it came from: paths and lines of this machine."""
    graph.ClearField("metadata_props")
    for part in (*graph.input, *graph.output, *graph.value_info, *graph.initializer, *graph.node):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                _forget_origin(inner)


def _root_cause(error: BaseException) -> str:
    """Return on one line what an exporter's error began with."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what the exporter says of packages that are not there and of its own future."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
