"""Folders of recordings without labels, which `seed try` and `seed adapt` encode clean and corrupted."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.utils.paths import Place
from stages.helpers.options import FOLDER, load_params, progress_bar

if TYPE_CHECKING:
    from pipeline.audio.augment.sources import Source
    from pipeline.extraction.extract import ExtractionProgress
    from pipeline.model.model_file import ModelFile
    from pipeline.training.strength import Crops

DRAWS = 4
"""Number of crops of each recording."""
VIEWS = {"noise": [{"kind": "noise", "snr": [0.0, 15.0]}], "reverb": [{"kind": "reverb"}]}
"""Corruptions, see `extract.views`."""
NOISES, ROOMS, NOISE_SECONDS = 9, 8, 6.0
"""Numbers of synthetic noises and of simulated rooms, and the length of a noise."""
SHARD = 4
"""Number of recordings that are encoded between two steps of the progress bar."""
SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif", ".au", ".caf")

noise_option = click.option(
    "--noise", type=FOLDER, help="Folder of noise recordings to mix in at 0-15 dB.  [default: synthetic noise]"
)
rooms_option = click.option(
    "--rooms", type=FOLDER, help="Folder of room impulse responses to convolve with.  [default: simulated rooms]"
)


@dataclass(frozen=True)
class Sounds:
    """Folders of the sounds to corrupt recordings with; None: synthetic ones."""

    noise: Path | None = None
    rooms: Path | None = None


def _find_recordings(folder: Path) -> list[Path]:
    """Return the audio files of a folder, at any depth, sorted.

    Raises:
        CorpusError: there are none.
    """
    from pipeline.errors import CorpusError

    paths = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES and path.is_file() and not path.name.startswith(".")
    )
    if not paths:
        raise CorpusError(f"{folder}: no audio files there ({', '.join(SUFFIXES)}).")
    return paths


def _choose_recordings(folder: Path, count: int) -> list[Path]:
    """Return at most `count` audio files of a folder, evenly spaced among the sorted ones."""
    paths = _find_recordings(folder)
    step = max(1.0, len(paths) / count)
    return [paths[int(index * step)] for index in range(min(count, len(paths)))]


def encode_folder(
    recordings: Path,
    count: int,
    encoder: str,
    model: "ModelFile",
    model_path: Place,
    sounds: Sounds,
    params: Path | None,
) -> "tuple[Crops, int]":
    """Return raw embeddings [N, 4, 3, D] of crops of recordings: clean, in noise, in a room; and the seed used.

    At most `count` files are taken, evenly spaced by name. Files that fail or are too short are named on stderr.
    Nothing is kept on disk.

    Raises:
        CorpusError: no recording can be used.
        StoreError: the model is for another encoder.
    """
    import tempfile

    import torch

    from pipeline.audio.augment.sources import SourcePool
    from pipeline.audio.denoise import load_denoiser
    from pipeline.config.recipes import recipe_for
    from pipeline.data.manifest import Utterance, escape_undecodable
    from pipeline.encoders.registry import load_encoder
    from pipeline.errors import CorpusError, ExtractionError
    from pipeline.extraction.extract import extract, store_attributes, threaded_runner
    from pipeline.extraction.shard import ExtractionJob
    from pipeline.model.model_file import check_encoder
    from pipeline.store.embedding_store import EmbeddingStore
    from pipeline.utils.device import choose_device

    settings = load_params(params, {"extract.draws": DRAWS, "extract.views": VIEWS})
    torch.set_num_threads(1)  # the workers are the threads
    options, recipe = settings.extract, recipe_for(settings, "train")
    definition = settings.definition(encoder)
    loaded = load_encoder(encoder, definition, choose_device(options.device), options.precision)
    paths = _keep_long(_choose_recordings(recordings, count), recipe.crop or 0)
    rows = [Utterance(str(number), path.as_posix()) for number, path in enumerate(paths)]
    denoiser = load_denoiser(definition.denoise)
    how = settings.seed, options.short_audio, options.batch, options.prefetch, denoiser, options.loud_audio
    with tempfile.TemporaryDirectory() as name, progress_bar("encoding", len(rows)) as advance:
        folder = Path(name)
        job = ExtractionJob(rows, Path(), recipe, SourcePool(_find_sources(sounds, folder)), loaded, *how)
        out, attributes = folder / "crops.zarr", store_attributes(job, None, None)
        check_encoder(model, attributes, model_path, recordings)
        try:
            run = threaded_runner(options.workers)
            summary = extract(job, out, attributes, SHARD, len(rows), _report_to(advance), run)
        except ExtractionError as error:  # it names a list in the temporary folder
            first = escape_undecodable(rows[0].path)
            raise CorpusError(f"none of {len(rows)} recordings can be encoded. Look at the first: {first}.") from error
        store = EmbeddingStore.open(out)
        crops = store.read()[store.ok]
    for _, path, reason in summary.failures:
        click.echo(f"  {escape_undecodable(path)}: left out: {reason}", err=True)
    for _, path, warning in summary.warnings:
        click.echo(f"  {escape_undecodable(path)}: {warning}.", err=True)
    return crops, settings.seed


def _keep_long(paths: Sequence[Path], samples: int) -> list[Path]:
    """Return the recordings that hold a whole crop; name the others on stderr. Unreadable ones fail later."""
    from pipeline.audio.reading import SAMPLE_RATE, read_duration
    from pipeline.data.manifest import escape_undecodable
    from pipeline.errors import CorpusError

    kept = []
    for path in paths:
        seconds = read_duration(path)
        if seconds is not None and seconds * SAMPLE_RATE < samples:
            click.echo(f"  {escape_undecodable(str(path))}: left out: {seconds:.2f} s are too short", err=True)
        else:
            kept.append(path)
    if not kept:
        raise CorpusError(f"none of {len(paths)} recordings is {samples / SAMPLE_RATE:.2f} s long or longer.")
    return kept


def _report_to(advance: Callable[..., None]) -> "Callable[[ExtractionProgress], None]":
    done = 0

    def report(progress: "ExtractionProgress") -> None:
        nonlocal done
        advance(progress.done - done)
        done = progress.done

    return report


def _find_sources(sounds: Sounds, folder: Path) -> "dict[str, list[Source]]":
    """Return the noises and rooms of the given folders, or synthetic ones, which are written into `folder`."""
    import soundfile

    from pipeline.audio.augment.sources import Source
    from pipeline.audio.reading import SAMPLE_RATE
    from pipeline.data.demo import noise, rooms

    if sounds.noise:
        noises = _find_recordings(sounds.noise)
    else:
        kinds = (noise.stationary_noise, noise.modulated_noise, noise.machine_noise)
        noises = [folder / f"noise{number}.flac" for number in range(NOISES)]
        for number, path in enumerate(noises):
            soundfile.write(path, kinds[number % len(kinds)](number, NOISE_SECONDS, noise.TEST), SAMPLE_RATE)
    if sounds.rooms:
        responses = _find_recordings(sounds.rooms)
    else:
        (folder / "rooms").mkdir()
        rooms.write_rooms(folder / "rooms", ROOMS, 0, rooms.TEST_ROOMS)
        responses = sorted((folder / "rooms").iterdir())
    return {"noise": [Source(path) for path in noises], "rooms": [Source(path) for path in responses]}
