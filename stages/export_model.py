"""`seed export-model`."""

from pathlib import Path

import click

from pipeline.utils.paths import Place
from stages.helpers.options import MODEL, OUTPUT, enhance_settings, load_params, params_option, timestep_option


@click.command("export-model")
@click.argument("model", type=MODEL)
@click.option("--out", type=OUTPUT, required=True, help="File to write (….onnx or ….pt).")
@click.option(
    "--format", "form", type=click.Choice(["onnx", "torchscript"]), help="Format of the file.  [default: by the suffix]"
)
@click.option(
    "--strength",
    type=click.FloatRange(0, 1),
    help="Interpolation weight from raw (0) to enhanced (1) embeddings. Give the strength that `seed enhance` printed"
    " for your speech, if it is lower than the model's.  [default: the model's]",
)
@timestep_option
@params_option
def export_model(
    model: Place, out: Place, form: str | None, strength: float | None, timestep: int | None, params: Path | None
) -> None:
    """Export a trained model as a file that runs without this program.

    The file takes raw vectors and returns enhanced vectors. Vectors are float32 [batch, D] with any batch size. The
    settings are those of `enhance` in the parameter file, by default one noise-free reverse step. ONNX files have opset
    18, and writing them needs the extra onnx. TorchScript files are loaded with torch.jit.load. The file is compared
    with torch before it appears.
    """
    from pipeline.model.diffusion.sampler import Sampling
    from pipeline.model.export import export_model as run

    enhance = enhance_settings(model, load_params(params), timestep, strength)
    metadata = run(model, out, form, Sampling(**enhance.sampling()))
    click.echo(
        f"{out}: {metadata['dim']} numbers in and out, strength {float(metadata['strength']):.2f}, timestep"
        f" {metadata['timestep']}"
    )
