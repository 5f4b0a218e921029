import json

import numpy as np
import pytest

from pipeline.config.score import STANDARD, OperatingPoint
from pipeline.errors import TrialError
from pipeline.metrics import by_group, compare, eer, figures, histogram, operating, roc_of
from tests.metrics.strategies import gaussian
from tests.metrics.test_bootstrap import trials


def test_figures_are_percent_and_counts() -> None:
    result, _ = figures(np.array([0.9, 0.2, 0.3, 0.1]), np.array([True, True, False, False]))
    # Ranked N T N T: PAV joins the middle two, whose segment of the hull runs from (0, 1/2) to (1/2, 0).
    assert result == {
        "eer": 50.0,
        "eer_rocch": 25.0,
        "min_dcf_0.01": 0.5,
        "min_dcf_0.05": 0.5,
        "min_cllr": pytest.approx(0.5),
        "targets": 2,
        "nontargets": 2,
    }


def test_calibration_is_measured_of_calibrated_scores_only() -> None:
    scores, target = gaussian(2.0, 1000)
    point = OperatingPoint(p_target=0.5)
    plain, _ = figures(scores, target, [point])
    assert {"eer", "eer_rocch", "min_dcf_0.5", "min_cllr", "targets", "nontargets"} == set(plain)
    calibrated, _ = figures(scores, target, [point], calibrated=True)
    assert set(calibrated) - set(plain) == {"cllr", "act_dcf_0.5"}
    assert calibrated["min_cllr"] <= calibrated["cllr"]


def test_groups_are_measured_by_themselves_and_one_class_is_said() -> None:
    scores, target = gaussian(1.0, 300)
    names = np.array(["m", "f", "child"])[np.arange(600) % 2]
    names[target & (np.arange(600) % 3 == 0)] = "child"
    result = by_group(scores, target, names)
    assert list(result) == ["child", "f", "m"]
    assert result["child"] == {"targets": 100, "nontargets": 0}
    chosen = names == "f"
    assert result["f"] == figures(scores[chosen], target[chosen])[0]
    assert sum(group["targets"] for group in result.values()) == 300
    with pytest.raises(TrialError, match="2 group labels of 600 trials"):
        by_group(scores, target, ["a", "b"])


def test_histograms_share_edges_and_hold_every_trial() -> None:
    scores, target = gaussian(2.0, 500)
    edges, targets, nontargets = histogram(scores.astype(np.float32), target, 20)
    assert (len(edges), len(targets), len(nontargets)) == (21, 20, 20)
    assert (targets.sum(), nontargets.sum()) == (500, 500)
    inside = (scores >= edges[10]) & (scores < edges[11])
    assert targets[10] == (inside & target).sum()


@pytest.mark.parametrize("scores", [(1.0000000000000002, 1.0), (5e-324, 0.0), (1e29, -1e29), (3.0, 3.0), (1e30, 1e30)])
def test_histograms_of_scores_close_together_or_far_apart(scores: tuple[float, float]) -> None:
    edges, targets, nontargets = histogram(np.array(scores), np.array([True, False]))
    assert (np.diff(edges) > 0).all()
    assert (targets.sum(), nontargets.sum()) == (1, 1)


def test_scores_that_overflow_are_refused() -> None:
    with pytest.raises(TrialError, match=r"scores reach 1e\+308; those beyond 1e\+30 cannot be measured"):
        histogram(np.array([0.5, 0.1, 1e308, -1e308]), np.array([True, False, True, False]))


def test_rates_and_thresholds_in_percent_and_without_infinities() -> None:
    scores, target = gaussian(2.0, 5000)
    scores[0] = scores.min() - 1  # a target below all else, to be accepted where misses are dear
    points = [OperatingPoint(p_target=0.01), OperatingPoint(p_target=0.999999)]
    result = operating(roc_of(scores, target), scores, target, points, [1, 0.1], [5])
    thresholds = {"eer_threshold", "min_dcf_0.01_threshold", "min_dcf_0.999999_threshold"}
    assert set(result) == thresholds | {"frr_at_far_1", "frr_at_far_0.1", "far_at_frr_5"}
    assert result["min_dcf_0.999999_threshold"] is None
    assert json.dumps(result, allow_nan=False)
    assert 100 * eer(roc_of(scores, target)) < result["frr_at_far_1"] < result["frr_at_far_0.1"]
    assert result["frr_at_far_1"] == pytest.approx(62.8, abs=3)  # Phi(2.326 - 2)


def test_every_system_is_compared_with_the_first() -> None:
    scores, target, enrol, test = trials(15, 3, 0)
    systems = {"raw": scores, "same": scores.copy(), "seed": scores + 0.8 * target}
    table, rocs, _ = compare(systems, target, (enrol, test), STANDARD, 100, 0, costs=True)
    assert list(table) == list(rocs) == list(systems)
    assert not any("difference" in key or "p_value" in key for key in table["raw"])
    assert (table["same"]["eer_difference"], table["same"]["p_value"]) == (0, 1)
    assert table["same"]["eer_difference_ci"] == [0, 0]
    seed = table["seed"]
    assert seed["eer_difference"] == seed["eer"] - table["raw"]["eer"] < 0
    assert seed["eer_difference_ci"][0] < seed["eer_difference"] < seed["eer_difference_ci"][1] < 0
    assert seed["p_value"] == 2 / 101
    assert seed["min_dcf_0.01_difference"] <= 0
    assert 0 < seed["min_dcf_0.01_p_value"] <= 1
    assert seed["eer_ci"][0] < seed["eer"] < seed["eer_ci"][1]
    assert table == compare(systems, target, (enrol, test), STANDARD, 100, 0, costs=True)[0]


def test_without_speakers_or_resamples_there_are_differences_but_no_intervals() -> None:
    scores, target, enrol, test = trials(5, 3, 0)
    systems = {"raw": scores, "seed": scores + target}
    for speakers, resamples in ((None, 100), ((enrol, test), 0)):
        table, _, _ = compare(systems, target, speakers, STANDARD, resamples)
        assert "eer_difference" in table["seed"]
        assert not any(key.endswith("_ci") or "p_value" in key for row in table.values() for key in row)
    assert not any("min_dcf" in key and "difference" in key for key in table["seed"])
