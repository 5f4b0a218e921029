"""`seed compare`."""

from pathlib import Path
from typing import Any

import click

from stages.helpers.options import FILE, NEW, load_params, params_option
from stages.helpers.score_files import (
    NO_INTERVALS,
    format_interval,
    load_scores,
    load_speakers,
    score_protocol,
    scores_options,
)


@click.command()
@click.argument("first", type=FILE)
@click.argument("second", type=FILE)
@scores_options
@click.option("--out", type=NEW, help="Folder for metrics.json.")
@params_option
def compare(
    first: Path,
    second: Path,
    trials: Path | None,
    manifest: Path | None,
    speakers: Path | None,
    bootstrap: int | None,
    seed: int | None,
    calibrated: bool,
    out: Path | None,
    params: Path | None,
) -> None:
    """Compare two systems on the same trials: is SECOND better than FIRST?

    Score files are as for `seed metrics`. Differences are SECOND minus FIRST. Both systems are measured on the same
    bootstrap resamples, so trials that are hard for both do not widen the interval.
    """
    from pipeline import metrics
    from pipeline.scoring.score_files import check_same_trials, require_labels
    from pipeline.utils.atomic import write_json

    settings = load_params(params, {"seed": seed, "score.bootstrap": bootstrap})
    one, other = load_scores(first, trials), load_scores(second, trials)
    if trials is None:
        check_same_trials(one, other)
    speaker_numbers = load_speakers(one, manifest, speakers)
    table, _, _ = metrics.compare(
        {"first": one.scores, "second": other.scores},
        require_labels(one),
        speaker_numbers,
        settings.score.operating_points,
        settings.score.bootstrap,
        settings.seed,
        costs=True,
        calibrated=("first", "second") if calibrated else (),
    )
    click.echo(f"{table['first']['targets']:,} target and {table['first']['nontargets']:,} non-target trials")
    click.echo(_format_difference("EER, %", "eer", table, 2))
    for point in settings.score.operating_points:
        click.echo(_format_difference(f"minDCF({point.name})", f"min_dcf_{point.name}", table, 3))
    if speaker_numbers is None:
        click.echo(NO_INTERVALS)
    if out:
        files = {"trials": trials, "manifest": manifest, "speakers": speakers}
        compared = {"first": first, "second": second}
        protocol = score_protocol(compared, settings, calibrated, speaker_numbers is not None, **files)
        write_json(out / "metrics.json", {"protocol": protocol, "results": table})
        click.echo(f"{out / 'metrics.json'}: written")


def _format_difference(title: str, key: str, table: dict[str, dict[str, Any]], digits: int) -> str:
    """Return both values of a figure, and their difference, as text."""
    one, other = (f"{row[key]:.{digits}f}{format_interval(row.get(f'{key}_ci'), digits)}" for row in table.values())
    second = table["second"]
    change = f"{second[f'{key}_difference']:+z.{digits}f}{format_interval(second.get(f'{key}_difference_ci'), digits)}"
    p = second.get("p_value" if key == "eer" else f"{key}_p_value")
    return f"{title}: {one} -> {other}, difference {change}" + ("" if p is None else f", p = {p:.3f}")
