from typing import Any

from pipeline.report.notes import list_notes


def content(strength: float, atypicality: float = 1.0, **protocol: Any) -> dict[str, Any]:
    """Metrics of raw and enhanced vectors in two conditions."""
    enhanced = {"sampling": {"strength": strength, "seed": 0}, "atypicality": atypicality}
    stores = [{"role": f"{name}/{which}"} | more for name, more in (("raw", {}), ("seed", enhanced)) for which in "ab"]
    return {"protocol": {"stores": [*stores, {"role": "cohort"}], **protocol}, "results": {}}


def curve(*losses: float) -> list[dict[str, str | float]]:
    return [{"epoch": float(epoch), "validation_loss": loss} for epoch, loss in enumerate(losses)]


def test_a_model_that_works_needs_no_note() -> None:
    assert list_notes(content(0.8), curve(2.0, 1.0, 1.5)) == []
    assert list_notes({"protocol": {}, "results": {}}, []) == []


def test_a_strength_of_zero_is_said_with_its_reason_and_the_next_command() -> None:
    (note,) = list_notes(content(0.0, 2.5), [])
    assert "seed is NOT ENHANCED in a, b: the strength is 0" in note
    assert "unlike that of the training (atypicality 2.5; usual is 1)" in note
    assert "`seed enhance --adapt STORE`" in note
    (note,) = list_notes(content(0.0), [])
    assert "nothing was better than raw vectors on held-out speakers" in note


def test_a_strength_that_was_lowered_is_said() -> None:
    (note,) = list_notes(content(0.2, 1.6), [])
    assert note.startswith(
        "seed: the speech is unlike that of the training (atypicality 1.6; usual is 1), so the strength"
    )
    assert "only 0.20" in note


def test_a_training_without_any_gain_is_said() -> None:
    (note,) = list_notes(content(0.8), curve(1.0, 1.5, 2.0))
    assert note.startswith("The network was not trained: no epoch was better")


def test_warnings_of_the_measurement_are_in_the_report() -> None:
    assert list_notes(content(0.8, warnings=["1 of 3 trials left out"]), []) == ["1 of 3 trials left out"]
