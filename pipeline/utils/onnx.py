"""Convert torch modules to ONNX files with a dynamic batch, the same bytes every time, and no trace of this machine."""

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
"""The opset of the files; ONNX Runtime 1.18 and newer read it."""


def check_onnx() -> None:
    """Raise ConfigError unless the packages of the extra `onnx`, which write and run ONNX files, are installed."""
    try:
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"exporting to ONNX needs {error.name}; pip install '.[onnx]' (docs/install.md).") from None


def onnx_bytes(
    module: nn.Module,
    example: Tensor,
    names: tuple[str, str],
    dynamic: Mapping[int, str],
    properties: Mapping[str, str] | None = None,
) -> bytes:
    """Return a module with one input and one output as an ONNX file of opset `OPSET`.

    Args:
        module: a module in evaluation mode; the exporter raises whatever its code raises.
        example: the input that the module is traced on.
        names: names of the input and the output.
        dynamic: names of the input's axes of variable length.
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
    _strip_origin(model.graph)
    for key, value in (properties or {}).items():
        model.metadata_props.add(key=key, value=value)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def run_onnx(file: bytes | Path, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Run an ONNX file with one input and one output on the CPU, and return the output."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    content = file if isinstance(file, bytes) else file.read_bytes()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {session.get_inputs()[0].name: inputs})
    return np.asarray(output)


def root_cause(error: BaseException) -> str:
    """Return the root cause of an exporter's error on one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the warnings of torch's exporters about missing packages and deprecations."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _strip_origin(graph: Any) -> None:
    """Remove the exporter's notes on the source code from a graph: paths and line numbers on this machine."""
    graph.ClearField("metadata_props")
    for part in (*graph.input, *graph.output, *graph.value_info, *graph.initializer, *graph.node):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                _strip_origin(inner)
