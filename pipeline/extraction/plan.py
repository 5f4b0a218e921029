"""Plan of a run of the pipeline: utterances, crops, trials, bytes and hours of each stage."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from pipeline.audio.reading import SAMPLE_RATE
from pipeline.config.params import TRAIN, Params
from pipeline.config.recipes import recipe_for
from pipeline.data.corpora import Corpus, find_data_root
from pipeline.data.corpus_files import find_files
from pipeline.data.inventory import count_published_files, list_split_patterns
from pipeline.data.manifest import read_manifest
from pipeline.data.published_lists import find_list, find_list_path
from pipeline.data.trials.lists import count_trials
from pipeline.encoders.families import FAMILIES
from pipeline.errors import CorpusError

CROP = 2.015
"""Seconds of a crop of 200 frames, the unit of all rates."""

DENOISER_CROPS_PER_SECOND = {"none": None, "rnnoise": 9.0}
"""Number of crops that one core denoises per second (benchmarks/denoise.py)."""

MANIFEST, FILES, PUBLISHED, DEFINED = "manifest", "files", "published", "definition"


@dataclass(frozen=True)
class Estimate:
    """A number and its source; None if it is unknown."""

    number: int | None
    source: str = ""
    seconds: float | None = None
    """Mean length of a recording, if a manifest has it."""


@dataclass(frozen=True)
class PlannedStep:
    """One stage: the number of its inputs, the bytes that it stores, and the hours of its encoder."""

    stage: str
    name: str
    """The set, encoder, condition or list that it runs on."""
    count: Estimate
    crops: int | None = None
    bytes: int | None = None
    hours: float | None = None


def make_plan(
    params: Params, corpora: Mapping[str, Corpus], manifests: Path, rates: Mapping[str | None, float] | None = None
) -> list[PlannedStep]:
    """Return all stages in the order in which they run.

    `manifests` is the folder of `<set>.csv`. A set without a manifest, or with one of other corpora (by the names of
    the folders in its paths), is counted by its files, or else by published numbers. `rates` are crops per second by
    encoder (None: for all), instead of those of the families times `extract.workers`.

    Raises:
        CorpusError: a corpus is not defined, or has no train and test.
    """
    for name in params.corpus:
        corpus = corpora.get(name)
        if corpus is None or corpus.train is None:
            reason = (
                "is a part of others, and has no train and test" if corpus else f"is not among {', '.join(corpora)}"
            )
            raise CorpusError(f"corpus {name!r} {reason}. Name another as corpus in the parameter file.")
    count_split = cache(partial(_count_split, params, corpora))  # conditions share files, which are slow to find
    counts = {
        name: _count_manifest(manifests / f"{name}.csv", params.corpus if name == TRAIN else params.corpus[:1], corpora)
        or count_split("train" if name == TRAIN else "test")
        for name in params.sets
    }
    steps = [PlannedStep("manifest", name, count) for name, count in counts.items()]
    for encoder in params.encoders:
        steps += [_plan_extraction(params, encoder, name, count, rates or {}) for name, count in counts.items()]
        crops = None if (number := counts[TRAIN].number) is None else number * params.extract.draws
        steps.append(PlannedStep("train", encoder, Estimate(crops, counts[TRAIN].source)))
        for name in params.conditions:
            store = _plan_extraction(params, encoder, name, counts[name], {})
            steps.append(PlannedStep("enhance", store.name, store.count, bytes=store.bytes))
        trials = _count_trials(params, corpora, counts)
        steps += [PlannedStep("score", f"{encoder} {name}", count) for name, count in trials.items()]
    return steps


def _count_manifest(manifest: Path, wanted: Sequence[str], corpora: Iterable[str]) -> Estimate | None:
    if not manifest.is_file():
        return None
    rows = read_manifest(manifest)
    listed = {row.corpus for row in rows} - {None}
    folders = Path(rows[0].path).parts
    if listed or len(wanted) > 1:
        if listed != set(wanted):
            return None
    elif wanted[0] not in folders and any(other in folders for other in corpora):
        return None
    known = [row.seconds for row in rows if row.seconds is not None]
    return Estimate(len(rows), MANIFEST, sum(known) / len(known) if known else None)


def _count_split(params: Params, corpora: Mapping[str, Corpus], split: str) -> Estimate:
    names = params.corpus if split == "train" else [params.tested_corpus]
    counts = [_count_files(name, params.data_root, corpora, split) for name in names]
    numbers = [count.number for count in counts if count.number is not None]
    sources = ", ".join(dict.fromkeys(count.source for count in counts if count.source))
    return Estimate(sum(numbers), sources) if len(numbers) == len(counts) else Estimate(None)


def _count_files(name: str, given_root: str | None, corpora: Mapping[str, Corpus], split: str) -> Estimate:
    corpus = corpora[name]
    if size := corpus.origin.synthesis:
        return Estimate((size.train_voices if split == "train" else size.test_voices) * size.utterances, DEFINED)
    root, published = find_data_root(corpus, given_root), count_published_files(corpora, name)
    numbers: list[int] = []
    sources, without = set(), []
    for pattern in list_split_patterns(corpus, split, "speech"):
        files = len(find_files(root, pattern)) if root.is_dir() else 0
        if (number := files or published.get(pattern)) is None:
            without.append(f"without {pattern}")
        else:
            numbers.append(number)
            sources.add(FILES if files else PUBLISHED)
    return Estimate(sum(numbers), ", ".join([*sorted(sources), *without])) if numbers else Estimate(None)


def _plan_extraction(
    params: Params, encoder: str, name: str, count: Estimate, rates: Mapping[str | None, float]
) -> PlannedStep:
    recipe = recipe_for(params, name)
    definition = params.definition(encoder)
    family = FAMILIES.get(definition.family)
    dim = definition.dim or (family.dim if family else None)
    rate = family.crops_per_second if family else None
    if rate and (denoiser := DENOISER_CROPS_PER_SECOND[definition.denoise]):
        rate = 1 / (1 / rate + 1 / denoiser)
    speed = rates.get(encoder, rates.get(None, rate * max(1, params.extract.workers) if rate else None))
    seconds = count.seconds if recipe.crop is None else recipe.crop / SAMPLE_RATE
    crops = None if count.number is None else count.number * recipe.draws * len(recipe.views)
    size = crops * dim * 4 if crops is not None and dim else None
    hours = crops * seconds / CROP / speed / 3600 if crops is not None and seconds and speed else None
    return PlannedStep("extract", f"{encoder} {name}", count, crops, size, hours)


def _count_trials(params: Params, corpora: Mapping[str, Corpus], counts: Mapping[str, Estimate]) -> dict[str, Estimate]:
    if names := corpora[params.tested_corpus].trials:
        return {name: _count_list(corpora, name, params.data_root) for name in names}
    utterances = counts[params.conditions[0]]
    number = utterances.number
    number = None if number is None else min(number * (number - 1), params.score.max_trials)
    return {f"each of {len(params.conditions)} conditions": Estimate(number, utterances.source)}


def _count_list(corpora: Mapping[str, Corpus], name: str, root: str | None) -> Estimate:
    try:
        return Estimate(count_trials(find_list_path(corpora, name, root)).trials, FILES)
    except CorpusError:
        return Estimate(find_list(corpora, name)[1].trials, PUBLISHED)
