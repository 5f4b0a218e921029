"""PyTorch: a dictionary of `ids` and `embeddings`, or of one tensor per id; code in files is never run."""

import pickle
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.errors import ExchangeError, ResourceError, one_line
from pipeline.store.formats import reader
from pipeline.utils.atomic import replacing
from pipeline.utils.shortage import raise_shortage

_NUMPY_TYPES = (torch.float16, torch.float32, torch.float64)


def open_reader(path: Path, form: str, ids: Path | None) -> reader.VectorReader:
    """Open a `.pt` or `.pth` file; see `registry.Format`."""
    content = _load(path)
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise ExchangeError(f"{path}: not a dictionary by id, or of ids and embeddings. Save one of these.")
    table, names = content.get("embeddings"), content.get("ids")
    if isinstance(names, torch.Tensor) and names.ndim == 1 and not names.is_floating_point():
        names = names.tolist()
    if isinstance(table, torch.Tensor) and isinstance(names, list | tuple):
        for name in names:
            if not isinstance(name, str | int):
                raise ExchangeError(f"{path}: id {str(name)[:40]!r} is not text or a whole number. Save text.")
        return _table(path, table, [str(name) for name in names])
    for name, tensor in content.items():
        if not isinstance(tensor, torch.Tensor):
            raise ExchangeError(f"{path}: {name[:40]!r} is {type(tensor).__name__}, not a tensor. Save tensors by id.")
    return reader.open_keyed(
        path, lambda: iter(content), lambda: ((name, _array(path, name, tensor)) for name, tensor in content.items())
    )


def write_table(path: Path, form: str, vectors: reader.VectorTable) -> None:
    """Write `{"ids": [...], "embeddings": tensor [N, dim]}`, or, as `pt-dict`, a tensor by id."""
    with replacing(path) as temporary:
        flat = reader.RowFile.spool((block for _, block in vectors.blocks()), vectors.dim, temporary.parent)
        table = torch.from_numpy(flat.memory_map())
        if form == "pt-dict":  # rows of one storage, which is written once
            torch.save(dict(zip(vectors.ids, table, strict=True)), temporary)
        else:
            torch.save({"ids": list(vectors.ids), "embeddings": table}, temporary)


def _table(path: Path, table: torch.Tensor, names: list[str]) -> reader.VectorReader:
    if table.ndim != 2 or len(table) != len(names):
        raise ExchangeError(f"{path}: {len(names):,} ids for embeddings of shape {list(table.shape)}. Save it again.")
    _check_stored(path, "embeddings", table)
    dim, dense = table.shape[1], table.layout == torch.strided
    first = _array(path, "embeddings", table[:1] if dense else table)
    reader.check_floating(path, first.dtype, dim)

    def blocks() -> Iterator[reader.VectorBlock]:
        for start in range(0, len(names), reader.rows_per_block(dim)):
            yield reader.VectorBlock(_array(path, "embeddings", table[start : start + reader.rows_per_block(dim)]))

    return reader.VectorReader(str(path), dim, first.dtype, lambda: iter([names]), blocks)


def _load(path: Path) -> Any:
    try:
        with warnings.catch_warnings(action="ignore"):  # the error below says the same
            try:
                return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            except RuntimeError as error:
                raise_shortage(error, path)
                if "mmap" not in str(error):
                    raise
                return torch.load(path, map_location="cpu", weights_only=True)  # written by PyTorch before 1.6
    except pickle.UnpicklingError as error:
        raise ExchangeError(
            f"{path}: is damaged, or holds more than tensors, numbers and text, which is not loaded because it could be"
            " code. Save a dictionary of tensors."
        ) from error
    except (RuntimeError, OSError, EOFError, ValueError, KeyError, AttributeError) as error:
        raise_shortage(error, path)
        reason = str(error).strip().partition("\n")[0][:120] or type(error).__name__
        raise ExchangeError(
            f"{path}: not a PyTorch file of tensors only, and nothing else is loaded ({reason}). Save a dictionary of"
            " tensors."
        ) from error
    except ResourceError:
        raise
    except Exception as error:  # the unpickler raises almost anything for a broken file
        raise_shortage(error, path)
        raise ExchangeError(f"{path}: not a PyTorch file ({one_line(error)}). Copy or make it again.") from error


def _check_stored(path: Path, name: str, tensor: torch.Tensor) -> None:
    """Raise ExchangeError if a tensor repeats its numbers: a few bytes could declare any size."""
    if tensor.layout != torch.strided or tensor.is_meta:
        return
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        shape = list(tensor.shape)
        raise ExchangeError(f"{path}: {name[:40]!r} declares {shape} numbers, more than it stores. Save a copy of it.")


def _array(path: Path, name: str, tensor: torch.Tensor) -> NDArray[Any]:
    _check_stored(path, name, tensor)
    try:
        tensor = tensor.detach().resolve_conj().resolve_neg()
        if tensor.is_floating_point() and tensor.dtype not in _NUMPY_TYPES:
            tensor = tensor.float()  # exact
        return np.asarray(tensor.numpy())
    except (RuntimeError, TypeError) as error:  # sparse, packed, or without content
        raise ExchangeError(
            f"{path}: {name[:40]!r} is a tensor of type {tensor.dtype} and layout {tensor.layout}, which cannot be read"
            f" ({one_line(error)}). Save dense float32."
        ) from error
