"""Make docs/limits.md: the limits of the method, on a corpus that the pipeline has processed.

    python -m benchmarks.gap [--encoder ge2e --encoder campplus] [--utterances campplus=4] [--page docs/limits.md]

For every encoder, extracts additional stores into data/gap/<encoder>: a training store with noise of one SNR per view
(params/snr.yaml), and whole utterances, corrupted with training sounds, of test speakers and of training speakers
(those held out for validation, and some others). Then it runs `seed analyze gap`, and puts the figures below the marker
in the page, and the pictures beside it. Existing stores and results are kept.
"""

import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import click
import numpy as np

from pipeline.config.params import Params, read_params
from pipeline.data.manifest import Utterance, read_manifest, write_manifest
from pipeline.data.sets import SetLimits, limit_utterances
from pipeline.training.train import hold_out
from pipeline.utils.atomic import write_text

MORE, OUT = Path("data/gap"), Path("results/gap")
MARKER = "<!-- Figures from here on: python -m benchmarks.gap -->"


@click.command()
@click.option(
    "--encoder", "encoders", multiple=True, help="Encoder to analyse; repeatable.  [default: those of params.yaml]"
)
@click.option("--condition", "conditions", multiple=True, default=("noise5", "reverb", "music5"), show_default=True)
@click.option("--others", default=36, show_default=True, help="Number of training speakers besides those held out.")
@click.option(
    "--utterances",
    "limits",
    multiple=True,
    help="ENCODER=NUMBER of utterances per speaker in trainings at one SNR; repeatable.",
)
@click.option("--longer", type=int, help="As for `seed analyze gap`.")
@click.option("--page", type=click.Path(path_type=Path), default="docs/limits.md", show_default=True)
@click.option("--workers", default=2, show_default=True)
def main(
    encoders: tuple[str, ...],
    conditions: tuple[str, ...],
    others: int,
    limits: tuple[str, ...],
    longer: int | None,
    page: Path,
    workers: int,
) -> None:
    """Extract, analyse, and write the page."""
    params = read_params(Path("params.yaml"))
    train = read_manifest(Path("data/manifests/train.csv"))
    few = {name: int(number) for name, number in (limit.split("=") for limit in limits)}
    write_manifest(MORE / "train.csv", some_speakers(train, params, others))
    for encoder in encoders or params.encoders:
        rows = limit_utterances(train, SetLimits(None, few.get(encoder)))
        write_manifest(MORE / f"{encoder}.snr.csv", rows)
        extract(encoder, "train", MORE / f"{encoder}.snr.csv", MORE / encoder / "snr.zarr", workers, "params/snr.yaml")
        for condition in ("clean", *conditions):
            extract(encoder, condition, MORE / "train.csv", MORE / encoder / f"train/{condition}.zarr", workers)
        for condition in conditions:
            goal = MORE / encoder / f"test/{condition}.zarr"
            extract(encoder, condition, Path("data/manifests/clean.csv"), goal, workers)
    chosen = [part for encoder in encoders for part in ("--encoder", encoder)]
    chosen += ["--longer", str(longer)] if longer else []
    seed("analyze", "gap", "--more", MORE, "--out", OUT, *chosen)
    publish(page)


def some_speakers(train: Sequence[Utterance], params: Params, others: int) -> list[Utterance]:
    """Return the utterances of the speakers that the default training holds out, and of some others."""
    speakers: Mapping[str, str | None] = {row.utterance: row.speaker for row in train}
    rng = np.random.default_rng(params.seed)
    held, _ = hold_out(list(speakers), speakers, params.train.validation, rng)
    kept = {row.speaker for row, unseen in zip(train, held, strict=True) if unseen}
    rest = sorted({str(row.speaker) for row in train} - {str(name) for name in kept})
    kept |= set(rest[:: max(1, len(rest) // max(1, others))][:others])
    return [replace(row) for row in train if row.speaker in kept]


def extract(encoder: str, name: str, manifest: Path, out: Path, workers: int, params: str | None = None) -> None:
    """Encode a set, corrupted with training sounds."""
    lists = ("--manifest", manifest, "--augment", "data/manifests/train.augment.csv")
    given = ("--params", params) if params else ()
    seed("extract", "--encoder", encoder, "--set", name, *lists, "--out", out, "--workers", workers, *given)


def seed(*arguments: object) -> None:
    """Run a `seed` command, and stop if it fails."""
    subprocess.run([sys.executable, "-m", "stages.cli", *map(str, arguments)], check=True)


def publish(page: Path) -> None:
    """Put the figures below the marker of a page, and the pictures beside it."""
    text = (OUT / "limits.md").read_text(encoding="utf-8")
    before = page.read_text(encoding="utf-8").split(MARKER)[0] if page.exists() else "# Limits\n\n"
    for picture in sorted((OUT / "pictures").glob("limits-*.svg")):
        (page.parent / "pictures").mkdir(parents=True, exist_ok=True)
        shutil.copyfile(picture, page.parent / "pictures" / picture.name)
    write_text(page, f"{before}{MARKER}\n\n{text}")
    print(f"{page}: written")


if __name__ == "__main__":
    main()
