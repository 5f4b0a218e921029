"""What a result was made of: versions, stores, lists. The same inputs give the same words, wherever and whenever."""

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import python_version
from typing import Any

from pipeline.data.trials.lists import TrialCounts
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.store.schema import OK
from pipeline.utils.atomic import sha256_of

PROJECT = "speaker-seed"
PACKAGES = ("numpy", "scipy", "torch", "zarr")

MADE_OF = (
    "encoder",
    "family",
    "weights_sha256",
    "front_end",
    "precision",
    "dim",
    "recipe",
    "manifest_sha256",
    "augment_sha256",
    "denoise",
    "enhanced_by_sha256",
    "timestep",
    "sampling",
)
"""Attributes of a store that tell its vectors from those of another; the last three are of enhanced ones."""


def read_versions() -> dict[str, str | None]:
    """Return the versions of the project, of Python and of `PACKAGES`, None where one is not installed."""
    found: dict[str, str | None] = {"seed": _version(PROJECT), "python": python_version()}
    return found | {name: _version(name) for name in PACKAGES}


def describe_store(store: EmbeddingStore) -> dict[str, Any]:
    """Return what identifies a store: its name, how many rows were encoded, and those of `MADE_OF` that it has."""
    counts = {"utterances": len(store.utterances), "encoded": int((store.status == OK).sum())}
    made_of = {key: store.attributes[key] for key in MADE_OF if key in store.attributes}
    return {"store": store.path.name, **counts, **made_of}


def describe_file(path: Path) -> dict[str, str]:
    """Return what identifies a file: its name and the SHA-256 of its bytes."""
    return {"file": path.name, "sha256": sha256_of(path)}


def describe_list(path: Path, form: str, counts: TrialCounts) -> dict[str, Any]:
    """Return what identifies a trial list: its file, its form, and how many trials and targets it has."""
    return {**describe_file(path), "form": form, "trials": counts.trials, "targets": counts.targets}


def describe_protocol(stores: Mapping[str, EmbeddingStore], **settings: Any) -> dict[str, Any]:
    """Return the protocol of a result: versions, its stores by what they are in it, and what else it depends on.

    Args:
        stores: by role, such as `enrol` and `test`; a result of score files has none.
        settings: JSON values, such as lists (see `describe_list`), the seed, operating points; those that are None go.
    """
    # A list, which DVC leaves out of its tables of metrics; as a table it would be hundreds of columns there.
    described = (
        {"stores": [{"role": role, **describe_store(store)} for role, store in stores.items()]} if stores else {}
    )
    return {
        "versions": read_versions(),
        **described,
        **{key: value for key, value in settings.items() if value is not None},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
