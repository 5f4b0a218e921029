"""Test models on out-of-domain speech: adults and children, and the corpus of another project.

    python -m benchmarks.foreign [--encoder ge2e] [--other FOLDER]

Uses the stores in data/embeddings/<encoder>, and their manifests, which hold ages. --other is the folder of another
project whose stores of the same encoder are one more domain. A model is trained on each domain with the parameters of
params.yaml, and tested on its counterpart: first on the training set of the counterpart, crop by crop, at several
strengths, which the trust in out-of-domain speech was derived from (docs/training.md); then on its test set, at the
strength that `--domain` leaves (docs/results.md).
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.config.params import Params, read_params
from pipeline.data.manifest import Utterance, read_manifest
from pipeline.data.trials.table import make_all_pairs
from pipeline.metrics import eer, roc_of
from pipeline.metrics.bootstrap import Ranking, p_value, replicates
from pipeline.model.apply import enhance_vectors
from pipeline.model.diffusion.interpolation import interpolate
from pipeline.model.diffusion.sampler import Sampling
from pipeline.model.domain import FAMILIAR, FOREIGN, strength_in_domain
from pipeline.model.seed_model import SeedModel
from pipeline.scoring.comparison import mean_units, unit_crops
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.store.schema import OK
from pipeline.store.writer import write_store
from pipeline.training.strength import measure_crop_eers
from pipeline.training.train import train

STRENGTHS = (0.3, 0.5, 0.6, 0.8, 1.0)
GROWN = 18
"""Age from which a speaker is an adult, in years."""
TRIALS, RESAMPLES = 300_000, 200
Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Kind:
    """A domain of speech."""

    name: str
    rows: list[Utterance]
    """Of the training set."""
    crops: Vectors
    """Of these [N, draws, views, D]."""
    attributes: dict[str, object]
    tested: list[Utterance]
    sides: dict[str, Vectors]
    """Of the test set by condition [M, crops, D]."""

    def of(self, name: str, grown: bool) -> "Kind":
        """Return the adults or the children."""
        keep, kept = (
            [(row.age or 0) >= GROWN if grown else (row.age or GROWN) < GROWN for row in rows]
            for rows in (self.rows, self.tested)
        )
        return Kind(
            name,
            [row for row, wanted in zip(self.rows, keep, strict=True) if wanted],
            self.crops[keep],
            self.attributes,
            [row for row, wanted in zip(self.tested, kept, strict=True) if wanted],
            {condition: values[kept] for condition, values in self.sides.items()},
        )


def read(folder: Path, encoder: str, conditions: list[str], name: str) -> Kind:
    """Read a project's stores of an encoder, without utterances that failed in any of them."""
    stores = {
        each: EmbeddingStore.open(folder / f"data/embeddings/{encoder}/{each}.zarr") for each in ("train", *conditions)
    }
    known = {}
    for each in ("train", "clean"):
        known |= {row.utterance: row for row in read_manifest(folder / f"data/manifests/{each}.csv")}
    whole = np.all([stores[each].status == OK for each in conditions], axis=0)
    learnt = stores.pop("train")
    return Kind(
        name,
        [known[learnt.utterances[row]] for row in learnt.ok],
        learnt.read()[learnt.ok],
        {key: value for key, value in learnt.attributes.items() if key != "schema"},
        [known[each] for each, fine in zip(stores["clean"].utterances, whole, strict=True) if fine],
        {each: store.read()[whole][:, :, 0] for each, store in stores.items()},
    )


def model_of(kind: Kind, params: Params) -> SeedModel:
    """Train on a domain, as `seed train` does."""
    with tempfile.TemporaryDirectory() as folder:
        ids, path = [row.utterance for row in kind.rows], Path(folder) / "train.zarr"
        write_store(path, ids, kind.crops, np.full(len(ids), OK, np.uint8), kind.attributes)
        speakers = {row.utterance: row.speaker for row in kind.rows}
        store = EmbeddingStore.open(path)
        return train(store, params.train, params.seed, params.enhance.timestep, speakers).model


def on_training_set(model: SeedModel, kind: Kind, params: Params) -> list[str]:
    """Return the atypicality of the clean crops of a domain, and EERs of single crops at every strength.

    The last EERs are with a strength per vector, lowered by its own atypicality, which `Enhancer` does not do because
    of these figures.
    """
    raw = torch.from_numpy(kind.crops.reshape(-1, model.dim))
    whole = torch.from_numpy(enhance_vectors(model, raw.numpy(), Sampling(params.enhance.timestep)))
    speakers, cells = [row.speaker for row in kind.rows], []
    trust = ((FOREIGN - model.atypicality(raw)) / (FOREIGN - FAMILIAR)).clamp(0, 1)
    by_itself = torch.round(20 * float(model.strength) * trust) / 20
    for share in (*map(torch.tensor, (0.0, *STRENGTHS)), by_itself):
        moved = raw.clone()
        for each in share.unique().tolist():
            rows = (share == each).expand(len(raw))
            moved[rows] = interpolate(raw[rows], whole[rows], each)
        found = measure_crop_eers(moved.numpy().reshape(kind.crops.shape), speakers, params.seed)
        cells.append("–" if found is None else f"{found[0]:.2f} / {found[1]:.2f}")
    return [f"{strength_in_domain(model, kind.crops[:, :, 0].reshape(-1, model.dim))[1]:.2f}", *cells]


def on_test_set(model: SeedModel, kind: Kind, params: Params) -> list[str]:
    """Return the strength that is left, and EERs of raw and enhanced vectors, enrolled clean and in the condition."""
    share, _ = strength_in_domain(model, kind.sides["clean"].reshape(-1, model.dim))
    how = Sampling(params.enhance.timestep, strength=share)
    systems = []
    for values in (kind.sides, {name: _through(model, side, how) for name, side in kind.sides.items()}):
        systems.append({name: mean_units(unit_crops(side)) for name, side in values.items()})
    speakers = [str(row.speaker) for row in kind.tested]
    number = np.unique(speakers, return_inverse=True)[1].astype(np.int64)
    trials = make_all_pairs(speakers, TRIALS, params.seed)
    assert trials.target is not None
    found: dict[tuple[bool, str], NDArray[np.float64]] = {}
    for both in (False, True):
        for name in kind.sides:
            scores = [(side[name if both else "clean"] @ side[name].T)[trials.enrol, trials.test] for side in systems]
            rankings = [Ranking.from_scores(score, trials.target) for score in scores]
            drawn = replicates(rankings, number[trials.enrol], number[trials.test], [eer], RESAMPLES, params.seed)[
                :, :, 0
            ]
            found[both, name] = 100 * np.vstack([[eer(roc_of(score, trials.target)) for score in scores], drawn])
    noisy = [name for name in kind.sides if name != "clean"]
    means = {
        "clean": found[False, "clean"],
        "noisy": np.mean([found[False, name] for name in noisy], axis=0),
        "both": np.mean([found[True, name] for name in noisy], axis=0),
    }
    mark = {name: "*" if share and p_value(np.diff(each[1:])[:, 0]) < 0.05 else "" for name, each in means.items()}
    one = {name: [f"{each[0, 0]:.2f}", f"{each[0, 1]:.2f}{mark[name]}"] for name, each in means.items()}
    return [f"{share:.2f}", *(f"{one['clean'][at]} / {one['noisy'][at]}" for at in (0, 1)), *one["both"]]


def _through(model: SeedModel, side: Vectors, how: Sampling) -> Vectors:
    return enhance_vectors(model, side.reshape(-1, model.dim), how).reshape(side.shape)


@click.command()
@click.option("--encoder", default="ge2e", show_default=True)
@click.option("--other", type=click.Path(path_type=Path), help="Folder of another project with stores of the encoder.")
def main(encoder: str, other: Path | None) -> None:
    """Train, test, and print two Markdown tables."""
    params = read_params(Path("params.yaml"))
    torch.set_num_threads(params.train.threads)
    here = read(Path(), encoder, list(params.conditions), params.corpus)
    pairs = [(here.of("adults", True), here.of("children", False))]
    if other:
        there = read(other, encoder, list(params.conditions), read_params(other / "params.yaml").corpus)
        pairs.append((here, there))
    crops, tests = [], []
    for first, second in pairs:
        for learnt, tried in ((first, second), (second, first)):
            click.echo(f"training on {learnt.name}: {len(learnt.rows)} utterances", err=True)
            model, names = model_of(learnt, params), f"{encoder} | {learnt.name}, {tried.name}"
            crops.append([names, *on_training_set(model, tried, params)])
            tests.append([names, *on_test_set(model, tried, params)])
    heads = (
        ["atypicality", "raw", *map(str, STRENGTHS), "each by itself"],
        ["strength", "raw", "seed", "raw, both noisy", "seed, both noisy"],
    )
    for head, rows in zip(heads, (crops, tests), strict=True):
        print(f"| encoder | trained on, tested on | {' | '.join(head)} |\n|---|---|{'---:|' * len(head)}")
        print("\n".join(f"| {' | '.join(row)} |" for row in rows), end="\n\n")


if __name__ == "__main__":
    main()
