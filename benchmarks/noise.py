"""Measure how forward noise changes error rates: none, one draw, or the mean of eight, over 20 seeds.

    python -m benchmarks.noise [--encoder ge2e --encoder campplus] [--seeds 20]

Uses the models in models/<encoder> and the conditions in data/embeddings/<encoder>, with clean enrolment. All other
parameters are those of params.yaml. The paper's code draws once, with a fixed seed.
"""

from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import torch

from pipeline.config.params import read_params
from pipeline.data.manifest import read_manifest
from pipeline.data.trials.table import Trials, make_all_pairs
from pipeline.metrics import eer, roc_of
from pipeline.model.apply import enhance_vectors
from pipeline.model.diffusion.sampler import Sampling
from pipeline.model.domain import domain_confidence
from pipeline.model.model_file import load_model
from pipeline.scoring.comparison import mean_units, unit_crops
from pipeline.store.embedding_store import EmbeddingStore

TRIALS = 200_000


@click.command()
@click.option("--encoder", "encoders", multiple=True, default=("ge2e", "campplus"), show_default=True)
@click.option("--seeds", default=20, show_default=True)
@click.option("--strength", type=float, help="Interpolation weight.  [default: the model's]")
def main(encoders: tuple[str, ...], seeds: int, strength: float | None) -> None:
    """Measure, and print a Markdown table."""
    params = read_params(Path("params.yaml"))
    torch.set_num_threads(params.train.threads)
    speakers = {row.utterance: row.speaker for row in read_manifest(Path("data/manifests/clean.csv"))}
    print("| encoder | draws | clean EER, % | spread | mean noisy EER, % | spread |\n|---|---:|---:|---:|---:|---:|")
    for encoder in encoders:
        model = load_model(Path(f"models/{encoder}/seed.safetensors")).model
        stores = {
            name: EmbeddingStore.open(Path(f"data/embeddings/{encoder}/{name}.zarr")) for name in params.conditions
        }
        whole = np.all([store.status == 1 for store in stores.values()], axis=0)
        raw = {name: store.read()[whole][:, :, 0] for name, store in stores.items()}
        names = [name for name, ok in zip(stores["clean"].utterances, whole, strict=True) if ok]
        trials = make_all_pairs([str(speakers[name]) for name in names], TRIALS, params.seed)
        trust, _ = domain_confidence(model, raw["clean"].reshape(-1, model.dim))
        how = Sampling(**params.enhance.sampling())
        if how.strength is None:
            how = replace(how, strength=float(model.strength) * trust if strength is None else strength)
        for draws in (0, 1, 8):
            found = np.array(
                [rates(model, raw, replace(how, noise=draws), seed, trials) for seed in range(seeds if draws else 1)]
            )
            cells = [
                f"{found[:, at].mean():.2f} | {found[:, at].min():.2f} to {found[:, at].max():.2f}" for at in (0, 1)
            ]
            print(f"| {encoder} | {draws} | {' | '.join(cells)} |", flush=True)


def rates(model: object, raw: dict[str, np.ndarray], how: Sampling, seed: int, trials: Trials) -> tuple[float, float]:
    """Return the EER on clean speech and the mean over the noisy conditions, in percent."""
    sides = {}
    for number, (name, values) in enumerate(raw.items()):
        flat = enhance_vectors(model, values.reshape(-1, values.shape[2]), how, seed + 1000 * number)  # type: ignore[arg-type]
        sides[name] = mean_units(unit_crops(flat.reshape(values.shape)))
    scores = {name: (sides["clean"] @ side.T)[trials.enrol, trials.test] for name, side in sides.items()}
    eers = {name: 100 * eer(roc_of(found, trials.target)) for name, found in scores.items()}
    return eers.pop("clean"), float(np.mean(list(eers.values())))


if __name__ == "__main__":
    main()
