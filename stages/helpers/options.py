"""Options, parameters and progress bars that several commands share."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.model.packaged import SHA256, find_packaged
from pipeline.utils.inputs import take_input
from pipeline.utils.paths import Place, is_url, to_place

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, ProgressColumn

    from pipeline.config.params import Params
    from pipeline.config.train import Enhance


class PlaceType(click.Path):
    """A path or, if `remote`, a URL such as s3://…. Only local paths are checked for existence."""

    def __init__(self, remote: bool = False, **options: Any) -> None:
        super().__init__(path_type=Path, **options)
        self.remote = remote

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return a `pipeline.utils.paths.Place`."""
        if not isinstance(value, str) or not is_url(value):
            return super().convert(value, param, ctx)
        if not self.remote:
            self.fail(f"{value} is a URL. Give a local path.", param, ctx)
        return to_place(value)


class InputType(PlaceType):
    """A file or a pipe, which is read once."""

    def __init__(self, remote: bool = False, exists: bool = True) -> None:
        super().__init__(remote, exists=exists, dir_okay=False)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return a `pipeline.utils.paths.Place`, see `pipeline.utils.inputs.take_input`."""
        place = super().convert(value, param, ctx)
        completing = ctx and ctx.resilient_parsing
        return take_input(place) if isinstance(place, Path) and place.exists() and not completing else place


class ModelType(InputType):
    """A model file, or the name of a packaged model."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return a `pipeline.utils.paths.Place`."""
        packaged = find_packaged(value) if isinstance(value, str) else None
        return packaged or super().convert(value, param, ctx)


FILE = InputType()
FOLDER = PlaceType(exists=True, file_okay=False)
NEW = PlaceType()
MODEL = ModelType(remote=True)
STORE = PlaceType(remote=True, exists=True, file_okay=False)
OUTPUT = PlaceType(remote=True)

MODEL_HELP = f"Model (….safetensors), or the name of a packaged one: {', '.join(SHA256)}."
"""The help text of `--model`."""
DEVICE = "Device to compute on: auto, cpu, cuda, cuda:<index> or mps."
"""The help text of `--device`."""

corpora_option = click.option(
    "--corpora", type=InputType(exists=False), default="data/corpora.yaml", help="Corpus definitions."
)
root_option = click.option(
    "--data-root",
    help="Folder of the recorded corpora.  [default: data_root of the parameter file, $SEED_DATA or data/corpora]",
)
paths_option = click.option("--root", type=FOLDER, default=".", help="Folder that the paths in lists are relative to.")
encoders_option = click.option(
    "--encoder",
    "encoders",
    multiple=True,
    help="Encoder to include; repeatable.  [default: those of the parameter file]",
)
timestep_option = click.option(
    "--timestep",
    type=click.IntRange(min=0),
    help="Diffusion timestep to step back from.  [default: enhance.timestep of the parameter file, or the model's]",
)
params_option = click.option(
    "--params",
    type=FILE,
    help="Parameter file.  [default: params.yaml in the working folder if it exists, otherwise the built-in defaults]",
)


def load_params(file: Path | None, changes: dict[str, Any] | None = None) -> "Params":
    """Read a parameter file, by default params.yaml if it exists. Dotted `changes` that are not None override it."""
    from pipeline.config.params import Params
    from pipeline.utils.validation import load_yaml, validated

    default = Path("params.yaml")
    path = file or (default if default.is_file() else None)
    content = load_yaml(path) if path else {}
    for key, value in (changes or {}).items():
        if value is not None:
            *sections, last = key.split(".")
            block = content
            for section in sections:
                block = block.setdefault(section, {})
                if not isinstance(block, dict):
                    break  # the validation below reports it
            else:
                block[last] = value
    return validated(Params, content, str(path or "options"))


def enhance_settings(model: Place, settings: "Params", timestep: int | None, strength: float | None) -> "Enhance":
    """Return the enhancement settings for a model: options first, then the parameter file, then the model's timestep.

    A timestep of the parameter file that differs from the model's is used, with a warning. The options are checked
    against the given model, not against the model that the parameter file would train.
    """
    from pipeline.config.train import Enhance
    from pipeline.model.model_file import load_model
    from pipeline.utils.validation import validated

    enhance = settings.enhance
    own = load_model(model).timestep if timestep is None else timestep
    if timestep is None and "timestep" in enhance.model_fields_set and enhance.timestep != own:
        click.echo(
            f"  {model}: was trained to enhance from timestep {own}, but timestep {enhance.timestep} of the parameter"
            " file is used. Choose one with --timestep.",
            err=True,
        )
        own = enhance.timestep
    options = {"timestep": own} | ({} if strength is None else {"strength": strength})
    return validated(Enhance, enhance.model_dump() | options, "options")


def make_console(log_width: int = 120) -> "Console":
    """Return a console for tables on stdout, with a fixed width if that is not a terminal."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=log_width)


def make_bar(*columns: "ProgressColumn") -> "Progress":
    """Return a progress bar with some more columns, which is shown on stderr and disabled if that is not a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    first = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*first, *columns, console=console, disable=not console.is_terminal)


@contextmanager
def progress_bar(label: str, total: int | None) -> Iterator[Callable[..., None]]:
    """Show a progress bar. Yield a function that advances and relabels it."""
    from rich.progress import TimeRemainingColumn

    with make_bar(TimeRemainingColumn()) as bar:
        task = bar.add_task(label, total=total)

        def advance(steps: int, label: str | None = None) -> None:
            bar.update(task, advance=steps, description=label)

        yield advance
