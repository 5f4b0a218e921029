"""Measure the speed of scoring and of its metrics, each against a plain implementation, in one run.

    python -m benchmarks.scoring           (all of them, and the AS-norm of benchmarks.backends, one after another)
    python -m benchmarks.scoring rates     [--trials 10000000] [--targets 0.05]
    python -m benchmarks.scoring cosine    [--trials 550000] [--utterances 5000]
    python -m benchmarks.scoring pairwise  [--trials 100000] [--crops 10]
    python -m benchmarks.scoring stream    [--trials 20000000] [--utterances 20000]
    python -m benchmarks.scoring bootstrap [--trials 550000] [--speakers 1000]

`rates` measures the EER and two minDCFs, against scikit-learn's `roc_curve` and the minima on it. Memory is the growth
of the process to its peak. `cosine` scores trials with D = 192, against a loop over trials. `pairwise` measures
distances between ten crops per side, against a plain loop over trials and crops, and against loops over trials that
take all crops at once, including the published ones. `stream` writes a list and a store to disk, and runs `seed score`
on them in its own process. `bootstrap` draws speakers 1,000 times, for the EER with and without two minDCFs and for the
difference of two systems, against `roc_curve` on the weighted trials of each draw. Each prints yes or NO for its limit.
Pin the process to one core, for example with `taskset`.
"""

import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TypeVar

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")  # before NumPy is imported

import click  # noqa: E402
import numpy as np  # noqa: E402
from numpy.typing import NDArray  # noqa: E402

from pipeline.config.score import STANDARD  # noqa: E402
from pipeline.data.trials.table import Trials  # noqa: E402
from pipeline.metrics import Ranking, eer, interval, min_dcf, p_value, replicates, roc_of  # noqa: E402
from pipeline.scoring.comparison import (  # noqa: E402
    cosine_scores,
    pairwise_scores,
)

GB = 10**9
STATISTICS = [eer, *(partial(min_dcf, point=point) for point in STANDARD)]

T = TypeVar("T")


def peak() -> float:
    """Return the peak resident memory of this process, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def timed(work: Callable[[], T]) -> tuple[T, float]:
    start = perf_counter()
    result = work()
    return result, perf_counter() - start


def head(*columns: str) -> None:
    print("| " + " | ".join(columns) + " |")
    print("|" + "---|" * len(columns))


def verdict(kept: bool, limit: str) -> None:
    print(f"\n{limit}: {'yes' if kept else 'NO'}")


def some_scores(count: int, targets: float) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return normal scores, drawn in blocks to keep the peak memory low."""
    rng = np.random.default_rng(0)
    scores, target = np.empty(count, dtype=np.float32), np.empty(count, dtype=np.bool_)
    for start in range(0, count, 100_000):
        part = slice(start, start + 100_000)
        target[part] = rng.random(len(target[part])) < targets
        scores[part] = rng.standard_normal(len(target[part])) + 2 * target[part]
    return scores, target


@click.group(invoke_without_command=True)
@click.pass_context
def main(context: click.Context) -> None:
    """Measure scoring. Without a command: everything, one after another."""
    if context.invoked_subcommand is None:
        commands = [("scoring", name) for name in ("rates", "cosine", "pairwise", "bootstrap", "stream")]
        for module, name in [
            *commands,
            ("backends", "norm"),
        ]:  # in separate processes, because a peak is that of a process
            print(f"## {name}\n", flush=True)
            subprocess.run([sys.executable, "-m", f"benchmarks.{module}", name], check=True)
            print(flush=True)


@main.command()
@click.option("--trials", default=10_000_000, show_default=True)
@click.option("--targets", default=0.05, show_default=True, help="Share of target trials.")
@click.option("--repeats", default=3, show_default=True)
def rates(trials: int, targets: float, repeats: int) -> None:
    """Measure the EER and two minDCFs of many scores."""
    scores, target = some_scores(trials, targets)

    def ours() -> list[float]:
        roc = roc_of(scores, target)
        return [statistic(roc) for statistic in STATISTICS]

    def plain() -> list[float]:
        from sklearn.metrics import roc_curve

        false_alarm, hit, _ = roc_curve(target, scores)
        miss = 1 - hit
        costs = [np.min(p * miss + (1 - p) * false_alarm) / p for p in (0.01, 0.05)]
        return [float(false_alarm[np.argmin(np.abs(miss - false_alarm))]), *map(float, costs)]

    print(f"{trials:,} scores, {target.sum():,} of targets; best of {repeats}\n")
    head("", "s", "extra peak, GB", "EER, %", "minDCF 0.01", "minDCF 0.05")
    times = []
    before, extra = peak(), 0.0
    for name, work in (("ours", ours), ("scikit-learn", plain)):
        results, taken = zip(*(timed(work) for _ in range(repeats)), strict=True)
        times.append(min(taken))
        extra = extra or (peak() - before) / GB  # a process has one peak, so ours runs first
        memory = f"{extra:.2f}" if name == "ours" else ""
        rate, *costs = results[0]
        print(f"| {name} | {min(taken):.2f} | {memory} | {100 * rate:.3f} | {costs[0]:.4f} | {costs[1]:.4f} |")
    print(f"\nratio {times[1] / times[0]:.1f}")
    verdict(times[0] < 4 and extra < 1, "under 4 s and under 1 GB")


@main.command()
@click.option("--trials", default=550_000, show_default=True)
@click.option("--utterances", default=5_000, show_default=True)
@click.option("--dim", default=192, show_default=True)
@click.option("--repeats", default=3, show_default=True)
def cosine(trials: int, utterances: int, dim: int, repeats: int) -> None:
    """Measure the cosines of trials between unit vectors in memory."""
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((utterances, dim), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    listed = Trials(*rng.integers(utterances, size=(2, trials)), np.zeros(trials, dtype=np.bool_))
    few = listed.keep(np.arange(trials) < 20_000)

    def plain() -> list[float]:
        return [float(np.dot(vectors[a], vectors[b])) for a, b in zip(few.enrol, few.test, strict=True)]

    runs = [timed(lambda: cosine_scores(vectors, vectors, listed)) for _ in range(repeats)]
    loops = [timed(plain) for _ in range(repeats)]
    assert np.allclose(runs[0][0][: len(few)], loops[0][0], atol=1e-6)
    ours, loop = trials / min(taken for _, taken in runs), len(few) / min(taken for _, taken in loops)
    print(f"{trials:,} trials of {utterances:,} utterances, D = {dim}; best of {repeats}\n")
    print(f"trials/s: {ours:,.0f}; in a loop {loop:,.0f}; ratio {ours / loop:.1f}")
    verdict(ours >= 500_000, "at least 500,000 trials/s")


@main.command()
@click.option("--trials", default=100_000, show_default=True)
@click.option("--crops", default=10, show_default=True, help="Number of crops per utterance.")
@click.option("--dim", default=192, show_default=True)
@click.option("--repeats", default=3, show_default=True)
def pairwise(trials: int, crops: int, dim: int, repeats: int) -> None:
    """Measure distances between all crops of both sides."""
    import torch

    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    units = rng.standard_normal((2_000, crops, dim), dtype=np.float32)
    units /= np.linalg.norm(units, axis=2, keepdims=True)
    enrol = rng.integers(len(units), size=trials)
    listed = Trials(enrol, (enrol + rng.integers(1, len(units), size=trials)) % len(units), None)
    few = listed.keep(np.arange(trials) < 5_000)

    feats = {str(row): torch.from_numpy(crops) for row, crops in enumerate(units)}
    pairs = [(str(a), str(b)) for a, b in zip(few.enrol, few.test, strict=True)]
    normal = partial(torch.nn.functional.normalize, p=2, dim=1)

    def seed() -> list[float]:
        """Score as SEED's evaluation does (kaistmm/seed-pytorch, task.py), and clovaai/voxceleb_trainer today."""
        found = []
        for a, b in pairs:
            left, right = normal(feats[a].float()), normal(feats[b].float())
            distances = torch.cdist(left.reshape(-1, dim), right.reshape(-1, dim)).detach().cpu().numpy()
            found.append(-1 * np.mean(distances))
        return found

    def trainer() -> list[float]:
        """Score as clovaai/voxceleb_trainer did before (SpeakerNet.py), with axes for the norms of current torch."""
        found = []
        for a, b in pairs:
            left, right = normal(feats[a]).unsqueeze(1), normal(feats[b]).unsqueeze(0)
            distances = torch.nn.functional.pairwise_distance(left, right).detach().cpu().numpy()
            found.append(-1 * np.mean(distances))
        return found

    def bare() -> list[float]:
        return [-torch.cdist(feats[a], feats[b]).mean().item() for a, b in pairs]

    def plain() -> list[float]:
        rows = zip(few.enrol, few.test, strict=True)
        return [-np.linalg.norm(units[a][:, None] - units[b], axis=2).mean() for a, b in rows]

    def products() -> list[float]:
        rows = zip(few.enrol, few.test, strict=True)
        return [-np.sqrt(np.maximum(2 - 2 * units[a] @ units[b].T, 0)).mean() for a, b in rows]

    def crop_by_crop() -> list[float]:
        found = []
        for a, b in list(zip(few.enrol, few.test, strict=True))[:500]:
            found.append(-sum(np.linalg.norm(x - y) for x in units[a] for y in units[b]) / crops**2)
        return found

    side = int(trials**0.5)
    every = Trials(*np.indices((side, side)).reshape(2, -1), None)
    ours: dict[str, list[float]] = {"all pairs of some utterances": [], "pairs at random": []}
    loops = {
        "crop by crop": crop_by_crop,
        "SEED's evaluation": seed,
        "voxceleb_trainer, earlier": trainer,
        "torch.cdist alone": bare,
        "NumPy, differences": plain,
        "NumPy, matrix products": products,
    }
    theirs: dict[str, list[float]] = {name: [] for name in loops}
    for _ in range(repeats):  # in turn, so that load affects all of them
        for these, speeds in zip((every, listed), ours.values(), strict=True):
            scores, taken = timed(partial(pairwise_scores, units, units, these))
            speeds.append(len(these) / taken)
        for name, loop in loops.items():
            reference, taken = timed(loop)
            assert np.allclose(scores[: len(reference)], reference, atol=1e-5)
            theirs[name].append(len(reference) / taken)
    print(f"{trials:,} trials of {crops} x {crops} crops, D = {dim}; best of {repeats}\n")
    head("", "trials/s", *(f"ratio, {name}" for name in ours))
    for name, speeds in ours.items():
        print(f"| ours, {name} | {max(speeds):,.0f} | | |")
    for name, speeds in theirs.items():
        ratios = " | ".join(f"{max(mine) / max(speeds):.0f}" for mine in ours.values())
        print(f"| loop, {name} | {max(speeds):,.0f} | {ratios} |")
    for name, mine in ours.items():
        kept = max(mine) >= 100 * max(theirs["crop by crop"])
        verdict(kept, f"{name}: at least 100 times a plain loop over trials and crops")


@main.command()
@click.option("--trials", default=20_000_000, show_default=True)
@click.option("--utterances", default=20_000, show_default=True)
@click.option("--dim", default=192, show_default=True)
@click.option("--format", "form", type=click.Choice(["csv", "kaldi", "txt"]), default="csv", show_default=True)
def stream(trials: int, utterances: int, dim: int, form: str) -> None:
    """Measure `seed score`, from a list on disk to scores on disk."""
    from pipeline.store.schema import OK
    from pipeline.store.writer import write_store

    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ids = [f"id{row // 20:05}/{rng.bytes(6).hex()}/{row % 20:05}.wav" for row in range(utterances)]
        centres = np.repeat(rng.standard_normal((utterances // 20 + 1, 1, 1, dim)), 20, axis=0)[:utterances]
        values = (centres + rng.standard_normal((utterances, 1, 1, dim))).astype(np.float32)
        attributes = {"encoder": "normal", "weights_sha256": "", "dim": dim}
        write_store(folder / "s.zarr", ids, values, np.full(utterances, OK, dtype=np.uint8), attributes)
        with (folder / "trials.txt").open("w") as file:
            for start in range(0, trials, 100_000):
                size = min(100_000, trials - start)
                enrol = rng.integers(utterances, size=size)
                near = np.minimum(enrol // 20 * 20 + rng.integers(20, size=size), utterances - 1)
                test = np.where(rng.random(size) < 0.1, near, rng.integers(utterances, size=size))
                pairs = zip(enrol.tolist(), test.tolist(), strict=True)
                file.writelines(f"{int(a // 20 == b // 20)} {ids[a]} {ids[b]}\n" for a, b in pairs)
        store, listed, out = (str(folder / each) for each in ("s.zarr", "trials.txt", "out"))
        command = ["score", "--enrol", store, "--test", store, "--trials", listed, "--out", out, "--format", form]
        start = perf_counter()
        subprocess.run([sys.executable, "-m", "stages.cli", *command], check=True)
        taken = perf_counter() - start
        most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        read, wrote = (folder / "trials.txt").stat().st_size, sum(path.stat().st_size for path in Path(out).iterdir())
    per_trial = 14  # bytes: score and label, and sorted copies of the scores while they are measured
    whole = most + per_trial * max(0, 100_000_000 - trials)
    hours = taken * 100_000_000 / trials / 3600
    print(f"{trials:,} trials of {utterances:,} utterances, D = {dim}")
    print(f"list {read / GB:.2f} GB, results {wrote / GB:.2f} GB\n")
    print(f"{taken:.0f} s, {trials / taken:,.0f} trials/s, peak {most / GB:.2f} GB")
    print(f"100 million: {hours:.2f} h, {whole / GB:.2f} GB")
    verdict(hours < 1 and whole < 2 * GB, "100 million in under an hour and under 2 GB")


@main.command()
@click.option("--trials", default=550_000, show_default=True)
@click.option("--speakers", default=1_000, show_default=True)
@click.option("--targets", default=0.035, show_default=True, help="Share of target trials.")
@click.option("--resamples", default=1_000, show_default=True)
@click.option(
    "--plain",
    default=10,
    show_default=True,
    help="Number of resamples for the plain implementation, to extrapolate from.",
)
def bootstrap(trials: int, speakers: int, targets: float, resamples: int, plain: int) -> None:
    """Measure the bootstrap over speakers."""
    scores, target = some_scores(trials, targets)
    rng = np.random.default_rng(1)
    enrol = rng.integers(speakers, size=trials)
    test = np.where(target, enrol, (enrol + rng.integers(1, speakers, size=trials)) % speakers)
    better = scores + np.float32(0.1) * target + rng.normal(0, 0.5, size=trials).astype(np.float32)

    def run(systems: list[NDArray[np.float32]], statistics: list[Callable[[object], float]]) -> NDArray[np.float64]:
        return replicates([Ranking.from_scores(one, target) for one in systems], enrol, test, statistics, resamples, 0)

    def weighted() -> list[float]:
        from sklearn.metrics import roc_curve

        draws, rates = np.random.default_rng(0), []
        for _ in range(plain):
            times = np.bincount(draws.integers(speakers, size=speakers), minlength=speakers)
            weights = np.where(enrol == test, times[enrol], times[enrol] * times[test])
            false_alarm, hit, _ = roc_curve(target, scores, sample_weight=weights)
            rates.append(float(false_alarm[np.argmin(np.abs(1 - hit - false_alarm))]))
        return rates

    print(f"{trials:,} trials, {target.sum():,} of targets, {speakers:,} speakers, {resamples:,} resamples\n")
    head("", "s", "95 % interval of the EER, %")
    results = {}
    for name, systems, statistics in (
        ("EER", [scores], [eer]),
        ("EER and two minDCFs", [scores], STATISTICS),
        ("EER of two systems", [scores, better], [eer]),
    ):
        results[name] = timed(partial(run, systems, statistics))
        drawn, taken = results[name]
        low, high = interval(100 * drawn[:, 0, 0])
        print(f"| {name} | {taken:.1f} | {low:.3f} to {high:.3f} |", flush=True)
    reference, taken = timed(weighted)
    drawn, ours = results["EER"]
    assert np.allclose(reference, drawn[:plain, 0, 0], atol=2e-4)  # roc_curve gives the nearest point, not the crossing
    slow = taken / plain * resamples
    print(f"| EER by scikit-learn's roc_curve, from {plain} resamples | {slow:.0f} | |")
    two = results["EER of two systems"][0][:, :, 0]
    low, high = interval(100 * (two[:, 1] - two[:, 0]))
    print(f"\ndifference {low:+.3f} to {high:+.3f} points, p = {p_value(two[:, 1] - two[:, 0]):.3f}")
    print(f"ratio {slow / ours:.1f}")
    verdict(results["EER and two minDCFs"][1] < 60, "under 60 s")


if __name__ == "__main__":
    main()
