"""`seed metrics`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stages.helpers.options import FILE, NEW, load_params, params_option
from stages.helpers.score_files import (
    NO_INTERVALS,
    format_figure,
    format_interval,
    load_scores,
    load_speakers,
    score_protocol,
    scores_options,
)

if TYPE_CHECKING:
    from pipeline.config.score import OperatingPoint

PERCENT = click.FloatRange(0, 100)


@click.command()
@click.argument("scores", type=FILE)
@scores_options
@click.option(
    "--groups", type=FILE, help="File of `utterance label` lines, such as gender or age, to measure each group."
)
@click.option(
    "--far",
    "fars",
    type=PERCENT,
    multiple=True,
    default=(1.0, 0.1),
    help="False-alarm rate at which to report the miss rate, in %; repeatable.",
)
@click.option(
    "--frr",
    "frrs",
    type=PERCENT,
    multiple=True,
    default=(1.0,),
    help="Miss rate at which to report the false-alarm rate, in %; repeatable.",
)
@click.option("--out", type=NEW, help="Folder for metrics.json, curve.csv (ROC and DET) and histogram.csv.")
@params_option
def metrics(
    scores: Path,
    trials: Path | None,
    manifest: Path | None,
    speakers: Path | None,
    bootstrap: int | None,
    seed: int | None,
    calibrated: bool,
    groups: Path | None,
    fars: tuple[float, ...],
    frrs: tuple[float, ...],
    out: Path | None,
    params: Path | None,
) -> None:
    """Measure the error rates of a score file, in which higher scores mean more alike.

    The lines of SCORES are `score label`, `label enrolment test score` or, with --trials, `enrolment test score`; the
    score files of `seed score` work, too. Labels are 1|0 or target|nontarget.
    """
    from pipeline.metrics import by_group, compare, histogram, operating, thin
    from pipeline.report import write_histogram, write_roc
    from pipeline.scoring.groups import group_trials
    from pipeline.scoring.score_files import label_sides, read_labels, require_labels
    from pipeline.utils.atomic import write_json

    settings = load_params(params, {"seed": seed, "score.bootstrap": bootstrap})
    scored, points = load_scores(scores, trials), settings.score.operating_points
    target = require_labels(scored)
    speaker_numbers = load_speakers(scored, manifest, speakers)
    table, rocs, _ = compare(
        {"": scored.scores},
        target,
        speaker_numbers,
        points,
        settings.score.bootstrap,
        settings.seed,
        calibrated=[""] if calibrated else (),
    )
    figures = table[""] | operating(rocs[""], scored.scores, target, points, fars, frrs)
    if groups:
        names = group_trials(*label_sides(scored, read_labels(groups), groups))
        figures["groups"] = by_group(scored.scores, target, names, points, calibrated)
    for line in _format_figures(figures, points, fars, frrs):
        click.echo(line)
    if speaker_numbers is None:
        click.echo(NO_INTERVALS)
    if out:
        files = {"trials": trials, "manifest": manifest, "speakers": speakers, "groups": groups}
        bootstrapped = speaker_numbers is not None
        protocol = score_protocol({"scores": scores}, settings, calibrated, bootstrapped, **files)
        write_json(out / "metrics.json", {"protocol": protocol, "results": figures})
        write_roc(out / "curve.csv", thin(rocs[""]))
        write_histogram(out / "histogram.csv", histogram(scored.scores, target))
        click.echo(f"{out / 'metrics.json'}: written")


def _format_figures(
    figures: dict[str, Any], points: "Sequence[OperatingPoint]", fars: Sequence[float], frrs: Sequence[float]
) -> list[str]:
    """Return the figures as lines of text."""
    lines = [
        f"{figures['targets']:,} target and {figures['nontargets']:,} non-target trials",
        f"EER {figures['eer']:.2f} %{format_interval(figures.get('eer_ci'), 2)} at {figures['eer_threshold']:z.4f}"
        f" (convex hull: {figures['eer_rocch']:.2f} %)",
    ]
    for point in points:
        threshold = figures[f"min_dcf_{point.name}_threshold"]
        where = "accepting all" if threshold is None else f"at {threshold:z.4f}"
        actual = f", actDCF {figures[f'act_dcf_{point.name}']:.3f}" if f"act_dcf_{point.name}" in figures else ""
        lines.append(f"minDCF({point.name}) {figures[f'min_dcf_{point.name}']:.3f} {where}{actual}")
    actual = f", Cllr {figures['cllr']:.3f} bits" if "cllr" in figures else ""
    lines.append(f"minCllr {figures['min_cllr']:.3f} bits{actual}")
    lines += [f"FRR {figures[f'frr_at_far_{rate:g}']:.2f} % at FAR {rate:g} %" for rate in fars]
    lines += [f"FAR {figures[f'far_at_frr_{rate:g}']:.2f} % at FRR {rate:g} %" for rate in frrs]
    for name, group in figures.get("groups", {}).items():
        counts = f"{group['targets']:,} targets, {group['nontargets']:,} non-targets"
        lines.append(
            f"  {name}: {'EER ' + format_figure(group['eer'], 2, ' %') if 'eer' in group else 'one class'}, {counts}"
        )
    return lines
