"""Quality of an embedding store: missing, damaged and duplicate rows, and how far corruption moves embeddings."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config.quality import Quality
from pipeline.data.recordings import RecordingCheck
from pipeline.errors import StoreError
from pipeline.metrics.quantiles import PERCENTS
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.store.schema import FAILED, MISSING, OK
from pipeline.store.zeros import list_first
from pipeline.utils.array_types import Float32Array
from pipeline.utils.markdown import escape_markdown

FILE = "quality.json"

_BLOCK_VALUES = 2**22  # numbers of a store in memory at a time, 16 MB
_IDS = 10  # utterances of broken rows that are named
_BLOCK_ROWS = 512  # rows of the cosine matrix in memory at a time

Percentiles = dict[str, float]
"""Values by percentage, such as "50" for the median."""


@dataclass(frozen=True)
class PlotValues:
    """The values behind the picture."""

    distances: Mapping[str, Float32Array]
    """The Euclidean distances between the first view and each other view, one for every pair of crops, by view."""
    cosines: Mapping[str, Float32Array]
    nearest: Float32Array
    """The cosine between each utterance's first embedding and its nearest neighbour's [row]."""


@dataclass(frozen=True)
class StoreQuality:
    """The figures of a store; counts are numbers of rows, which are utterances."""

    rows: int
    missing: int
    failed: int
    broken: int
    """Rows that are marked as encoded but hold NaN, infinite values or a vector of zeros."""
    compared: int
    """Rows behind norms, distances and duplicates: all sound ones, or a random sample of them."""
    duplicates: int
    """Compared rows whose nearest neighbour is nearer than `duplicate_cosine`."""
    nearest: Percentiles
    norm: Percentiles
    views: dict[str, dict[str, Percentiles]]
    """The `distance` and `cosine` between the first view, clean in training stores, and each other one."""
    recordings: RecordingCheck | None = None
    broken_ids: Sequence[str] = ()
    """The first ten utterances of broken rows; empty in files of older versions."""


def measure_store(store: EmbeddingStore, settings: Quality, seed: int) -> tuple[StoreQuality, PlotValues]:
    """Measure a store block by block; of more than `settings.rows` rows, a random sample.

    Raises:
        StoreError: a shard is damaged, or no row is sound.
    """
    chosen = np.zeros(len(store.status), dtype=bool)
    chosen[np.random.default_rng(seed).permutation(store.ok)[: settings.rows]] = True
    broken = list[str]()
    first, norms, distances, cosines = [], [], [], []
    for rows, values in store.blocks(_BLOCK_VALUES):
        lengths = np.linalg.norm(values, axis=-1)  # [row, draw, view]
        sound = (np.isfinite(lengths) & (lengths > 0)).all(axis=(1, 2))
        broken += [store.utterances[rows.start + row] for row in np.flatnonzero((store.status[rows] == OK) & ~sound)]
        used = sound & chosen[rows]
        values, lengths = values[used], lengths[used]
        clean, length = values[:, :, :1], lengths[:, :, :1]
        first.append(values[:, 0, 0])
        norms.append(lengths.ravel())
        distances.append(np.linalg.norm(values[:, :, 1:] - clean, axis=-1))
        cosines.append(np.einsum("ndvk,ndwk->ndv", values[:, :, 1:], clean) / (lengths[:, :, 1:] * length))
    near = nearest_cosines(np.concatenate(first))
    if len(near) == 0:
        raise StoreError(f"{store.path}: holds no sound row. Extract it again, and see its list of failures.")
    names = _view_names(store, values.shape[2])[1:]
    by_view = [
        {name: np.concatenate([part[:, :, number].ravel() for part in parts]) for number, name in enumerate(names)}
        for parts in (distances, cosines)
    ]
    figures = StoreQuality(
        rows=len(store.status),
        missing=int((store.status == MISSING).sum()),
        failed=int((store.status == FAILED).sum()),
        broken=len(broken),
        broken_ids=broken[:_IDS],
        compared=len(near),
        duplicates=int((near > settings.duplicate_cosine).sum()),
        nearest=compute_percentiles(near[np.isfinite(near)]),
        norm=compute_percentiles(np.concatenate(norms)),
        views={
            name: {"distance": compute_percentiles(by_view[0][name]), "cosine": compute_percentiles(by_view[1][name])}
            for name in names
        },
    )
    return figures, PlotValues(by_view[0], by_view[1], near[np.isfinite(near)])


def nearest_cosines(vectors: Float32Array) -> Float32Array:
    """Return the cosine of each vector [N, dim] with the nearest other one, [N]; -inf for a single vector.

    All pairs are compared, in blocks of rows, so that the matrix [N, N] is never in memory.
    """
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    result = np.full(len(unit), -np.inf, dtype=np.float32)
    for start in range(0, len(unit), _BLOCK_ROWS):
        block = unit[start : start + _BLOCK_ROWS]
        cosines = block @ unit.T
        np.fill_diagonal(cosines[:, start:], -np.inf)
        result[start : start + len(block)] = cosines.max(axis=1)
    return result


def compute_percentiles(values: Float32Array) -> Percentiles:
    """Return the percentiles PERCENTS of values [N]; {} if there are no values."""
    if len(values) == 0:
        return {}
    found = np.percentile(values.astype(np.float64), PERCENTS)
    return {str(percent): round(float(value), 6) for percent, value in zip(PERCENTS, found, strict=True)}


def exceeded_thresholds(figures: StoreQuality, settings: Quality) -> list[str]:
    """Return a phrase for every threshold that the figures exceed."""
    phrases: list[str] = []

    def check(what: str, count: int, total: int, name: str) -> None:
        limit = getattr(settings, name)
        if count > limit * total:
            first = _name_first(figures) if name == "max_broken" else ""
            phrases.append(f"{what} {_share(count, total)} (quality.{name}: {100 * limit:g} %{first})")

    check("missing rows", figures.missing, figures.rows, "max_missing")
    check("failed rows", figures.failed, figures.rows, "max_failed")
    check("rows of NaN or zeros", figures.broken, figures.rows, "max_broken")
    check("near-duplicate rows", figures.duplicates, figures.compared, "max_duplicates")
    for name, view in figures.views.items():
        if (median := view["cosine"]["50"]) > (limit := settings.max_cosine):
            phrases.append(f"view {name} at cosine {median:z.4f} from clean (quality.max_cosine: {limit:g})")
    if recordings := figures.recordings:
        check("clipped recordings", recordings.clipped, recordings.files, "max_clipped")
        check("upsampled recordings", recordings.upsampled, recordings.files, "max_upsampled")
    return phrases


def list_counts(figures: StoreQuality) -> list[tuple[str, str]]:
    """Return the counts as (name, text)."""
    sample = "" if figures.compared == figures.rows else f" (of {figures.compared:,} compared)"
    lines = [
        ("rows", f"{figures.rows:,}"),
        ("missing", _share(figures.missing, figures.rows)),
        ("failed", _share(figures.failed, figures.rows)),
        ("NaN or zero", _share(figures.broken, figures.rows) + _name_first(figures)),
        ("near-duplicates", _share(figures.duplicates, figures.compared) + sample),
    ]
    if recordings := figures.recordings:
        unreadable = f", {recordings.unreadable:,} unreadable" if recordings.unreadable else ""
        lines += [
            ("recordings read", f"{recordings.files:,}{unreadable}"),
            ("clipped", _share(recordings.clipped, recordings.files)),
            ("upsampled", _share(recordings.upsampled, recordings.files)),
            ("far above full scale", _share(recordings.loud, recordings.files)),
        ]
    return lines


def list_percentiles(figures: StoreQuality) -> list[tuple[str, Percentiles]]:
    """Return all percentiles with their names."""
    lines = [("norm", figures.norm), ("cosine to nearest other", figures.nearest)]
    for what in ("distance", "cosine"):
        lines += [(f"{what} to {name}", view[what]) for name, view in figures.views.items()]
    return lines


def markdown(figures: StoreQuality) -> list[str]:
    """Return lines of Markdown for a report: the counts, and the distance of each view from the clean one."""
    counts = "; ".join(f"{name} {escape_markdown(value)}" for name, value in list_counts(figures))
    lines = [f"Training store: {counts}."]
    if figures.views:
        lines += ["", "| view | distance to clean, median | cosine to clean, median |", "|---|---:|---:|"]
        for name, view in figures.views.items():
            distance, cosine = f"{view['distance']['50']:.3f}", f"{view['cosine']['50']:z.3f}"
            lines.append(f"| {escape_markdown(name)} | {distance} | {cosine} |")
    return lines


def as_json(figures: StoreQuality, settings: Quality) -> dict[str, Any]:
    """Return all figures and thresholds as JSON values."""
    return {**asdict(figures), "thresholds": settings.model_dump(), "exceeded": exceeded_thresholds(figures, settings)}


def read_quality(folder: Path, encoders: Sequence[str]) -> dict[str, StoreQuality]:
    """Read `<encoder>/quality.json` of every encoder that has one.

    Raises:
        StoreError: a file was not written by `seed store check`.
    """
    found = {}
    for encoder in encoders:
        path = folder / encoder / FILE
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            content.setdefault("broken_ids", [])
            known = {field.name: content[field.name] for field in fields(StoreQuality)}
            known["recordings"] = known["recordings"] and RecordingCheck(**known["recordings"])
            found[encoder] = StoreQuality(**known)
            markdown(found[encoder])
        except FileNotFoundError:
            continue
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StoreError(f"{path}: not a quality file ({error!r}). Make it with `seed store check`.") from error
    return found


def _view_names(store: EmbeddingStore, count: int) -> list[str]:
    """Return the names of a store's views in order, or numbers if it has no names."""
    named = [str(view["name"]) for view in (store.attributes.get("recipe") or {}).get("views", [])]
    return named if len(named) == count else [f"view {number}" for number in range(count)]


def _name_first(figures: StoreQuality) -> str:
    """Return the first broken rows as text that follows their number."""
    return f", first: {list_first(figures.broken_ids)}" if figures.broken_ids else ""


def _share(count: int, total: int) -> str:
    return f"{count:,}, {100 * count / max(total, 1):.1f} %"
