"""Measure the cost of the speech enhancement front-end, in comparison with the encoders behind it.

    python -m benchmarks.denoise [--encoder ge2e --encoder campplus] [--audio FOLDER]

Real-time factors are seconds of one core per second of audio: medians of interleaved runs on the same crops, with short
crops in one batch and long crops one by one, as in an extraction. The front-end is measured as a whole, and its two
resamplings alone. The last column is the time of the front-end as a multiple of the encoder's. Crops are harmonics in
noise or, with --audio, the recordings below a folder, repeated or cut to length, with noise at 5 dB.
"""

import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from time import process_time

import click
import numpy as np
import soxr
import torch

from pipeline.audio.augment.corruptions.noise import add_at_snr
from pipeline.audio.denoise import RATE, load_denoiser
from pipeline.audio.reading import SAMPLE_RATE, Waveform, cut, read_audio
from pipeline.encoders.registry import load_encoder
from tests.conftest import voice

SHAPES = {"8 x 2.015 s": (8, 32_240, 8), "2 x 10 s": (2, 160_000, 1)}  # number of crops, samples, crops per batch


def crops(count: int, length: int, folder: Path | None) -> list[Waveform]:
    """Return `count` crops [S] at 16 kHz, with noise at 5 dB."""
    rng = np.random.default_rng(0)
    if folder:
        files = sorted(path for path in folder.rglob("*") if path.suffix in (".wav", ".flac"))
        clean = [cut(read_audio(path), 0, length) for path in files[:: max(1, len(files) // count)][:count]]
    else:
        clean = [voice(100 + 15 * n, length / SAMPLE_RATE, n)[:length] for n in range(count)]
    return [add_at_snr(wave, rng.standard_normal(len(wave)).astype(np.float32), 5.0) for wave in clean]


def measure(candidates: Mapping[str, Callable[[], object]], seconds: float, repeats: int) -> dict[str, float]:
    """Return the real-time factor of each candidate. Candidates run in turn, so that load affects all of them."""
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for run in range(repeats + 1):
        for name, work in candidates.items():
            started = process_time()
            work()
            if run:  # the first run is a warm-up
                times[name].append(process_time() - started)
    return {name: statistics.median(taken) / seconds for name, taken in times.items()}


@click.command()
@click.option("--encoder", "encoders", multiple=True, default=("ge2e", "campplus"), show_default=True)
@click.option("--audio", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Folder of recordings.")
@click.option(
    "--repeats", type=click.IntRange(min=1), default=7, show_default=True, help="Number of runs of each candidate."
)
def main(encoders: tuple[str, ...], audio: Path | None, repeats: int) -> None:
    """Measure the front-end and the encoders."""
    torch.set_num_threads(1)
    denoiser = load_denoiser("rnnoise")
    assert denoiser
    loaded = {name: load_encoder(name) for name in encoders}
    print("| crops | what | real-time factor | front-end as a multiple of it |")
    print("|---|---|---:|---:|")
    for label, (count, length, together) in SHAPES.items():
        waves = crops(count, length, audio)
        tensors = [torch.from_numpy(wave) for wave in waves]
        candidates: dict[str, Callable[[], object]] = {
            denoiser.name: lambda waves=waves: [denoiser(wave) for wave in waves],
            "its resampling": lambda waves=waves: [
                soxr.resample(soxr.resample(wave, SAMPLE_RATE, RATE), RATE, SAMPLE_RATE) for wave in waves
            ],
        }
        for name, encoder in loaded.items():
            passes = [tensors[start : start + together] for start in range(0, count, together)]
            candidates[name] = lambda encoder=encoder, passes=passes: [encoder(each) for each in passes]
        factors = measure(candidates, count * length / SAMPLE_RATE, repeats)
        for name, factor in factors.items():
            times = f"{factors[denoiser.name] / factor:.1f}" if name in loaded else ""
            print(f"| {label} | {name} | {factor:.4f} | {times} |", flush=True)


if __name__ == "__main__":
    main()
