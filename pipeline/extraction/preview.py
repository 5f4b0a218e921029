"""Re-create the audio of one view, and describe its corruption."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import soundfile

from pipeline.audio.augment.corrupt import Trace
from pipeline.audio.augment.corruptions import find_corruption
from pipeline.audio.augment.recipe import Recipe, ViewAudio, check_sources, make_views
from pipeline.audio.augment.sources import Source, SourcePool
from pipeline.audio.reading import SAMPLE_RATE, Waveform, read_recording
from pipeline.data.manifest import Utterance
from pipeline.errors import AudioError, ConfigError, StoreError, UnknownUtteranceError
from pipeline.extraction.shard import LoudAudio
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.store.schema import DENOISE
from pipeline.utils.atomic import replacing, sha256_of
from pipeline.utils.paths import Place


def make_preview(
    manifest: Sequence[Utterance],
    root: Path,
    recipe: Recipe,
    sources: Mapping[str, Sequence[Source]],
    seed: int,
    utterance: str,
    view: str | None,
    draw: int,
    loud_audio: LoudAudio = "keep",
) -> ViewAudio:
    """Return one view of one utterance, exactly as an extraction encodes it.

    `root` is the folder that the manifest's paths are relative to. `utterance` is the id. `view` is None if the recipe
    has only one. `draw` is the number of the crop, from 0.

    Raises:
        UnknownUtteranceError: the manifest does not hold the utterance.
        ConfigError: the recipe has no such view or draw.
        AudioError: the recording cannot be read, or is not the one in the manifest.
        CorpusError: sources are missing or unreadable.
    """
    row = next((row for row in manifest if row.utterance == utterance), None)
    if row is None:
        raise UnknownUtteranceError(f"{utterance}: is not in the manifest, whose first is {manifest[0].utterance}.")
    column = _column(recipe, view)
    if draw >= recipe.draws and recipe.evaluation:
        raise ConfigError(f"draw {draw}: the condition has {recipe.draws} (extract.eval_crops), from 0.")
    path = root / row.path
    recording = read_recording(path, normalize=loud_audio == "normalize")
    if row.sha256 not in (None, sha256_of(path)):
        raise AudioError(f"{path}: has changed since the manifest was made. Make the manifest again.")
    # Draws and views are independent of each other, so the others are not made.
    only = recipe if recipe.evaluation else replace(recipe, views=(recipe.views[column],), draws=draw + 1)
    check_sources(only, sources, "preview")
    pool, own = SourcePool(sources), (row.speaker, path, recording.warning)
    views = make_views(only, recording.wave, seed, utterance, pool, *own)
    return views[draw][0]


def check_trace(
    store: Place, recipe: Recipe, utterance: str, view: str | None, draw: int, trace: Trace, denoised: str | None = None
) -> None:
    """Raise StoreError unless a store holds the same `trace` of a view, and was `denoised` by the same denoiser."""
    opened = EmbeddingStore.open(store)
    if (theirs := opened.attributes.get(DENOISE)) != denoised:
        raise StoreError(
            f"{store}: its audio was denoised by {theirs or 'nothing'}, here by {denoised or 'nothing'}. Give --denoise"
            " as for the extraction."
        )
    if utterance not in opened.utterances:
        raise StoreError(f"{store}: does not hold {utterance}. Give the store of this manifest.")
    stored = opened.trace(opened.utterances.index(utterance))
    column = _column(recipe, view)
    if draw >= len(stored) or column >= len(stored[draw]):
        raise StoreError(f"{store}: has no draw {draw} or no view {column} of it. Give the store of this set.")
    if stored[draw][column] != trace:
        raise StoreError(
            f"{store}: the trace of {utterance} is {stored[draw][column]}, here it is {trace}. Give the manifest,"
            " augmentation list, parameters and seed that the store was extracted with."
        )


def write_wave(path: Path, wave: Waveform, sample_format: str) -> None:
    """Write a wave [S] as a 16 kHz WAV of 32-bit `float` or `pcm16` samples, atomically."""
    subtype = "FLOAT" if sample_format == "float" else "PCM_16"
    with replacing(path) as temporary:
        soundfile.write(temporary, wave, SAMPLE_RATE, format="WAV", subtype=subtype)


def describe(made: ViewAudio) -> Iterator[str]:
    """Yield lines that describe a view: the crop, each step and each source."""
    yield f"crop: {len(made.wave)} samples from {made.trace['start']}"
    if "warning" in made.trace:
        yield f"recording: {made.trace['warning']}"
    for step in made.trace["steps"]:
        units = find_corruption(step["kind"]).units
        yield step["kind"] + "".join(f", {step[key]:z.6g}{unit}" for key, unit in units.items())
        for source in step.get("sources", ()):
            texts = {"start": " from sample ", "index": ", response "}
            yield f"  {source['path']}" + "".join(
                f"{text}{source[key]}" for key, text in texts.items() if key in source
            )


def _column(recipe: Recipe, view: str | None) -> int:
    """Return the number of a view in a recipe."""
    names = [each.name for each in recipe.views]
    if view is None and len(names) == 1:
        return 0
    if view not in names:
        problem = "a view is needed" if view is None else f"unknown view {view!r}"
        raise ConfigError(f"{problem}: it is one of {', '.join(names)}.")
    return names.index(view)
