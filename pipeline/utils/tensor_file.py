"""Safetensors files of this project: tensors and a JSON object, with one digest of both that is checked on reading."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

KEY = "seed"
"""The only key of a file's metadata: safetensors keeps them in a hash map, whose order differs from run to run."""
DIGEST = "digest"
"""The key of the digest in the JSON object."""


class DigestError(ValueError):
    """The content of a file is not what was written."""


@dataclass(frozen=True)
class TensorFile:
    """The content of a file, whose digest is right."""

    content: dict[str, Any]
    """The JSON object, without the digest."""
    tensors: dict[str, Tensor]
    """The tensors, by name in ascending order, as copies that no longer depend on the file."""
    has_digest: bool
    """False for files of versions that wrote no digest, whose content is not checked."""


def write_tensor_file(path: Path, content: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write tensors and a JSON object to a file; the same content always gives the same bytes.

    Raise SafetensorError if the disk is full.
    """
    plain = {name: tensors[name].detach().cpu().contiguous() for name in sorted(tensors)}
    read_back = json.loads(json.dumps(dict(content)))  # keys become text, as they will be on reading
    read_back[DIGEST] = compute_digest(read_back, plain)
    save_file(plain, path, {KEY: json.dumps(read_back, sort_keys=True)})


def read_tensor_file(path: Path) -> TensorFile:
    """Read a file and check its digest, if it has one.

    Raises:
        OSError: the file cannot be opened.
        SafetensorError: it is not a safetensors file, or its header is damaged.
        DigestError: the digest is not that of the content.
        ValueError: the file has no JSON object of ours.
    """
    check_readable(path)
    with safe_open(path, framework="pt") as file:
        content = _parse_content(file.metadata())
        tensors = {name: file.get_tensor(name).clone() for name in sorted(file.keys())}
    digest = content.pop(DIGEST, None)
    if digest is not None and digest != compute_digest(content, tensors):
        raise DigestError("its checksum does not match its content")
    return TensorFile(content, tensors, digest is not None)


def read_content(path: Path) -> dict[str, Any]:
    """Return the JSON object of a file, unchecked; raise the errors of `read_tensor_file`."""
    check_readable(path)
    with safe_open(path, framework="pt") as file:
        return _parse_content(file.metadata())


def check_readable(path: Path) -> None:
    """Raise the OSError of opening a file; safetensors reports any as a missing file, and waits for pipes."""
    if path.exists() and not path.is_file():
        raise OSError("it is no regular file")
    with path.open("rb"):
        pass


def compute_digest(content: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of a JSON object with sorted keys, and of each tensor's name, type, shape and bytes."""
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        kind = str(tensor.dtype).removeprefix("torch.")
        digest.update(json.dumps([name, kind, list(tensor.shape)]).encode())
        digest.update(view_bytes(tensor))
    return digest.hexdigest()


def view_bytes(tensor: Tensor) -> memoryview:
    """Return the bytes of a tensor of any type and shape; on the CPU, without copying them."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def _parse_content(metadata: Mapping[str, str] | None) -> dict[str, Any]:
    try:
        content = json.loads((metadata or {})[KEY])
    except (KeyError, RecursionError) as error:
        raise ValueError(f"its metadata have no readable {KEY!r}") from error
    if not isinstance(content, dict):
        raise ValueError(f"its metadata hold a {type(content).__name__} in place of an object")
    return content
