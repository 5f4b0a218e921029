"""The provenance of a result: versions, stores, lists. The same inputs give the same text at any time and place."""

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import python_version
from typing import Any

from pipeline.data.trials.left_out import LeftOut
from pipeline.data.trials.lists import TrialCounts
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.store.schema import OK
from pipeline.utils.inputs import hash_input

PROJECT = "speaker-seed"
PACKAGES = ("numpy", "scipy", "torch", "zarr")

MADE_OF = (
    *("encoder", "family", "weights_sha256", "front_end", "precision", "dim", "recipe", "manifest_sha256"),
    *("augment_sha256", "denoise", "enhanced_by_sha256", "timestep", "sampling", "adaptation", "atypicality"),
)
"""Attributes that identify the vectors of a store; only enhanced ones have the last five."""


def read_versions() -> dict[str, str | None]:
    """Return the versions of the project, of Python and of `PACKAGES`; None for packages that are not installed."""
    versions: dict[str, str | None] = {"seed": _version(PROJECT), "python": python_version()}
    return versions | {name: _version(name) for name in PACKAGES}


def describe_store(store: EmbeddingStore) -> dict[str, Any]:
    """Return the identity of a store: its name, its number of encoded rows, and the attributes of `MADE_OF`."""
    counts = {"utterances": len(store.utterances), "encoded": int((store.status == OK).sum())}
    made_of = {key: store.attributes[key] for key in MADE_OF if key in store.attributes}
    return {"store": store.path.name, **counts, **made_of}


def describe_file(path: Path) -> dict[str, str | None]:
    """Return the identity of a file: its name and SHA-256, or None if its bytes have changed since it was read."""
    return {"file": path.name, "sha256": hash_input(path)}


def describe_list(path: Path, form: str, counts: TrialCounts, left_out: LeftOut | None = None) -> dict[str, Any]:
    """Return the identity of a trial list: its file, its form, and its numbers of scored trials and targets.

    If trials were left out, `listed` is the number of trials in the list.
    """
    described = {**describe_file(path), "form": form, "trials": counts.trials, "targets": counts.targets}
    if left_out and left_out.trials:
        described |= {"trials": counts.trials - left_out.trials, "listed": counts.trials}
        if counts.targets is not None:
            described["targets"] = counts.targets - left_out.targets
    return described


def describe_protocol(stores: Mapping[str, EmbeddingStore], **settings: Any) -> dict[str, Any]:
    """Return the protocol of a result: versions, stores by role, and all settings that it depends on.

    Args:
        stores: stores by role, such as `enrol` and `test`; results of score files have none.
        settings: JSON values, such as lists (see `describe_list`), the seed, operating points; None values are left
            out.
    """
    # DVC leaves lists out of its tables of metrics; a mapping would add hundreds of columns there.
    described = [{"role": role, **describe_store(store)} for role, store in stores.items()]
    used = {"stores": described or None} | settings
    return {"versions": read_versions()} | {key: value for key, value in used.items() if value is not None}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
