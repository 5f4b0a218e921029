"""Leave one corpus out: train on the others, adapt to it without labels, and test on it.

    python -m benchmarks.transfer --work FOLDER [--encoder ge2e] [--seeds 3]

Makes the stores of four corpora in FOLDER with the parameters of params.yaml, once: speechocean762, commands and arabic
(below $SEED_DATA), and the demo's voices; trained models are kept there too. For each of them, a model is trained on
the three others, each moved to one mean (`seed train --store … --store …`), and tested on the corpus left out: as it
is, and adapted to unlabelled vectors of its training speakers, who are not among the test speakers. Nothing
is chosen on the corpus that is tested, but `adaptation.PRIOR_VECTORS`, the thresholds of the spread and
`refit.PRIOR_RECORDINGS` were chosen once for all, on all four (`benchmarks.transfer_constants` chooses on three).

Columns: EER in % on clean speech, the mean over the noisy conditions with clean enrolment, and the same with both sides
in the condition, with 95 % intervals by a bootstrap over speakers; means over seeds, intervals of seed 0. Rows:

    raw              the encoder's vectors
    mean alone       minus the mean of all vectors to adapt to, without any model
    as is            the model without adaptation, at the strength that its trust in the domain allows
    no network       the whitening of the model alone, adapted to all clean vectors
    10, 30, …, all   adapted to so many clean vectors
    own strength     as `30 vectors`, with the strength that the model has for speech like that of its training
    mixed            adapted to all vectors, clean and corrupted as in training; with one mean, and with two
    pool             adapted to the test vectors of all conditions together, unlabelled; with one mean, and with two
    each side        enrolment and test adapted to the vectors of their own condition (test vectors, unlabelled)
    autoencoder      as `all`, but with the objective dae instead of diffusion
    from …           as `all`, but trained on that corpus alone
    … recordings     refitted to so many recordings, clean and corrupted as in training (`seed adapt RECORDINGS`)
    in domain        a model trained on the corpus itself, as it is
"""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import click
import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.config.params import Params, read_params
from pipeline.data.manifest import read_manifest
from pipeline.data.trials.table import Trials, make_all_pairs
from pipeline.metrics import Ranking, eer, interval, replicates, roc_of
from pipeline.model.adaptation import adapt_model
from pipeline.model.apply import enhance_vectors
from pipeline.model.diffusion.sampler import Sampling
from pipeline.model.domain import strength_in_domain
from pipeline.model.model_file import load_model, save_model
from pipeline.model.seed_model import SeedModel
from pipeline.scoring.comparison import unit_crops
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.store.schema import OK
from pipeline.training.aligned_stores import align_stores, join_speakers
from pipeline.training.refit import choose_strength, refit_halves, refit_model
from pipeline.training.train import train
from pipeline.training.verdict import MIN_RECORDINGS
from stages.cli import main as seed

CORPORA = ("speechocean762", "commands", "arabic", "demo")
COUNTS, RECORDINGS = (10, 30, 100), (10, 30, 50, 100)
TRIALS, RESAMPLES = 100_000, 100
Vectors = NDArray[np.float32]
Sides = Mapping[str, Vectors]
"""Test vectors [N, D] by condition."""


@dataclass(frozen=True)
class Corpus:
    """The vectors of a corpus."""

    name: str
    store: EmbeddingStore
    """The training store."""
    speakers: Mapping[str, str | None]
    """The speaker of each utterance."""
    sides: Sides
    tested: list[str]
    """The speaker of each test vector."""

    @cached_property
    def crops(self) -> Vectors:
        """The crops to adapt to, of all training utterances [N, draws, views, D]."""
        return self.store.read()[self.store.ok]


def prepare(name: str, folder: Path, encoder: str, params: Params, path: Path) -> None:
    """Make the lists and the stores of a corpus, except for those that are there."""
    common = ["--params", str(path)]
    if not (folder / "manifests").exists():
        seed(["fetch", "--corpus", name, "--out", str(folder / "audio"), *common])
        seed(
            [
                "manifest",
                "--corpus",
                name,
                "--audio",
                str(folder / "audio"),
                "--out",
                str(folder / "manifests"),
                *common,
            ]
        )
    for each in ("train", *params.conditions):
        out, lists = folder / encoder / f"{each}.zarr", folder / "manifests" / each
        if not out.exists():
            sources = ["--manifest", f"{lists}.csv", "--augment", f"{lists}.augment.csv", "--set", each]
            seed(["extract", *sources, "--encoder", encoder, "--out", str(out), *common])


def read(name: str, folder: Path, encoder: str, conditions: list[str]) -> Corpus:
    """Read the stores of a corpus, without test utterances that failed in any condition."""
    stores = {each: EmbeddingStore.open(folder / encoder / f"{each}.zarr") for each in conditions}
    known = {}
    for each in ("train", "clean"):
        known |= {row.utterance: row.speaker for row in read_manifest(folder / "manifests" / f"{each}.csv")}
    whole = np.all([store.status == OK for store in stores.values()], axis=0)
    tested = [str(known[row]) for row, fine in zip(stores["clean"].utterances, whole, strict=True) if fine]
    sides = {each: store.read()[whole][:, 0, 0] for each, store in stores.items()}
    return Corpus(name, EmbeddingStore.open(folder / encoder / "train.zarr"), known, sides, tested)


def train_on(corpora: list[Corpus], params: Params, number: int, folder: Path, kind: str = "") -> SeedModel:
    """Train a model on one or several corpora, as `seed train` does, or read it from a folder of models."""
    path = folder / f"{'+'.join(corpus.name for corpus in corpora)}{kind}-{number}.safetensors"
    if not path.exists():
        speakers = [{each: corpus.speakers[each] for each in corpus.store.utterances} for corpus in corpora]
        store = align_stores([corpus.store for corpus in corpora])
        trained = train(store, params.train, number, params.enhance.timestep, join_speakers(speakers))
        folder.mkdir(parents=True, exist_ok=True)
        save_model(path, trained.model, store.encoder(), trained.summary())
    return load_model(path).model


def measure(sides: Sides, trials: Trials, numbers: NDArray[np.int64], resamples: int) -> NDArray[np.float64]:
    """Return EERs [1 + resamples, 3] in %: clean, noisy, both sides noisy; the first row is the estimate."""
    assert trials.target is not None
    units = {name: unit_crops(side[:, None])[:, 0] for name, side in sides.items()}

    def rates(enrol: str, test: str) -> NDArray[np.float64]:
        scores = (units[enrol] @ units[test].T)[trials.enrol, trials.test]
        estimate = eer(roc_of(scores, trials.target))
        if not resamples:
            return 100 * np.array([estimate])
        ranking = Ranking.from_scores(scores, trials.target)
        drawn = replicates([ranking], numbers[trials.enrol], numbers[trials.test], [eer], resamples, 0)[:, 0, 0]
        return 100 * np.array([estimate, *drawn])

    noisy = [name for name in sides if name != "clean"]
    columns = [
        rates("clean", "clean"),
        *(np.mean([rates(a or name, name) for name in noisy], axis=0) for a in ("clean", "")),
    ]
    return np.stack(columns, axis=1)


def enhance(model: SeedModel, sides: Sides, sampling: Sampling) -> Sides:
    """Return enhanced test vectors."""
    return {name: enhance_vectors(model, side, sampling) for name, side in sides.items()}


def systems(
    corpus: Corpus,
    model: SeedModel,
    autoencoder: SeedModel,
    alone: Mapping[str, SeedModel],
    sampling: Sampling,
    number: int,
) -> dict[str, Callable[[], Sides]]:
    """Return the systems by name, see the module. `alone` are models of one corpus each, this one included."""
    views, order = corpus.crops[:, 0], np.random.default_rng(number).permutation(len(corpus.crops))
    clean, mixed = views[:, 0], views.reshape(-1, views.shape[-1])
    pool, usual = np.concatenate(list(corpus.sides.values())), replace(sampling, strength=None)

    def adapted(vectors: Vectors, means: int = 1) -> Callable[[], Sides]:
        return lambda: enhance(adapt_model(model, vectors, means=means), corpus.sides, usual)

    def adapted_by(other: SeedModel, vectors: Vectors, strength: float | None = None) -> Sides:
        return enhance(adapt_model(other, vectors), corpus.sides, replace(sampling, strength=strength))

    def refitted(count: int) -> Sides:
        crops = corpus.crops[order[:count]]
        enough = count >= MIN_RECORDINGS
        strength = choose_strength(refit_halves(model, crops), sampling.timestep, number) if enough else None
        return enhance(refit_model(model, crops, strength), corpus.sides, usual)

    def whiten() -> Sides:
        moved = adapt_model(model, clean)
        return {name: moved.prepare(torch.from_numpy(side)).numpy() for name, side in corpus.sides.items()}

    def as_is(used: SeedModel) -> Callable[[], Sides]:
        strength = strength_in_domain(used, corpus.sides["clean"])[0]
        return lambda: enhance(used, corpus.sides, replace(sampling, strength=strength))

    def each_side() -> Sides:
        return {
            name: enhance(adapt_model(model, clean if name == "clean" else side), {name: side}, usual)[name]
            for name, side in corpus.sides.items()
        }

    counts = {f"{count} vectors": adapted(clean[order[:count]]) for count in COUNTS if count < len(clean)}
    return {
        "raw": lambda: corpus.sides,
        "mean alone": lambda: {name: side - clean.mean(axis=0) for name, side in corpus.sides.items()},
        "as is": as_is(model),
        "no network": whiten,
        **counts,
        "own strength": partial(adapted_by, model, clean[order[:30]], float(model.strength)),
        "all vectors": adapted(clean),
        "mixed": adapted(mixed),
        "mixed, two means": adapted(mixed, 2),
        "pool": adapted(pool),
        "pool, two means": adapted(pool, 2),
        "each side": each_side,
        **{f"{count} recordings": partial(refitted, count) for count in RECORDINGS if count <= len(order)},
        "autoencoder": partial(adapted_by, autoencoder, clean, model.adapted_strength),
        **{f"from {name}": partial(adapted_by, other, clean) for name, other in alone.items() if name != corpus.name},
        "in domain": as_is(alone[corpus.name]),
    }


@click.command()
@click.option("--work", type=click.Path(path_type=Path), required=True, help="Folder for lists and stores.")
@click.option("--encoder", default="ge2e", show_default=True)
@click.option("--seeds", default=3, show_default=True, help="Number of trainings, with seeds 0, 1, ….")
@click.option(
    "--only", type=click.Choice(CORPORA), multiple=True, help="Corpus to leave out; repeatable.  [default: all]"
)
def main(work: Path, encoder: str, seeds: int, only: tuple[str, ...]) -> None:
    """Train, adapt, test, and print a Markdown table."""
    params = read_params(Path("params.yaml"))
    torch.set_num_threads(1)  # run two processes with --only to use more cores
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "params.yaml"
        path.write_text(Path("params.yaml").read_text())
        for name in CORPORA:
            prepare(name, work / name, encoder, params, path)
    corpora = {name: read(name, work / name, encoder, params.conditions) for name in CORPORA}
    sampling = Sampling(**params.enhance.sampling())
    print("| corpus left out | system | clean | noisy | both noisy |\n|---|---|---:|---:|---:|")
    for name in only or CORPORA:
        corpus = corpora[name]
        numbers = np.unique(corpus.tested, return_inverse=True)[1].astype(np.int64)
        trials = make_all_pairs(corpus.tested, TRIALS, params.seed)
        found: dict[str, list[NDArray[np.float64]]] = {}
        for number in range(seeds):
            click.echo(f"without {name}, seed {number}", err=True)
            others = [each for each in corpora.values() if each is not corpus]
            folder = work / "models" / encoder
            model = train_on(others, params, number, folder)
            # The strength is not its own, so no folds are needed.
            plain = params.train.model_copy(update={"objective": "dae", "folds": 0})
            autoencoder = train_on(others, params.model_copy(update={"train": plain}), number, folder, "-dae")
            alone = {each.name: train_on([each], params, number, folder) for each in corpora.values()}
            for system, make in systems(corpus, model, autoencoder, alone, sampling, number).items():
                resamples = 0 if number else RESAMPLES  # intervals are those of seed 0
                found.setdefault(system, []).append(measure(make(), trials, numbers, resamples))
        raw = np.mean([each[0] for each in found["raw"]], axis=0)
        for system, measured in found.items():
            means = np.mean([each[0] for each in measured], axis=0)
            cells = []
            for column in range(3):
                low, high = interval(measured[0][1:, column])
                change = "" if system == "raw" else f" ({100 * (means[column] / raw[column] - 1):+.0f} %)"
                cells.append(f"{means[column]:.2f} [{low:.1f}, {high:.1f}]{change}")
            print(f"| {name} | {system} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
