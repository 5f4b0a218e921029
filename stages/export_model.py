"""`seed export-model`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from stages.helpers.options import MODEL, OUTPUT, enhance_settings, load_params, params_option

if TYPE_CHECKING:
    from pipeline.utils.paths import Place


@click.command("export-model")
@click.argument("model", type=MODEL)
@click.option("--out", type=OUTPUT, required=True, help="File to write, ….onnx or ….pt.")
@click.option("--format", "form", type=click.Choice(["onnx", "torchscript"]), help="[default: by the suffix]")
@click.option(
    "--strength",
    type=click.FloatRange(0, 1),
    help="Share of the way from raw (0) to enhanced (1) embeddings.  [default: as training found it; what `seed"
    " enhance` said of your speech, if that is less, should be given]",
)
@click.option(
    "--timestep",
    type=click.IntRange(min=0),
    help="Diffusion timestep to step back from.  [default: the model's, unless the parameter file says else]",
)
@params_option
def export_model(
    model: "Place", out: "Place", form: str | None, strength: float | None, timestep: int | None, params: Path | None
) -> None:
    """Write a trained model as a file that needs nothing of this program: raw vectors in, enhanced ones out.

    Float32 [batch, D] of any batch, by one noise-free reverse step unless `enhance` of the parameters says else. ONNX
    files have opset 18 and need the extra onnx to be written; TorchScript files are loaded by torch.jit.load. The file
    is compared with torch before it appears.
    """
    from pipeline.model.diffusion.sampler import Sampling
    from pipeline.model.export import export_model as run

    way = enhance_settings(model, load_params(params), timestep, strength)
    said = run(model, out, form, Sampling(**way.model_dump()))
    click.echo(
        f"{out}: {said['dim']} numbers in and out, strength {float(said['strength']):.2f}, timestep {said['timestep']}"
    )
