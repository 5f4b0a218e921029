"""`seed metrics`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stages.helpers.options import FILE, NEW, load_params, params_option
from stages.helpers.score_files import (
    NO_INTERVALS,
    bracketed,
    load_scores,
    load_speakers,
    protocol,
    scores_options,
    shown,
)

if TYPE_CHECKING:
    from pipeline.config.score import OperatingPoint

PERCENT = click.FloatRange(0, 100)


@click.command()
@click.argument("scores", type=FILE)
@scores_options
@click.option("--groups", type=FILE, help="Lines of `utterance label`, such as gender or age: figures of each group.")
@click.option(
    "--far",
    "fars",
    type=PERCENT,
    multiple=True,
    default=(1.0, 0.1),
    show_default=True,
    help="Percent of non-targets accepted at which to tell the targets rejected; repeatable.",
)
@click.option(
    "--frr",
    "frrs",
    type=PERCENT,
    multiple=True,
    default=(1.0,),
    show_default=True,
    help="Percent of targets rejected at which to tell the non-targets accepted; repeatable.",
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
    """Measure scores from elsewhere, higher meaning more alike.

    SCORES has lines of `score label`, `label enrolment test score`, or, with --trials, `enrolment test score`; or it is
    what `seed score` wrote. Labels are 1|0 or target|nontarget.
    """
    from pipeline.metrics import by_group, compare, histogram, operating, thin
    from pipeline.report import write_histogram, write_roc
    from pipeline.scoring.groups import trial_groups
    from pipeline.scoring.score_files import labels_of, read_labels, sides
    from pipeline.utils.atomic import write_json

    settings = load_params(params, {"seed": seed, "score.bootstrap": bootstrap})
    scored, points = load_scores(scores, trials), settings.score.operating_points
    target = labels_of(scored)
    who = load_speakers(scored, manifest, speakers)
    table, rocs, _ = compare(
        {"": scored.scores},
        target,
        who,
        points,
        settings.score.bootstrap,
        settings.seed,
        calibrated=[""] if calibrated else (),
    )
    figures = table[""] | operating(rocs[""], scored.scores, target, points, fars, frrs)
    if groups:
        names = trial_groups(*sides(scored, read_labels(groups), groups))
        figures["groups"] = by_group(scored.scores, target, names, points, calibrated)
    for line in _lines(figures, points, fars, frrs):
        click.echo(line)
    if who is None:
        click.echo(NO_INTERVALS)
    if out:
        files = {"trials": trials, "manifest": manifest, "speakers": speakers, "groups": groups}
        made_of = protocol({"scores": scores}, settings, calibrated, who is not None, **files)
        write_json(out / "metrics.json", {"protocol": made_of, "results": figures})
        write_roc(out / "curve.csv", thin(rocs[""]))
        write_histogram(out / "histogram.csv", histogram(scored.scores, target))
        click.echo(f"{out / 'metrics.json'}: written")


def _lines(
    figures: dict[str, Any], points: "Sequence[OperatingPoint]", fars: Sequence[float], frrs: Sequence[float]
) -> list[str]:
    """Return figures as lines of text."""
    lines = [
        f"{figures['targets']:,} target and {figures['nontargets']:,} non-target trials",
        f"EER {figures['eer']:.2f} %{bracketed(figures.get('eer_ci'), 2)} at {figures['eer_threshold']:.4f}"
        f" (convex hull: {figures['eer_rocch']:.2f} %)",
    ]
    for point in points:
        threshold = figures[f"min_dcf_{point.name}_threshold"]
        where = "accepting all" if threshold is None else f"at {threshold:.4f}"
        actual = f", actDCF {figures[f'act_dcf_{point.name}']:.3f}" if f"act_dcf_{point.name}" in figures else ""
        lines.append(f"minDCF({point.name}) {figures[f'min_dcf_{point.name}']:.3f} {where}{actual}")
    actual = f", Cllr {figures['cllr']:.3f} bits" if "cllr" in figures else ""
    lines.append(f"minCllr {figures['min_cllr']:.3f} bits{actual}")
    lines += [f"FRR {figures[f'frr_at_far_{rate:g}']:.2f} % at FAR {rate:g} %" for rate in fars]
    lines += [f"FAR {figures[f'far_at_frr_{rate:g}']:.2f} % at FRR {rate:g} %" for rate in frrs]
    for name, group in figures.get("groups", {}).items():
        counts = f"{group['targets']:,} targets, {group['nontargets']:,} non-targets"
        lines.append(f"  {name}: {'EER ' + shown(group['eer'], 2, ' %') if 'eer' in group else 'one class'}, {counts}")
    return lines
