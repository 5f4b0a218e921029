"""Score one trial list of `seed score` between two stores."""

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.utils.paths import Place
from stages.helpers.options import progress_bar
from stages.helpers.trial_lists import NamedList, warn_about_list

if TYPE_CHECKING:
    from pipeline.config.score import Score


def score_list(
    enrol: Place, test: Place, trials: NamedList, enrolment: Path | None, folder: Place, settings: "Score"
) -> None:
    """Score a list, and write scores and figures to a folder; see `seed score`."""
    from pipeline.data.trials.left_out import FILE as LEFT_OUT
    from pipeline.data.trials.left_out import describe_failed, failed_as_json, find_left_out
    from pipeline.data.trials.streaming import spool_trials
    from pipeline.metrics import figures, thin
    from pipeline.report import write_det
    from pipeline.scoring.condition_stores import check_comparable, describe_adaptations
    from pipeline.scoring.enrolment import read_models
    from pipeline.scoring.provenance import describe_file, describe_list, describe_protocol
    from pipeline.scoring.score_writer import FILES, score_to_file
    from pipeline.scoring.scorer import scorer_of
    from pipeline.store.embedding_store import EmbeddingStore
    from pipeline.utils.atomic import replacing, write_json, write_text
    from pipeline.utils.paths import exists, remove_file

    left, right = EmbeddingStore.open(enrol), EmbeddingStore.open(test)
    check_comparable(left, right)
    if note := describe_adaptations({str(enrol): left, str(test): right}):
        click.echo(f"  {note}", err=True)
    models = read_models(enrolment, left.utterances) if enrolment else None
    names = models.names if models else left.utterances, right.utterances
    where = "among the enrolment models or in the store" if models else "in the store"
    out = folder / FILES[settings.format]
    with ExitStack() as stack:
        with progress_bar("reading trials", None) as advance:
            spool = stack.enter_context(spool_trials(trials.path, *names, where, advance))
        warn_about_list(spool, trials)
        scorer, counts = scorer_of(left, right, models, comparison=settings.comparison), spool.counts
        left_out = find_left_out(spool.blocks(), (scorer.enrolled, scorer.tested), names)
        left_out.check(str(trials.path), counts.trials, counts.targets, trials.max_left_out(settings))
        lost = models.find_failed(left) if models else ()
        if left_out.trials:
            click.echo(f"  {left_out.describe(counts.trials)}", err=True)
        if lost:
            click.echo(f"  {enrolment}: {describe_failed(lost)}; models are made without them", err=True)
        failed = tuple(dict.fromkeys([*left_out.utterances, *lost]))
        protocol = describe_protocol(
            {"enrol": left, "test": right},
            trials=describe_list(trials.path, spool.format, counts, left_out),
            left_out=failed_as_json(failed) if failed else None,
            enrolment=describe_file(enrolment) if enrolment else None,
            comparison=settings.comparison,
            operating_points=[point.model_dump() for point in settings.operating_points],
        )
        with replacing(out) as temporary:
            with progress_bar("scoring", spool.counts.trials) as advance:
                scores, target, count = score_to_file(spool, scorer, names, settings.format, temporary, advance)
            for name in sorted({*FILES.values(), "metrics.json", "det.csv", LEFT_OUT}):
                if exists(folder / name):  # it is from an earlier run
                    remove_file(folder / name)
    if failed:
        write_text(folder / LEFT_OUT, "".join(f"{name}\n" for name in failed))
    if target is None:
        click.echo(f"{out}: {count:,} scores")
        click.echo("  the list has no labels, so there are no error rates", err=True)
        return
    points = settings.operating_points
    metrics, roc = figures(scores, target, points)
    write_json(folder / "metrics.json", {"protocol": protocol, "results": metrics})
    write_det(folder / "det.csv", {(test.stem, enrol.stem): thin(roc)})
    cost = f"minDCF({points[0].name}) {metrics[f'min_dcf_{points[0].name}']:.3f}"
    click.echo(f"EER {metrics['eer']:.2f} %, {cost}, {count:,} trials")
    click.echo(f"{folder / 'metrics.json'}: written")
