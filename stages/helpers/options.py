"""What the commands share: reading parameters, and showing progress."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from pipeline.config.params import Params
    from pipeline.config.train import Enhance
    from pipeline.utils.paths import Place


class PlaceType(click.Path):
    """A path or, where `remote`, a URL such as s3://…; whether something is there is asked of local paths only."""

    def __init__(self, remote: bool = False, **options: Any) -> None:
        super().__init__(path_type=Path, **options)
        self.remote = remote

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return a `pipeline.utils.paths.Place`."""
        from pipeline.utils.paths import is_url, to_place

        if not isinstance(value, str) or not is_url(value):
            return super().convert(value, param, ctx)
        if not self.remote:
            self.fail(f"{value} is a URL; only local paths will do here.", param, ctx)
        return to_place(value)


FILE = PlaceType(exists=True, dir_okay=False)
FOLDER = PlaceType(exists=True, file_okay=False)
NEW = PlaceType()
MODEL = PlaceType(remote=True, exists=True, dir_okay=False)
STORE = PlaceType(remote=True, exists=True, file_okay=False)
OUTPUT = PlaceType(remote=True)

params_option = click.option(
    "--params",
    type=FILE,
    help="Parameter file.  [default: params.yaml in the working folder; without one, the built-in defaults]",
)


def load_params(given: Path | None, changes: dict[str, Any] | None = None) -> "Params":
    """Read the parameter file given, else params.yaml if there is one; dotted `changes` that are not None win."""
    from pipeline.config.params import Params
    from pipeline.utils.validation import load_yaml, validated

    here = Path("params.yaml")
    path = given or (here if here.is_file() else None)
    content = load_yaml(path) if path else {}
    for key, value in (changes or {}).items():
        if value is not None:
            *sections, last = key.split(".")
            place = content
            for section in sections:
                place = place.setdefault(section, {})
                if not isinstance(place, dict):
                    break  # validation says what is wrong with it
            else:
                place[last] = value
    return validated(Params, content, str(path or "options"))


def enhance_settings(model: "Place", settings: "Params", timestep: int | None, strength: float | None) -> "Enhance":
    """Return how a model is to enhance: by options, else by the parameter file, else from the timestep of its own file.

    Where the parameter file gives another timestep than the model's, that is used and said. Options are of the model at
    hand, whatever the parameter file would train: they are checked against the model.
    """
    from pipeline.config.train import Enhance
    from pipeline.model.model_file import load_model
    from pipeline.utils.validation import validated

    way = settings.enhance
    own = load_model(model).timestep if timestep is None else timestep
    if timestep is None and "timestep" in way.model_fields_set and way.timestep != own:
        click.echo(
            f"  {model}: was trained to enhance from timestep {own}; the parameter file says {way.timestep}, and"
            " that is used. Give --timestep to say which.",
            err=True,
        )
        own = way.timestep
    given = {"timestep": own} | ({} if strength is None else {"strength": strength})
    return validated(Enhance, way.model_dump() | given, "options")


@contextmanager
def progress_bar(label: str, total: int | None) -> Iterator[Callable[..., None]]:
    """Show how far a piece of work is, on stderr; yields a function that is told of advances and labels."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(label, total=total)

        def advance(steps: int, label: str | None = None) -> None:
            bar.update(task, advance=steps, description=label)

        yield advance
