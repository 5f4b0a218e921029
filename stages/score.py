"""`seed score`."""

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.utils.paths import Place, to_place
from stages.helpers.options import (
    FILE,
    FOLDER,
    MODEL,
    OUTPUT,
    STORE,
    corpora_option,
    load_params,
    params_option,
    progress_bar,
    root_option,
)
from stages.helpers.trial_lists import NamedList, find_trial_list, warn_about_list

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.config.params import Params
    from pipeline.config.score import Score
    from pipeline.data.utterances import Utterances
    from pipeline.scoring.evaluation import Outcome
    from pipeline.store.embedding_store import EmbeddingStore

CLEAN = "clean"
"""The condition of enrolment."""


@click.command()
@click.option(
    "--system",
    "systems",
    multiple=True,
    metavar="NAME=FOLDER",
    help="System to measure: its name, and the folder of its <condition>.zarr; repeatable.",
)
@click.option("--manifest", type=FILE, help="With --system: manifest with the speakers.")
@click.option(
    "--lists",
    type=FOLDER,
    help="With --system: folder of trial list files, scored in place of all pairs if there are any.",
)
@click.option(
    "--model",
    "models",
    type=MODEL,
    multiple=True,
    help="With --system: model of the enhanced stores, for the cohorts and ensembles of score.systems; repeatable.",
)
@click.option(
    "--cohort",
    type=STORE,
    help="With --system: store of raw training embeddings, for the score.systems that need a cohort.",
)
@click.option("--cohort-manifest", type=FILE, help="Manifest with the speakers of --cohort.")
@click.option("--enrol", type=STORE, help="Without --system: store with the enrolment side.")
@click.option("--test", type=STORE, help="Without --system: store with the test side.")
@click.option(
    "--trials", metavar="LIST", help="Without --system: trial list, a file or a name in --corpora (`seed corpus list`)."
)
@click.option(
    "--enrolment",
    type=FILE,
    help="Without --system: file of `model utterance1 utterance2 …` lines, if the list enrols models.",
)
@corpora_option
@root_option
@click.option(
    "--out",
    type=OUTPUT,
    required=True,
    help="Folder for metrics.json, the CSV data of the plots, and the scores of a trial list.",
)
@click.option(
    "--bootstrap",
    type=click.IntRange(min=0),
    help="Number of speaker resamples for the 95 % intervals.  [default: 1000]",
)
@click.option(
    "--comparison",
    type=click.Choice(["cosine", "pairwise"]),
    help="Comparison of two sides: cosine of the mean crops, or minus the mean distance of all pairs of crops."
    "  [default: cosine]",
)
@click.option(
    "--format",
    type=click.Choice(["csv", "kaldi", "txt"]),
    help="Format of a trial list's scores: csv, kaldi (`enrolment test score`) or txt (`label enrolment test score`)."
    "  [default: csv]",
)
@click.option(
    "--max-trials", type=click.IntRange(min=2), help="Maximum number of trials from all pairs.  [default: 1000000]"
)
@click.option("--seed", type=click.IntRange(min=0), help="Seed of trial sampling and of the bootstrap.  [default: 0]")
@params_option
def score(
    systems: tuple[str, ...],
    manifest: Path | None,
    lists: Path | None,
    models: tuple[Place, ...],
    cohort: Place | None,
    cohort_manifest: Path | None,
    enrol: Place | None,
    test: Place | None,
    trials: str | None,
    enrolment: Path | None,
    corpora: Path,
    data_root: str | None,
    out: Place,
    seed: int | None,
    params: Path | None,
    **changes: Any,
) -> None:
    """Score trials, and measure EER (%), minDCF and minCllr (bits).

    With --system, score all pairs of clean enrolment and test utterances in each condition of the parameter file, or
    the trials of each list in --lists. The other systems, and the score.systems of the parameter file, are compared
    with the first by a paired bootstrap over speakers.

    Without --system, score one trial list between two stores. Its lines are `1|0 enrolment test` or
    `enrolment test target|nontarget`, or it is a table with a header such as `modelid,segmentid,targettype`. Pairs
    without labels are scored but not measured.
    """
    sides = (enrol, test, trials)
    if systems and (manifest is None or enrolment or any(sides)):
        raise click.UsageError("--system needs --manifest, and excludes --enrol, --test, --trials and --enrolment")
    if not systems and (lists or models or cohort or cohort_manifest or not all(sides)):
        raise click.UsageError("give --system and --manifest, or --enrol, --test and --trials")
    score_changes = {f"score.{key}": value for key, value in changes.items()}
    settings = load_params(params, {"seed": seed, "data_root": data_root} | score_changes)
    if enrol and test and trials:
        named = find_trial_list(trials, corpora, settings.data_root)
        _score_list(enrol, test, named, enrolment, out, settings.score)
    elif manifest:
        folders = {name: to_place(folder) for name, folder in _parse_systems(systems).items()}
        _score_systems(folders, manifest, lists, models, cohort, cohort_manifest, settings, out)


def _score_systems(
    systems: dict[str, Place],
    manifest: Path,
    lists_folder: Path | None,
    models: "Sequence[Place]",
    cohort: Place | None,
    cohort_manifest: Path | None,
    settings: "Params",
    out: Place,
) -> None:
    from pipeline.data.manifest import read_manifest
    from pipeline.data.trials.lists import find_lists, keep_usable, read_lists
    from pipeline.data.utterances import select_utterances
    from pipeline.scoring.cohort import read_cohort
    from pipeline.scoring.condition_stores import describe_adaptations, open_condition_stores
    from pipeline.scoring.evaluation import evaluate, pair_utterances, usable_mask
    from pipeline.scoring.provenance import describe_list, describe_protocol
    from pipeline.store.embedding_store import EmbeddingStore

    conditions, score = settings.conditions, settings.score
    made_by = models if any(system.needs_models for system in score.systems.values()) else ()
    sources = open_condition_stores(systems, list(dict.fromkeys([CLEAN, *conditions])), made_by)
    stores = {(which, name): store for name, source in sources.items() for which, store in source.stores.items()}
    utterances = select_utterances(next(iter(sources.values())).ids, read_manifest(manifest), manifest)
    needed = any(system.needs_cohort for system in score.systems.values())  # a training set may be large
    background = EmbeddingStore.open(cohort) if cohort and needed else None
    rows = read_manifest(cohort_manifest) if cohort_manifest and needed else []
    known, corpora = ({row.utterance: getattr(row, name) for row in rows} for name in ("speaker", "corpus"))
    others = read_cohort(background, known, corpora) if background else None
    files = find_lists(lists_folder) if lists_folder else {}
    found, whole = read_lists(files, utterances.ids), usable_mask(sources)
    for name, listed in found.items():
        warn_about_list(listed, NamedList(name, files[name]))
    trials = {name: keep_usable(name, listed.trials, whole) for name, listed in found.items()}
    if not trials:
        trials = {"": pair_utterances(utterances, whole, score.max_trials, settings.seed, manifest)}
    with progress_bar("scoring", len(trials) * len(conditions)) as advance:
        outcome = evaluate(
            sources, trials, conditions, CLEAN, utterances, score, settings.seed, others, lambda: advance(1)
        )
    adapted = [note for source in sources.values() if (note := describe_adaptations(source.stores))]
    for warning in (*outcome.warnings, *adapted):
        click.echo(f"  {warning}", err=True)
    used = {f"{name}/{which}": store for (which, name), store in stores.items()}
    protocol = describe_protocol(
        used | ({"cohort": background} if background else {}),
        lists=[describe_list(files[name], listed.format, listed.counts) for name, listed in found.items()] or None,
        conditions=conditions,
        enrolment=CLEAN,
        score=score.model_dump(mode="json"),
        seed=settings.seed,
        warnings=outcome.warnings or None,
    )
    _write_outcome(out, outcome, protocol, stores, utterances, settings)
    click.echo(f"{out / 'metrics.json'}: written")


def _write_outcome(
    out: Place,
    outcome: "Outcome",
    protocol: "dict[str, Any]",
    stores: "dict[tuple[str, str], EmbeddingStore]",
    utterances: "Utterances",
    settings: "Params",
) -> None:
    from pipeline.report import write_det, write_groups, write_histograms
    from pipeline.scoring import distances, embedding_map
    from pipeline.utils.atomic import write_json, write_table

    content = {"protocol": protocol, "results": outcome.table}
    more = {"mean_noisy": outcome.mean_noisy, "both_noisy": outcome.both_noisy}
    more["mean_both_noisy"] = outcome.mean_both_noisy
    write_json(out / "metrics.json", content | {name: table for name, table in more.items() if table})
    write_det(out / "det.csv", outcome.rocs)
    write_histograms(out / "histogram.csv", outcome.histograms)
    write_groups(out / "groups.csv", outcome.groups, settings.score.operating_points)
    speakers = dict(zip(utterances.ids, utterances.speakers, strict=True))
    measured = distances.measure_distances(stores, CLEAN, speakers, settings.seed)
    write_table(out / "distances.csv", distances.COLUMNS, distances.format_distances(measured))
    points = embedding_map.map_embeddings(stores, CLEAN, speakers, settings.seed)
    write_table(out / "map.csv", embedding_map.COLUMNS, embedding_map.format_points(points))


def _score_list(
    enrol: Place, test: Place, trials: NamedList, enrolment: Path | None, folder: Place, settings: "Score"
) -> None:
    from pipeline.data.trials.streaming import spool_trials
    from pipeline.metrics import figures, thin
    from pipeline.report import write_det
    from pipeline.scoring.condition_stores import check_comparable, describe_adaptations
    from pipeline.scoring.enrolment import read_models
    from pipeline.scoring.provenance import describe_file, describe_list, describe_protocol
    from pipeline.scoring.score_writer import FILES, score_to_file
    from pipeline.scoring.scorer import scorer_of
    from pipeline.store.embedding_store import EmbeddingStore
    from pipeline.utils.atomic import replacing, write_json
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
        protocol = describe_protocol(
            {"enrol": left, "test": right},
            trials=describe_list(trials.path, spool.format, spool.counts),
            enrolment=describe_file(enrolment) if enrolment else None,
            comparison=settings.comparison,
            operating_points=[point.model_dump() for point in settings.operating_points],
        )
        scorer = scorer_of(left, right, models, comparison=settings.comparison)
        with replacing(out) as temporary:
            with progress_bar("scoring", spool.counts.trials) as advance:
                scores, target, count = score_to_file(spool, scorer, names, settings.format, temporary, advance)
            for name in sorted({*FILES.values(), "metrics.json", "det.csv"}):
                if exists(folder / name):  # it is from an earlier run
                    remove_file(folder / name)
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


def _parse_systems(systems: tuple[str, ...]) -> dict[str, str]:
    """Return the folder of each --system by name."""
    folders: dict[str, str] = {}
    for system in systems:
        name, separator, folder = system.partition("=")
        if not (name and separator and folder) or name in folders:
            raise click.UsageError(f"--system {system}: must be NAME=FOLDER, with each name once")
        folders[name] = folder
    return folders
