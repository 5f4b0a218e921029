"""Choose the constants of adaptation without the corpus that is tested.

    python -m benchmarks.transfer_constants --work FOLDER [--encoder ge2e] [--seeds 3]

FOLDER has the stores and the models of `benchmarks.transfer`, which must run first. For each corpus left out, the
constant and the strength with the lowest noisy EER on the three other corpora are taken, relative to raw: of
`adaptation.PRIOR_VECTORS` with 30 vectors, and of `refit.PRIOR_RECORDINGS` with 50 recordings.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import click
import numpy as np
import torch

from benchmarks.transfer import CORPORA, TRIALS, Corpus, enhance, measure, read
from pipeline.config.params import read_params
from pipeline.data.trials.table import make_all_pairs
from pipeline.model import adaptation
from pipeline.model.adaptation import adapt_model
from pipeline.model.diffusion.sampler import Sampling
from pipeline.model.model_file import load_model
from pipeline.model.seed_model import SeedModel
from pipeline.training import refit
from pipeline.training.refit import refit_model

VECTORS, RECORDINGS = (2, 5, 10, 20), (5, 10, 20, 40)
Constants = tuple[str, int]
"""What a model is adapted to, and the constant."""


def adapt_with_all(corpus: Corpus, model: SeedModel, number: int) -> Iterator[tuple[Constants, SeedModel]]:
    """Yield a model adapted with each constant."""
    crops = corpus.crops[np.random.default_rng(number).permutation(len(corpus.crops))]
    for prior in VECTORS:
        with patch.object(adaptation, "PRIOR_VECTORS", prior):
            yield ("30 vectors", prior), adapt_model(model, crops[:30, 0, 0])
    for prior in RECORDINGS:
        with patch.object(refit, "PRIOR_RECORDINGS", prior):
            yield ("50 recordings", prior), refit_model(model, crops[:50])


@click.command()
@click.option("--work", type=click.Path(path_type=Path), required=True, help="Folder of `benchmarks.transfer`.")
@click.option("--encoder", default="ge2e", show_default=True)
@click.option("--seeds", default=3, show_default=True, help="Number of trainings, with seeds 0, 1, ….")
def main(work: Path, encoder: str, seeds: int) -> None:
    """Measure all constants, choose without each corpus, and print a Markdown table."""
    params = read_params(Path("params.yaml"))
    torch.set_num_threads(1)
    sampling = Sampling(**params.enhance.sampling())
    changes: dict[tuple[str, int, str], dict[str, float]] = {}
    for name in CORPORA:
        corpus = read(name, work / name, encoder, params.conditions)
        trials = make_all_pairs(corpus.tested, TRIALS, params.seed)
        numbers = np.unique(corpus.tested, return_inverse=True)[1].astype(np.int64)
        raw = measure(corpus.sides, trials, numbers, 0)[0, 1]
        found: dict[tuple[str, int, str], list[float]] = {}
        for number in range(seeds):
            others = "+".join(each for each in CORPORA if each != name)
            model = load_model(work / "models" / encoder / f"{others}-{number}.safetensors").model
            strengths = {"own": float(model.strength), "full": model.adapted_strength}
            for constants, adapted in adapt_with_all(corpus, model, number):
                for label, strength in strengths.items():
                    sides = enhance(adapted, corpus.sides, replace(sampling, strength=strength))
                    change = measure(sides, trials, numbers, 0)[0, 1] / raw - 1
                    found.setdefault((*constants, label), []).append(change)
        for key, values in found.items():
            changes.setdefault(key, {})[name] = 100 * float(np.mean(values))
    print("| adapted to | corpus left out | constant | strength | noisy, % |\n|---|---|---:|---|---:|")
    for level in ("30 vectors", "50 recordings"):
        chosen = []
        for name in CORPORA:
            means = {
                key: np.mean([change[each] for each in CORPORA if each != name])
                for key, change in changes.items()
                if key[0] == level
            }
            best = min(means, key=lambda key: means[key])
            chosen.append(changes[best][name])
            print(f"| {level} | {name} | {best[1]} | {best[2]} | {chosen[-1]:+.1f} |")
        print(f"| {level} | mean | | | {np.mean(chosen):+.1f} |")


if __name__ == "__main__":
    main()
