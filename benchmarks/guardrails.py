"""Measure what the guardrails of `Enhancer` flag: speech like the training data, other noise, encoders and lengths.

    python -m benchmarks.guardrails models/ge2e/seed.safetensors data/embeddings/ge2e

Uses the stores of a folder, except train.zarr, whose speakers are new to the model. Other encoders are simulated by the
clean vectors with permuted dimensions, after a random rotation, and after a random linear map and a ReLU. All are
scaled to the length of the clean vectors, so that the length does not reveal them.
"""

import warnings
from pathlib import Path

import click
import numpy as np

from pipeline import EmbeddingStore, Enhancer
from pipeline.errors import SeedWarning


@click.command()
@click.argument("model", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("stores", type=click.Path(exists=True, file_okay=False, path_type=Path))
def main(model: Path, stores: Path) -> None:
    """Measure, and print Markdown tables."""
    warnings.simplefilter("ignore", SeedWarning)
    enhancer, rng = Enhancer.load(model), np.random.default_rng(0)
    sets = {path.stem: vectors(path) for path in sorted(stores.glob("*.zarr")) if path.stem != "train"}
    clean, dim = sets["clean"], enhancer.dim
    lengths = np.linalg.norm(clean, axis=1, keepdims=True)
    others = {
        "dimensions in another order": clean[:, rng.permutation(dim)],
        "turned at random": clean @ np.linalg.qr(rng.standard_normal((dim, dim)))[0],
        "a random map and ReLU": np.maximum(clean @ rng.standard_normal((dim, dim)), 0),
    }
    for name, each in others.items():
        sets[name] = (each * lengths / np.linalg.norm(each, axis=1, keepdims=True)).astype(np.float32)
    assert enhancer.model.training_stats
    print(f"flagged above an atypicality of {enhancer.model.training_stats.atypicality:.2f}\n")
    print(
        "| vectors | flagged, % | atypicality, least | median | most | moved, median |\n|---|---:|---:|---:|---:|---:|"
    )
    for name, each in sets.items():
        _, info = enhancer.enhance(each, return_info=True)
        far = " | ".join(f"{value:.2f}" for value in np.percentile(info.atypicality, (0, 50, 100)))
        print(f"| {name} | {100 * info.out_of_distribution.mean():.1f} | {far} | {np.median(info.moved):.3f} |")
    noisy = np.concatenate([each for name, each in sets.items() if name not in others and name != "clean"])
    right = enhancer.enhance(noisy)
    print("\n| factor on noisy vectors | cosine distance to the right result, median | warning |\n|---|---:|---|")
    for factor in (0.1, 0.5, 0.7, 1.5, 2.0, 3.0, dim**0.5):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", SeedWarning)
            out = enhancer.enhance((factor * noisy).astype(np.float32))
        cosine = (unit(out) * unit(right)).sum(axis=1)
        print(f"| {factor:g} | {1 - np.median(cosine):.3f} | {'yes' if caught else 'no'} |")


def vectors(path: Path) -> np.ndarray:
    """Return the vectors [N, D] of a store."""
    store = EmbeddingStore.open(path)
    return store.read()[store.ok].reshape(-1, store.dim)


def unit(each: np.ndarray) -> np.ndarray:
    """Return vectors [N, D] at unit length."""
    return each / np.linalg.norm(each, axis=1, keepdims=True)


if __name__ == "__main__":
    main()
