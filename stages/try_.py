"""`seed try`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.utils.paths import Place
from stages.helpers.options import FOLDER, MODEL, MODEL_HELP, load_params, make_console, params_option, progress_bar

if TYPE_CHECKING:
    from collections.abc import Callable

    from pipeline.audio.augment.sources import Source
    from pipeline.config.params import Params
    from pipeline.extraction.extract import ExtractionProgress
    from pipeline.store.embedding_store import EmbeddingStore
    from pipeline.training.verdict import Verdict

FILES = 40
VIEWS = {"noise": [{"kind": "noise", "snr": [0.0, 15.0]}], "reverb": [{"kind": "reverb"}]}
"""Corruptions to try, see `extract.views`."""
NOISES, ROOMS, NOISE_SECONDS = 9, 8, 6.0
"""Numbers of synthetic noises and of simulated rooms, and the length of a noise."""
SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif", ".au", ".caf")


@click.command(name="try")
@click.argument("recordings", type=FOLDER)
@click.option("--encoder", required=True, help="Encoder: a name in the parameter file, or a family.")
@click.option("--model", type=MODEL, help=f"{MODEL_HELP}  [default: the packaged model of this encoder's name]")
@click.option(
    "--files", type=click.IntRange(min=20), default=FILES, help="Maximum number of recordings, evenly spaced by name."
)
@params_option
def try_(recordings: Path, encoder: str, model: Place | None, files: int, params: Path | None) -> None:
    """Try a model on a folder of recordings, without labels, and print a verdict.

    RECORDINGS holds 20 audio files or more, at any depth, of more than two seconds each and of many speakers. Two crops
    of each are encoded clean, in synthetic noise at 0-15 dB, and in simulated rooms. Crops of one recording count as
    the same speaker, crops of different recordings as different speakers. The model is tried as it is, and adapted to
    one half of the recordings for the other half. Nothing is kept.
    """
    import tempfile

    from pipeline.errors import ConfigError
    from pipeline.model.model_file import check_encoder, load_model
    from pipeline.model.packaged import find_packaged
    from pipeline.training.verdict import try_model

    settings = load_params(params, {"extract.draws": 2, "extract.views": VIEWS})
    found = model or find_packaged(encoder)
    if found is None:
        raise ConfigError(f"there is no packaged model for encoder {encoder!r}. Give one with --model.")
    loaded = load_model(found)
    paths = _choose_files(recordings, files)
    with tempfile.TemporaryDirectory() as folder, progress_bar("encoding", len(paths)) as advance:
        store, failed = _encode(paths, encoder, settings, Path(folder), advance)
        check_encoder(loaded, store.attributes, found, recordings)
        crops = store.read()[store.ok]
    for name, reason in failed:
        click.echo(f"  {name}: left out: {reason}", err=True)
    verdict = try_model(loaded.model, crops, loaded.timestep, settings.seed)
    _print_verdict(verdict, len(crops), encoder, model or encoder)


def _choose_files(folder: Path, count: int) -> list[Path]:
    """Return at most `count` audio files of a folder, evenly spaced among the sorted ones."""
    from pipeline.errors import CorpusError

    paths = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES and path.is_file() and not path.name.startswith(".")
    )
    if not paths:
        raise CorpusError(f"{folder}: no audio files there ({', '.join(SUFFIXES)}).")
    step = max(1.0, len(paths) / count)
    return [paths[int(index * step)] for index in range(min(count, len(paths)))]


def _encode(
    paths: list[Path], encoder: str, settings: "Params", folder: Path, advance: "Callable[..., None]"
) -> "tuple[EmbeddingStore, list[tuple[str, str]]]":
    """Encode recordings, clean and corrupted, into a store; return it, and the files that failed, with reasons."""
    import torch

    from pipeline.audio.augment.sources import SourcePool
    from pipeline.config.recipes import recipe_for
    from pipeline.data.manifest import Utterance, escape_undecodable
    from pipeline.encoders.registry import load_encoder
    from pipeline.extraction.extract import extract, store_attributes, threaded_runner
    from pipeline.extraction.shard import ExtractionJob
    from pipeline.store.embedding_store import EmbeddingStore
    from pipeline.utils.device import choose_device

    torch.set_num_threads(1)  # the workers are the threads
    options, recipe = settings.extract, recipe_for(settings, "train")
    loaded = load_encoder(encoder, settings.definition(encoder), choose_device(options.device), options.precision)
    rows = [Utterance(str(number), escape_undecodable(path.as_posix()), None) for number, path in enumerate(paths)]
    how = settings.seed, options.short_audio, options.batch, options.prefetch
    job = ExtractionJob(rows, Path(), recipe, SourcePool(_make_sources(folder)), loaded, *how)
    done = 0

    def report(progress: "ExtractionProgress") -> None:
        nonlocal done
        advance(progress.done - done)
        done = progress.done

    out, run = folder / "crops.zarr", threaded_runner(options.workers)
    summary = extract(job, out, store_attributes(job, None, None), 4, len(rows), report, run)
    return EmbeddingStore.open(out), [(path, reason) for _, path, reason in summary.failures]


def _make_sources(folder: Path) -> "dict[str, list[Source]]":
    """Write synthetic noises and simulated rooms into a folder, and return them."""
    import soundfile

    from pipeline.audio.augment.sources import Source
    from pipeline.audio.reading import SAMPLE_RATE
    from pipeline.data.demo import noise, rooms

    kinds = (noise.stationary_noise, noise.modulated_noise, noise.machine_noise)
    files = [folder / f"noise{number}.flac" for number in range(NOISES)]
    for number, path in enumerate(files):
        soundfile.write(path, kinds[number % len(kinds)](number, NOISE_SECONDS, noise.TEST), SAMPLE_RATE)
    (folder / "rooms").mkdir()
    rooms.write_rooms(folder / "rooms", ROOMS, 0, rooms.TEST_ROOMS)
    return {
        "noise": [Source(path) for path in files],
        "rooms": [Source(path) for path in sorted((folder / "rooms").iterdir())],
    }


def _print_verdict(verdict: "Verdict", count: int, encoder: str, model: Place | str) -> None:
    from rich.table import Table

    from pipeline.training.verdict import ADAPTED, AS_IS

    title = f"{count} recordings, EER in % [95 % interval]"
    table = Table("vectors", "clean", "noisy", title=title, title_justify="left")
    for name, rates in verdict.rates.items():
        table.add_row(name, *("{:.1f} [{:.1f}, {:.1f}]".format(*each) for each in (rates.clean, rates.noisy)))
    make_console().print(table)
    commands = {
        AS_IS: f"Use the model as it is: seed enhance --model {model} --store STORE --out OUT.",
        ADAPTED: f"Adapt the model: extract clean recordings (seed extract --encoder {encoder}), then"
        f" seed enhance --model {model} --adapt CLEAN_STORE --store STORE --out OUT.",
    }
    click.echo(commands.get(verdict.best, "Leave it off: the model does not clearly help on these recordings."))
    click.echo(
        f"Why: {verdict.reason}. Atypicality {verdict.atypicality:.1f} (1 is usual), strength as is"
        f" {verdict.strength:.2f}."
    )
