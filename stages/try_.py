"""`seed try`."""

from pathlib import Path

import click

from pipeline.utils.paths import Place
from stages.helpers.options import FOLDER, MODEL, MODEL_HELP, params_option
from stages.helpers.recordings import Sounds, encode_folder, noise_option, rooms_option
from stages.helpers.verdicts import print_rates, print_reason

FILES = 40


@click.command(name="try")
@click.argument("recordings", type=FOLDER)
@click.option("--encoder", required=True, help="Encoder: a name in the parameter file, or a family.")
@click.option("--model", type=MODEL, help=f"{MODEL_HELP}  [default: the packaged model of this encoder's name]")
@click.option(
    "--files", type=click.IntRange(min=20), default=FILES, help="Maximum number of recordings, evenly spaced by name."
)
@noise_option
@rooms_option
@params_option
def try_(
    recordings: Path,
    encoder: str,
    model: Place | None,
    files: int,
    noise: Path | None,
    rooms: Path | None,
    params: Path | None,
) -> None:
    """Try a model on a folder of recordings, without labels, and print a verdict.

    RECORDINGS holds 20 audio files or more, at any depth, of more than two seconds each and of many speakers. Crops of
    each are encoded clean, in noise at 0-15 dB, and in rooms. Crops of one recording count as the same speaker, crops
    of different recordings as different speakers. The model is tried as it is, and adapted to one half of the
    recordings for the other half. Nothing is kept.
    """
    import shlex

    from pipeline.model.model_file import load_model
    from pipeline.model.packaged import require_packaged
    from pipeline.training.verdict import ADAPTED, AS_IS, try_model

    found = model or require_packaged(encoder)
    loaded = load_model(found)
    crops, seed = encode_folder(recordings, files, encoder, loaded, found, Sounds(noise, rooms), params)
    verdict = try_model(loaded.model, crops, loaded.timestep, seed)
    print_rates(verdict, len(crops))
    name = model or encoder
    adapt = ["seed", "adapt", str(recordings), "--encoder", encoder, "--model", str(name)]
    for option, given in (("--noise", noise), ("--rooms", rooms), ("--params", params)):
        adapt += [option, str(given)] if given else []
    adapt += ["--out", "adapted.safetensors"]
    commands = {
        AS_IS: f"Use the model as it is: seed enhance --model {name} --store STORE --out OUT.",
        ADAPTED: f"Adapt the model: {shlex.join(adapt)}, then seed enhance --model adapted.safetensors --store STORE"
        " --out OUT.",
    }
    click.echo(commands.get(verdict.best, "Leave it off: the model does not clearly help on these recordings."))
    print_reason(verdict)
