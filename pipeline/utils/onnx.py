"""Torch modules as ONNX files: of any batch, the same bytes every time, silent about where they were made."""

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.errors import ConfigError

OPSET = 18
"""Of the files: ONNX Runtime 1.18 and newer read them."""


def check_onnx() -> None:
    """Raise ConfigError unless the packages that write and run ONNX files are there, those of the extra `onnx`."""
    try:
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"exporting to ONNX needs {error.name}; pip install 'speaker-seed[onnx]'.") from None


def onnx_bytes(
    module: nn.Module,
    example: Tensor,
    names: tuple[str, str],
    dynamic: Mapping[int, str],
    properties: Mapping[str, str] | None = None,
) -> bytes:
    """Return a module of one tensor in and one out as an ONNX file of opset `OPSET`.

    Args:
        module: in evaluation mode; the exporter raises whatever its code raises.
        example: what it is traced on.
        names: of its input and its output.
        dynamic: names of the input's axes that may have any length.
        properties: metadata of the file.
    """
    with quiet():
        program = torch.onnx.export(
            module,
            (example,),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=[names[0]],
            output_names=[names[1]],
            dynamic_shapes=(dict(dynamic),),
            external_data=False,
        )
    assert program is not None
    model = program.model_proto
    _forget_origin(model.graph)
    for key, value in (properties or {}).items():
        model.metadata_props.add(key=key, value=value)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def run_onnx(file: bytes | Path, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return what an ONNX file of one input and one output gives on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    content = file if isinstance(file, bytes) else file.read_bytes()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: inputs})
    return np.asarray(found)


def root_cause(error: BaseException) -> str:
    """Return on one line what an exporter's error began with."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


@contextmanager
def quiet() -> Iterator[None]:
    """Silence what torch's exporters say of packages that are not there and of their own future."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


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
