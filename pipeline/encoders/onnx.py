"""Networks from ONNX files."""

import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.encoders.family import Extra
from pipeline.encoders.generic import GenericNetwork, summarise_error
from pipeline.errors import ConfigError
from pipeline.utils.shortage import raise_shortage


class OnnxNetwork(GenericNetwork):
    """An ONNX file in ONNX Runtime, with the number of threads of torch at loading, in the precision of the file."""

    extra = Extra("onnx", "onnxruntime")

    def _open(self) -> None:
        self._lock = threading.Lock()
        self._device = torch.device("cpu")
        self._session = self._start(self._device)
        inputs = self._session.get_inputs()
        if len(inputs) != 1:
            names = ", ".join(entry.name for entry in inputs) or "none"
            raise self._fault(f"has {len(inputs)} inputs ({names})", "export it with one, the features of a batch")
        (self._input,) = inputs
        shape = self._input.shape
        if self._input.type != "tensor(float)":
            raise self._fault(f"takes {self._input.type}", "export it with a float32 input")
        if len(shape) != self.rank:
            problem = f"takes {shape}, but its front_end gives {self.rank} axes"
            raise self._fault(problem, "correct front_end, or export it again")
        if isinstance(shape[0], int) and shape[0] != 1:
            problem = f"takes batches of {shape[0]} only"
            raise self._fault(problem, "export it with a dynamic first axis, or a batch of 1")
        self.one_by_one = shape[0] == 1

    def _run(self, features: Tensor) -> object:
        session = self._session_on(features.device)
        array = features.detach().float().contiguous().cpu().numpy()
        (output,) = session.run([session.get_outputs()[0].name], {self._input.name: array})
        return torch.from_numpy(output).to(features.device) if isinstance(output, np.ndarray) else output

    def _session_on(self, device: torch.device) -> Any:
        """Return the session, reopened if the network has moved to or from a GPU; its `run` is thread-safe."""
        with self._lock:
            if device != self._device and "cuda" in (device.type, self._device.type):
                self._session, self._device = self._start(device), device
            return self._session

    def _start(self, device: torch.device) -> Any:
        """Return an InferenceSession on a CUDA device, or on the CPU for any other device."""
        try:
            import onnxruntime
        except ImportError:
            need = f"encoder {self.name}: family onnx needs onnxruntime; pip install '.[onnx]' (docs/install.md)."
            raise ConfigError(need) from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
        options.use_deterministic_compute = True
        options.log_severity_level = 4  # errors are raised, and should not be logged as well
        # The SHA-256 does not cover tensors in other files, so this path, which is not a folder, disables them.
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(self.path))
        providers: list[str | tuple[str, Mapping[str, Any]]] = ["CPUExecutionProvider"]
        if device.type == "cuda":
            providers.insert(0, ("CUDAExecutionProvider", {"device_id": device.index or 0}))
            if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
                raise self._no_cuda()
        try:
            session = onnxruntime.InferenceSession(str(self.path), options, providers=providers)
        except Exception as error:  # onnxruntime's exceptions have no common base
            raise_shortage(error, self.path)
            raise self._fault(
                f"cannot be read as ONNX ({summarise_error(error)})",
                "download it again, or export it with its weights inside",
            ) from error
        if device.type == "cuda" and "CUDAExecutionProvider" not in session.get_providers():
            raise self._no_cuda()
        return session

    def _no_cuda(self) -> ConfigError:
        return ConfigError(
            f"encoder {self.name}: this onnxruntime cannot use CUDA; install onnxruntime-gpu instead, or set"
            " device: cpu."
        )
