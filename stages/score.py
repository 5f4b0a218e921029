"""`seed score`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from stages.common import FILE, FOLDER, NEW, load_params, params_option, progress_bar

if TYPE_CHECKING:
    from pipeline.operating_points import OperatingPoint


@click.command()
@click.option(
    "--system",
    "systems",
    multiple=True,
    metavar="NAME=FOLDER",
    help="A system to measure, and the folder of its <condition>.zarr; repeatable.",
)
@click.option("--manifest", type=FILE, help="With --system: manifest that gives the speakers.")
@click.option("--enrol", type=FOLDER, help="Without --system: store of the enrolment side.")
@click.option("--test", type=FOLDER, help="Without --system: store of the test side.")
@click.option("--trials", type=FILE, help="Without --system: trial list, lines of `1|0 enrolment test`.")
@click.option(
    "--out", type=NEW, required=True, help="Folder for metrics.json and det.csv (and scores.csv of a trial list)."
)
@click.option(
    "--bootstrap", type=click.IntRange(min=0), help="Resamples of speakers for the 95 % intervals.  [default: 200]"
)
@click.option("--max-trials", type=click.IntRange(min=2), help="Most trials to make of all pairs.  [default: 1000000]")
@click.option("--seed", type=click.IntRange(min=0), help="Seed of sampled trials and of the bootstrap.  [default: 0]")
@params_option
def score(
    systems: tuple[str, ...],
    manifest: Path | None,
    enrol: Path | None,
    test: Path | None,
    trials: Path | None,
    out: Path,
    bootstrap: int | None,
    max_trials: int | None,
    seed: int | None,
    params: Path | None,
) -> None:
    """Score trials by cosine, and measure EER (percent), minDCF and minCllr (bits).

    With --system: all pairs of clean enrolments and test utterances in each condition of the parameter file. Without:
    one trial list between two stores. Systems are compared with the first, by a paired bootstrap over speakers.
    """
    listed = {"--enrol": enrol, "--test": test, "--trials": trials}
    if systems and (manifest is None or any(listed.values())):
        raise click.UsageError("--system goes with --manifest, and not with --enrol, --test or --trials")
    if not systems and not all(listed.values()):
        raise click.UsageError("give --system and --manifest, or --enrol, --test and --trials")
    settings = load_params(params, {"seed": seed, "score.bootstrap": bootstrap, "score.max_trials": max_trials})
    if enrol and test and trials:
        _score_list(enrol, test, trials, out, settings.score.operating_points)
    elif manifest:
        from pipeline.manifest import read_manifest
        from pipeline.report import write_det, write_json
        from pipeline.scoring import score_systems

        speakers = {row.utterance: row.speaker for row in read_manifest(manifest)}
        with progress_bar("scoring", len(settings.conditions)) as advance:
            table, rocs = score_systems(
                _folders(systems),
                settings.conditions,
                "clean",
                speakers,
                manifest,
                settings.score.max_trials,
                settings.score.bootstrap,
                settings.seed,
                settings.score.operating_points,
                lambda _: advance(1),
            )
        write_json(out / "metrics.json", table)
        write_det(out / "det.csv", rocs)
    click.echo(f"{out / 'metrics.json'}: written")


def _score_list(enrol: Path, test: Path, trials: Path, folder: Path, points: "Sequence[OperatingPoint]") -> None:
    from pipeline.metrics import figures, thin
    from pipeline.report import write_det, write_json, write_scores
    from pipeline.scoring import score_list
    from pipeline.store import EmbeddingStore
    from pipeline.trials import read_trials

    left, right = EmbeddingStore.open(enrol), EmbeddingStore.open(test)
    kept, scores = score_list(left, right, read_trials(trials, left.utterances, right.utterances))
    metrics, roc = figures(scores, kept.target, points)
    write_json(folder / "metrics.json", metrics)
    write_det(folder / "det.csv", {(test.stem, enrol.stem): thin(roc)})
    write_scores(folder / "scores.csv", left.utterances, right.utterances, kept, scores)
    cost = f"minDCF({points[0].name}) {metrics[f'min_dcf_{points[0].name}']:.3f}"
    click.echo(f"EER {metrics['eer']:.2f} %, {cost}, {len(kept):,} trials")


def _folders(systems: tuple[str, ...]) -> dict[str, Path]:
    folders = {}
    for system in systems:
        name, separator, folder = system.partition("=")
        if not (name and separator and folder) or name in folders:
            raise click.UsageError(f"--system {system}: must be NAME=FOLDER, each name once")
        folders[name] = Path(folder)
    return folders
