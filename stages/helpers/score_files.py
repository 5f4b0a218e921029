"""Options and functions that `seed metrics` and `seed compare` share: read scores and speakers from files."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stages.helpers.options import FILE

if TYPE_CHECKING:
    from pipeline.config.params import Params
    from pipeline.metrics import Speakers
    from pipeline.scoring.score_files import ScoredTrials

_OPTIONS = (
    click.option("--trials", type=FILE, help="Trial list of `1|0 enrolment test`: labels, and the pairs to measure."),
    click.option("--manifest", type=FILE, help="Manifest with the speakers to bootstrap over."),
    click.option("--speakers", type=FILE, help="In place of --manifest: file of `utterance speaker` lines."),
    click.option(
        "--bootstrap",
        type=click.IntRange(min=0),
        help="Number of bootstrap resamples of the speakers.  [default: 1000]",
    ),
    click.option("--seed", type=click.IntRange(min=0), help="Seed of the bootstrap.  [default: 0]"),
    click.option(
        "--calibrated", is_flag=True, help="Scores are natural log-likelihood ratios: also measure Cllr and actDCF."
    ),
)

NO_INTERVALS = "No intervals: the bootstrap needs speakers. Give --manifest or --speakers."


def scores_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that both commands share."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def load_scores(path: Path, trials: Path | None) -> "ScoredTrials":
    """Read a score file, restricted to the trials of a list if there is one."""
    from pipeline.scoring.score_files import read_scores, select_trials

    scored = read_scores(path)
    if scored.warning:
        click.echo(f"  {scored.warning}", err=True)
    return select_trials(scored, trials) if trials else scored


def load_speakers(scored: "ScoredTrials", manifest: Path | None, speakers: Path | None) -> "Speakers | None":
    """Return the speaker numbers of both sides, or None if no file gives them."""
    from pipeline.data.manifest import read_manifest
    from pipeline.scoring.score_files import label_sides, read_labels

    if manifest and speakers:
        raise click.UsageError("give --manifest or --speakers, not both")
    if manifest:
        return label_sides(scored, {row.utterance: row.speaker for row in read_manifest(manifest)}, manifest)[1]
    return label_sides(scored, read_labels(speakers), speakers)[1] if speakers else None


def score_protocol(
    scores: dict[str, Path], settings: "Params", calibrated: bool, bootstrapped: bool, **files: Path | None
) -> dict[str, Any]:
    """Return the protocol for metrics.json: score files, other files by their role, and settings."""
    from pipeline.scoring.provenance import describe_file, describe_protocol

    described = {name: describe_file(path) for name, path in files.items() if path}
    points = [point.model_dump() for point in settings.score.operating_points]
    bootstrap = {"bootstrap": settings.score.bootstrap, "seed": settings.seed} if bootstrapped else {}
    return describe_protocol(
        {},
        scores={name: describe_file(path) for name, path in scores.items()},
        **described,
        **bootstrap,
        calibrated=calibrated,
        operating_points=points,
    )


def format_figure(value: object, digits: int, unit: str = "") -> str:
    """Return a figure as text, or `-` if there is none."""
    return f"{value:z.{digits}f}{unit}" if isinstance(value, float) else "-"


def format_interval(interval: list[float] | None, digits: int) -> str:
    """Return an interval as text to follow its figure, or nothing if there is none."""
    return f" [{interval[0]:z.{digits}f}, {interval[1]:z.{digits}f}]" if interval else ""
