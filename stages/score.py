"""`seed score`."""

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from stages.common import FILE, FOLDER, OUTPUT, STORE, load_params, params_option, progress_bar
from stages.corpus import corpora_option, root_option
from stages.lists import NamedList, named_list, tell

if TYPE_CHECKING:
    from pipeline.config import Params, Score
    from pipeline.places import Place


@click.command()
@click.option(
    "--system",
    "systems",
    multiple=True,
    metavar="NAME=FOLDER",
    help="A system to measure, and the folder of its <condition>.zarr; repeatable.",
)
@click.option("--manifest", type=FILE, help="With --system: manifest that gives the speakers.")
@click.option(
    "--lists",
    type=FOLDER,
    help="With --system: folder of trial lists, one file each; if it holds any, they are scored in place of all pairs.",
)
@click.option("--enrol", type=STORE, help="Without --system: store of the enrolment side.")
@click.option("--test", type=STORE, help="Without --system: store of the test side.")
@click.option(
    "--trials",
    metavar="LIST",
    help="Without --system: a trial list, as a file or by its name in --corpora (`seed corpus list`).",
)
@click.option(
    "--enrolment",
    type=FILE,
    help="Without --system: lines `model utterance1 utterance2 …`; the list's enrolment side then names models.",
)
@corpora_option
@root_option
@click.option(
    "--out", type=OUTPUT, required=True, help="Folder for metrics.json and det.csv (and the scores of a trial list)."
)
@click.option(
    "--bootstrap", type=click.IntRange(min=0), help="Resamples of speakers for the 95 % intervals.  [default: 200]"
)
@click.option(
    "--comparison",
    type=click.Choice(["cosine", "pairwise"]),
    help="Of the mean crops, or minus the mean distance between all crops of both sides.  [default: cosine]",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["csv", "kaldi", "txt"]),
    help="Of a trial list's scores: csv, or lines `enrolment test score` (kaldi), `label enrolment test score` (txt)."
    "  [default: csv]",
)
@click.option("--max-trials", type=click.IntRange(min=2), help="Most trials to make of all pairs.  [default: 1000000]")
@click.option("--seed", type=click.IntRange(min=0), help="Seed of sampled trials and of the bootstrap.  [default: 0]")
@params_option
def score(
    systems: tuple[str, ...],
    manifest: Path | None,
    lists: Path | None,
    enrol: "Place | None",
    test: "Place | None",
    trials: str | None,
    enrolment: Path | None,
    corpora: Path,
    data_root: str | None,
    out: "Place",
    bootstrap: int | None,
    comparison: str | None,
    form: str | None,
    max_trials: int | None,
    seed: int | None,
    params: Path | None,
) -> None:
    """Score trials, and measure EER (percent), minDCF and minCllr (bits).

    With --system: all pairs of clean enrolments and test utterances in each condition of the parameter file, or the
    trials of each list of --lists in place of them; systems are compared with the first, by a paired bootstrap over
    speakers. Without: one trial list between two stores: `1|0 enrolment test`, `enrolment test target|nontarget`, a
    table with a header such as `modelid,segmentid,targettype`, or pairs without labels, which are scored but not
    measured.
    """
    listed = {"--enrol": enrol, "--test": test, "--trials": trials}
    if systems and (manifest is None or enrolment or any(listed.values())):
        raise click.UsageError("--system goes with --manifest, and not with --enrol, --test, --trials or --enrolment")
    if not systems and (lists or not all(listed.values())):
        raise click.UsageError("give --system and --manifest, or --enrol, --test and --trials")
    changes = {"bootstrap": bootstrap, "comparison": comparison, "format": form, "max_trials": max_trials}
    settings = load_params(
        params,
        {"seed": seed, "data_root": data_root} | {f"score.{key}": value for key, value in changes.items()},
    )
    if enrol and test and trials:
        listed = named_list(trials, corpora, settings.data_root)
        _score_list(enrol, test, listed, enrolment, out, settings.score)
    elif manifest:
        _score_systems(_folders(systems), manifest, lists, settings, out)


def _score_systems(
    systems: dict[str, "Place"], manifest: Path, lists: Path | None, settings: "Params", folder: "Place"
) -> None:
    from pipeline.listed import open_lists, score_lists
    from pipeline.manifest import read_manifest
    from pipeline.report import write_det, write_json
    from pipeline.scoring import score_systems

    speakers = {row.utterance: row.speaker for row in read_manifest(manifest)}
    conditions, score = settings.conditions, settings.score
    listed = open_lists(lists, systems, conditions[0]) if lists else {}
    for name, found in listed.items():
        tell(found, NamedList(name, lists / name if lists else Path(name)))
    with progress_bar("scoring", max(1, len(listed)) * len(conditions)) as advance:
        if listed:
            trials = {name: found.trials for name, found in listed.items()}
            table, rocs = score_lists(
                systems,
                trials,
                conditions,
                "clean",
                speakers,
                score.bootstrap,
                settings.seed,
                score.operating_points,
                score.comparison,
                lambda _: advance(1),
            )
        else:
            table, rocs = score_systems(
                systems,
                conditions,
                "clean",
                speakers,
                manifest,
                score.max_trials,
                score.bootstrap,
                settings.seed,
                score.operating_points,
                score.comparison,
                lambda _: advance(1),
            )
    write_json(folder / "metrics.json", table)
    write_det(folder / "det.csv", rocs)
    click.echo(f"{folder / 'metrics.json'}: written")


def _score_list(
    enrol: "Place",
    test: "Place",
    trials: NamedList,
    enrolment: Path | None,
    folder: "Place",
    settings: "Score",
) -> None:
    from pipeline.enrolment import read_models
    from pipeline.files import replacing
    from pipeline.metrics import figures, thin
    from pipeline.places import exists, remove_file
    from pipeline.provenance import of_file, of_list, protocol_of
    from pipeline.report import write_det, write_json
    from pipeline.score_lines import FILES
    from pipeline.score_stream import score_to_file
    from pipeline.scoring import check_comparable, scorer_of
    from pipeline.store import EmbeddingStore
    from pipeline.trial_spool import spooled

    left, right = EmbeddingStore.open(enrol), EmbeddingStore.open(test)
    check_comparable(left, right)
    models = read_models(enrolment, left.utterances) if enrolment else None
    names = models.names if models else left.utterances, right.utterances
    where = "among the enrolment models or in the store" if models else "in the store"
    out = folder / FILES[settings.format]
    with ExitStack() as stack:
        with progress_bar("reading trials", None) as advance:
            spool = stack.enter_context(spooled(trials.path, *names, where, advance))
        tell(spool, trials)
        protocol = protocol_of(
            {"enrol": left, "test": right},
            trials=of_list(trials.path, spool.form, spool.counts),
            enrolment=of_file(enrolment) if enrolment else None,
            comparison=settings.comparison,
            operating_points=[point.model_dump() for point in settings.operating_points],
        )
        scorer = scorer_of(left, right, models, comparison=settings.comparison)
        with replacing(out) as temporary:
            with progress_bar("scoring", spool.counts.trials) as advance:
                scores, target, count = score_to_file(spool, scorer, names, settings.format, temporary, advance)
            for name in sorted({*FILES.values(), "metrics.json", "det.csv"}):
                if exists(folder / name):  # an earlier run's would pass for this one's
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


def _folders(systems: tuple[str, ...]) -> dict[str, "Place"]:
    from pipeline.places import to_place

    folders: dict[str, Place] = {}
    for system in systems:
        name, separator, folder = system.partition("=")
        if not (name and separator and folder) or name in folders:
            raise click.UsageError(f"--system {system}: must be NAME=FOLDER, each name once")
        folders[name] = to_place(folder)
    return folders
