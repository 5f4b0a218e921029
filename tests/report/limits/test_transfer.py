"""Reductions of the EER, and how much of them is kept, against the figures of `metrics.compare`."""

import numpy as np
import pytest
from sklearn.metrics.pairwise import cosine_similarity

from pipeline.data.trials.table import make_all_pairs
from pipeline.metrics import compare
from pipeline.report.limits.transfer import TransferGroup, make_unit_vectors, measure_group, measure_retained

SPEAKERS = [f"s{row // 4:02}" for row in range(48)]
CENTRES = np.repeat(np.random.default_rng(0).standard_normal((12, 1, 8)), 4, axis=0)


def group(name: str, spread: float) -> TransferGroup:
    """Vectors whose last four dimensions are worse the noisier they are."""
    rng = np.random.default_rng(1)
    weights = np.array([1.0] * 4 + [4.0] * 4)
    vectors = {
        condition: (CENTRES + noise * weights * rng.standard_normal((48, 2, 8))).astype(np.float32)
        for condition, noise in (("clean", 0.1), ("noise5", spread), ("reverb", spread / 2))
    }
    return TransferGroup(name, vectors, SPEAKERS)


def halved(crops: np.ndarray) -> np.ndarray:
    """An enhancer that leaves the last dimensions out of account."""
    return crops * np.array([1.0] * 4 + [0.1] * 4, dtype=np.float32)


def test_reductions_are_those_of_the_same_trials() -> None:
    results, drawn = measure_group(group("near", 0.5), halved, 10_000, 40, 0)
    assert [(row.group, row.condition) for row in results] == [
        ("near", name) for name in ("clean", "noise5", "reverb", "mean")
    ]
    trials = make_all_pairs(SPEAKERS, 10_000, 0)
    numbers = np.arange(48) // 4
    found, rates = {}, []
    for row in results[1:3]:
        scores = {}
        for system, mapped in (("raw", lambda same: same), ("seed", halved)):
            both = [mapped(group("near", 0.5).vectors[name]) for name in ("clean", row.condition)]
            units = [np.mean(each / np.linalg.norm(each, axis=2, keepdims=True), axis=1) for each in both]
            scores[system] = cosine_similarity(*units)[trials.enrol, trials.test]
        table, _, made = compare(scores, trials.target, (numbers[trials.enrol], numbers[trials.test]), (), 40, 0)
        assert made is not None
        found[row.condition] = made[:, :, 0]
        raw, seed = (table[name]["eer"] for name in ("raw", "seed"))
        rates.append((raw, seed))
        assert seed < raw
        assert (row.raw[0], row.seed[0]) == pytest.approx((raw, seed), abs=0.02)
        assert row.raw[1:] == pytest.approx(table["raw"]["eer_ci"], abs=0.05)
        assert row.reduction[0] == pytest.approx(1 - seed / raw, abs=0.01)
        ends = np.quantile(1 - made[:, 1, 0] / made[:, 0, 0], [0.025, 0.975])
        assert row.reduction[1:] == pytest.approx(ends, abs=0.02)
        assert row.targets == 48 * 3
        assert row.gap > 0
    mean = results[3]
    assert mean.raw[0] == pytest.approx(np.mean([raw for raw, _ in rates]), abs=0.02)
    joint = np.mean(list(found.values()), axis=0)
    np.testing.assert_allclose(drawn["near", "mean"], 1 - joint[:, 1] / joint[:, 0], atol=0.01)


def test_what_is_kept_is_a_ratio_of_reductions() -> None:
    near, far = (
        measure_group(group(name, spread), halved, 10_000, 40, 0) for name, spread in (("near", 0.5), ("far", 0.9))
    )
    results, drawn = near[0] + far[0], near[1] | far[1]
    found = measure_retained(results, drawn, [("near", "far"), ("near", "nowhere")])
    assert [row.condition for row in found] == ["noise5", "reverb", "mean"]
    at = {(row.group, row.condition): row.reduction[0] for row in results}
    for row in found:
        assert row.share[0] == pytest.approx(at["far", row.condition] / at["near", row.condition])
        assert row.share[1] <= row.share[0] <= row.share[2]
    alike = measure_retained(results, drawn, [("near", "near")])
    assert alike[0].share == pytest.approx((1, 1, 1))


def test_sides_are_unit_vectors_raw_and_enhanced() -> None:
    raw, seed = make_unit_vectors(group("near", 0.5), "noise5", halved)
    for side in (*raw, *seed):
        np.testing.assert_allclose(np.linalg.norm(side, axis=1), 1, rtol=1e-6)
    assert np.abs(seed[1][:, 4:]).mean() < 0.5 * np.abs(raw[1][:, 4:]).mean()
