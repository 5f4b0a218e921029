"""Score the systems of `seed score`: all pairs, or lists, in every condition."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.utils.paths import Place
from stages.helpers.options import progress_bar
from stages.helpers.trial_lists import NamedList, find_published, warn_about_list

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.config.params import Params
    from pipeline.data.utterances import Utterances
    from pipeline.scoring.evaluation import Outcome
    from pipeline.store.embedding_store import EmbeddingStore

CLEAN = "clean"
"""The condition of enrolment."""


def score_systems(
    systems: dict[str, Place],
    manifest: Path,
    lists_folder: Path | None,
    definitions: Path,
    models: "Sequence[Place]",
    cohort: Place | None,
    cohort_manifest: Path | None,
    settings: "Params",
    out: Place,
) -> None:
    """Score all pairs or lists, and write the figures and the data of the plots to the folder `out`.

    `definitions` are the corpus definitions, which say which lists are published. For the others see `seed score`.
    """
    from pipeline.data.manifest import read_manifest
    from pipeline.data.trials.left_out import FILE as LEFT_OUT
    from pipeline.data.trials.left_out import describe_failed, failed_as_json, find_left_out, note_failed
    from pipeline.data.trials.lists import find_lists, read_lists
    from pipeline.data.utterances import select_utterances
    from pipeline.scoring.cohort import read_cohort
    from pipeline.scoring.condition_stores import describe_adaptations, open_condition_stores
    from pipeline.scoring.evaluation import evaluate, find_failed, pair_utterances, usable_mask
    from pipeline.scoring.provenance import describe_list, describe_protocol
    from pipeline.store.embedding_store import EmbeddingStore
    from pipeline.utils.atomic import write_text

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
    failed = find_failed(sources)
    warnings = [note_failed(failed)] if failed else []
    trials, left_out = {}, {}
    for name, listed in found.items():
        named = NamedList(name, files[name], find_published(name, definitions))
        warn_about_list(listed, named)
        counts, limit = listed.counts, named.max_left_out(score)
        lost = left_out[name] = find_left_out([listed.trials], (whole, whole), (utterances.ids, utterances.ids))
        lost.check(f"trial list {name}", counts.trials, counts.targets, limit)
        if lost.trials:
            warnings.append(f"trial list {name}: {lost.describe(counts.trials)}")
        trials[name] = listed.trials.keep(whole[listed.trials.enrol] & whole[listed.trials.test])
    if others and others.failed:
        warnings.append(f"{others.path}: {describe_failed(others.failed)}; the cohort is made without them")
    if not trials:
        trials = {"": pair_utterances(utterances, whole, score.max_trials, settings.seed, manifest)}
    with progress_bar("scoring", len(trials) * len(conditions)) as advance:
        outcome = evaluate(
            sources, trials, conditions, CLEAN, utterances, score, settings.seed, others, lambda: advance(1)
        )
    adapted = [note for source in sources.values() if (note := describe_adaptations(source.stores))]
    outcome.warnings[:0] = warnings
    for warning in (*outcome.warnings, *adapted):
        click.echo(f"  {warning}", err=True)
    used = {f"{name}/{which}": store for (which, name), store in stores.items()}
    protocol = describe_protocol(
        used | ({"cohort": background} if background else {}),
        lists=[describe_list(files[name], each.format, each.counts, left_out[name]) for name, each in found.items()]
        or None,
        left_out=failed_as_json(failed) if failed else None,
        conditions=conditions,
        enrolment=CLEAN,
        score=score.model_dump(mode="json"),
        seed=settings.seed,
        warnings=outcome.warnings or None,
    )
    _write_outcome(out, outcome, protocol, stores, utterances, settings)
    if failed:
        write_text(out / LEFT_OUT, "".join(f"{name}\n" for name in failed))
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
