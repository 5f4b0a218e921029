"""Measure the speed of the scoring back-ends, each against a plain implementation, in one run.

    python -m benchmarks.backends norm        [--trials 550000] [--utterances 10000] [--cohort 6000] [--top 300]
    python -m benchmarks.backends plda        [--utterances 6000] [--speakers 600] [--trials 550000]
    python -m benchmarks.backends calibration [--trials 550000] [--systems 3]

`norm` normalises scores by AS-norm, against a loop that scores both sides of each trial against the cohort, timed on
some trials. Memory is the growth of the process to its peak. `plda` trains the model and scores trials, against a loop
over trials that computes the difference of two normal log densities. `calibration` fuses systems, against
LogisticRegression of scikit-learn. Pin the process to one core, for example with `taskset`.
"""

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")  # before NumPy is imported

import click  # noqa: E402
import numpy as np  # noqa: E402
from numpy.typing import NDArray  # noqa: E402

from benchmarks.scoring import GB, peak, timed, verdict  # noqa: E402
from pipeline.data.trials.table import Trials  # noqa: E402
from pipeline.scoring.backends import calibration as linear  # noqa: E402
from pipeline.scoring.backends.norm import compute_cohort_statistics, normalise_scores  # noqa: E402
from pipeline.scoring.backends.plda import fit_plda, score_trials  # noqa: E402
from pipeline.scoring.comparison import cosine_scores  # noqa: E402


def units(count: int, dim: int, rng: np.random.Generator) -> NDArray[np.float32]:
    vectors = rng.standard_normal((count, dim), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


@click.group()
def main() -> None:
    """Measure scoring back-ends."""


@main.command()
@click.option("--trials", default=550_000, show_default=True)
@click.option("--utterances", default=10_000, show_default=True)
@click.option("--cohort", default=6_000, show_default=True)
@click.option("--top", default=300, show_default=True)
@click.option("--dim", default=192, show_default=True)
@click.option(
    "--plain",
    default=1_000,
    show_default=True,
    help="Number of trials for the plain implementation, to extrapolate from.",
)
def norm(trials: int, utterances: int, cohort: int, top: int, dim: int, plain: int) -> None:
    """Measure AS-norm of many trials."""
    rng = np.random.default_rng(0)
    vectors, others = units(utterances, dim, rng), units(cohort, dim, rng)
    listed = Trials(*rng.integers(utterances, size=(2, trials)), None)
    scores = cosine_scores(vectors, vectors, listed)

    before = peak()
    (sides, first), memory = timed(lambda: compute_cohort_statistics(vectors, others, top=top)), (peak() - before) / GB
    given, second = timed(lambda: normalise_scores("as", scores, sides, sides, listed.enrol, listed.test))

    def loop() -> list[float]:
        results = []
        for enrol, test, score in zip(listed.enrol[:plain], listed.test[:plain], scores[:plain], strict=True):
            terms = []
            for row in (enrol, test):
                best = np.partition(others @ vectors[row], cohort - top)[-top:]
                terms.append((score - best.mean()) / best.std())
            results.append(sum(terms) / 2)
        return results

    reference, taken = timed(loop)
    assert np.allclose(given[:plain], reference, atol=1e-3)
    slow, ours = taken / plain * trials, first + second
    print(f"{trials:,} trials of {utterances:,} utterances, cohort of {cohort:,}, top {top}, D = {dim}\n")
    print(f"s: {ours:.2f} ({first:.2f} cohort, {second:.2f} trials), {memory:.2f} GB extra peak")
    print(f"cohort scored for each trial, from {plain:,} trials: {slow:.0f} s; ratio {slow / ours:.0f}")
    verdict(ours < 60 and memory < 1, "under 60 s and under 1 GB")


@main.command()
@click.option("--utterances", default=6_000, show_default=True, help="Number of training utterances.")
@click.option("--speakers", default=600, show_default=True)
@click.option("--dim", default=192, show_default=True)
@click.option("--trials", default=550_000, show_default=True)
@click.option("--iterations", default=20, show_default=True)
def plda(utterances: int, speakers: int, dim: int, trials: int, iterations: int) -> None:
    """Measure the training of PLDA, and scoring with it."""
    rng = np.random.default_rng(0)
    numbers = rng.integers(speakers, size=utterances)
    vectors = rng.standard_normal((speakers, dim), dtype=np.float32)[numbers]
    vectors += rng.standard_normal((utterances, dim), dtype=np.float32)
    listed = Trials(*rng.integers(utterances, size=(2, trials)), None)
    few = listed.keep(np.arange(trials) < 2_000)

    before = peak()
    model, training = timed(lambda: fit_plda(vectors, numbers, iterations))
    memory = (peak() - before) / GB
    marks, mapping = timed(lambda: model.represent(vectors))
    scores, scoring = timed(lambda: score_trials(marks, marks, listed))

    def loop() -> list[float]:
        assert model.length_norm is not None
        rows = model.length_norm(vectors.astype(np.float64)) - model.model.mean
        between, total = model.model.between, model.model.between + model.model.within
        joint = np.block([[total, between], [between, total]])
        apart, same = np.linalg.inv(total), np.linalg.inv(joint)
        constant = np.linalg.slogdet(total)[1] - np.linalg.slogdet(joint)[1] / 2
        results = []
        for enrol, test in zip(few.enrol, few.test, strict=True):
            one, other = rows[enrol], rows[test]
            pair = np.concatenate([one, other])
            results.append(constant + (one @ apart @ one + other @ apart @ other - pair @ same @ pair) / 2)
        return results

    reference, taken = timed(loop)
    assert np.allclose(scores[: len(few)], reference, atol=1e-2)
    ours, slow = trials / scoring, len(few) / taken
    print(f"{utterances:,} utterances of {speakers:,} speakers, D = {dim}, {iterations} steps; {trials:,} trials\n")
    print(f"s: {training:.2f} training, {mapping:.2f} mapping of {utterances:,}; {memory:.2f} GB extra peak")
    print(f"trials/s: {ours:,.0f}; densities in a loop {slow:,.0f}; ratio {ours / slow:.0f}")
    verdict(training < 60 and ours >= 500_000, "training under 60 s, at least 500,000 trials/s")


@main.command()
@click.option("--trials", default=550_000, show_default=True)
@click.option("--systems", default=3, show_default=True)
@click.option("--targets", default=0.035, show_default=True, help="Share of target trials.")
def calibration(trials: int, systems: int, targets: float) -> None:
    """Measure fusion of systems by logistic regression."""
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    target = rng.random(trials) < targets
    scores = rng.standard_normal((trials, systems)) + 2 * target[:, None]
    fitted, taken = timed(lambda: linear.fit_calibration(scores, target))
    weights = np.where(target, 0.5 / target.sum(), 0.5 / (~target).sum())
    plain = LogisticRegression(C=1e6, tol=1e-8, max_iter=1000)
    reference, slow = timed(lambda: plain.fit(scores, target, sample_weight=weights))
    assert np.allclose(fitted.apply(scores), reference.decision_function(scores), atol=1e-3)
    print(
        f"{trials:,} trials of {systems} systems\n\ns: {taken:.2f}; scikit-learn {slow:.2f}; ratio {slow / taken:.1f}"
    )
    verdict(taken < 60, "under 60 s")


if __name__ == "__main__":
    main()
