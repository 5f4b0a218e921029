"""`seed score`."""

from pathlib import Path
from typing import Any

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
    root_option,
)


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
@click.option(
    "--max-left-out",
    type=click.IntRange(min=0),
    help="Maximum number of trials of a list that may be left out because utterances failed.  [default: 0 for a list"
    " that is given by its name, any number for others]",
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
    from stages.helpers.score_list import score_list
    from stages.helpers.score_systems import score_systems
    from stages.helpers.trial_lists import find_trial_list

    sides = (enrol, test, trials)
    if systems and (manifest is None or enrolment or any(sides)):
        raise click.UsageError("--system needs --manifest, and excludes --enrol, --test, --trials and --enrolment")
    if not systems and (lists or models or cohort or cohort_manifest or not all(sides)):
        raise click.UsageError("give --system and --manifest, or --enrol, --test and --trials")
    score_changes = {f"score.{key}": value for key, value in changes.items()}
    settings = load_params(params, {"seed": seed, "data_root": data_root} | score_changes)
    if enrol and test and trials:
        named = find_trial_list(trials, corpora, settings.data_root)
        score_list(enrol, test, named, enrolment, out, settings.score)
    elif manifest:
        folders = {name: to_place(folder) for name, folder in _parse_systems(systems).items()}
        score_systems(folders, manifest, lists, corpora, models, cohort, cohort_manifest, settings, out)


def _parse_systems(systems: tuple[str, ...]) -> dict[str, str]:
    """Return the folder of each --system by name."""
    folders: dict[str, str] = {}
    for system in systems:
        name, separator, folder = system.partition("=")
        if not (name and separator and folder) or name in folders:
            raise click.UsageError(f"--system {system}: must be NAME=FOLDER, with each name once")
        folders[name] = folder
    return folders
