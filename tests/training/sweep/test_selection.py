from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.params import Params
from pipeline.training.sweep.grid import DataSubset, apply_changes, read_grid
from pipeline.training.sweep.selection import Selection, select_parameters
from pipeline.utils.validation import validated

GRIDS = Path(__file__).parents[3] / "params/comparison"


def row(
    parameters: dict[str, Any], clean: float, noisy: float, test: float = 5.0, seed: int = 0, of: str = "a"
) -> dict[str, Any]:
    held_out = {"held_out_clean_eer": clean, "held_out_noisy_eer": noisy, "held_out_raw_clean_eer": 5.0}
    held_out |= {"held_out_of": f"{of}{seed}", "held_out_speakers": len(of)}
    tests = {"test": {"clean": {"eer": test}, "mean noisy": {"eer": test}}}
    return {"parameters": parameters, "seed": seed} | tests | held_out


def test_the_lowest_noisy_eer_of_held_out_speakers_that_keeps_clean_speech_is_chosen() -> None:
    rows = [row({"a": 1}, 4.0, 9.0), row({"a": 1}, 5.5, 8.0, seed=1)]  # two seeds: 4.75 and 8.5
    rows += [row({"a": 2}, 4.9, 8.6), row({"a": 2}, 4.9, 8.6, seed=1)]
    rows += [row({"a": 3}, 5.1, 1.0), row({"a": 3}, 5.0, 1.0, seed=1)]  # harms clean speech
    rows += [row({"a": 4, "data.speakers": 3}, 1.0, 1.0)]
    part = ({"a": 4, "data.speakers": 3}, "trained on a part of the data")
    assert select_parameters(rows) == Selection({"a": 1}, [part])
    assert select_parameters(rows[4:]) == Selection(None, [part])
    assert select_parameters([{"parameters": {}, "seed": 0, "test": {}}]) == Selection(None, [])


def test_figures_of_other_speakers_are_not_compared() -> None:
    base, folded = [row({}, 4.0, 9.0, seed=seed, of="abc") for seed in (0, 1)], {"train.folds": 0}
    fewer = [row(folded, 1.0, 1.0, seed=seed, of="d") for seed in (0, 1)]
    other = (folded, "held-out EERs of other speakers (1, not the same 3)")
    assert select_parameters(fewer + base) == Selection({}, [other])
    # An ending before its time leaves one seed without its folds.
    early = [row({"a": 1}, 1.0, 1.0, of="abc"), row({"a": 1}, 1.0, 1.0, seed=1, of="d")]
    assert select_parameters(base + early) == Selection(
        {}, [({"a": 1}, "held-out EERs of other speakers (1 or 3, not the same 3)")]
    )
    # Without a run as the parameters are, like most.
    many = [row(folded | {"a": number}, 1.0, number, of="d") for number in (2, 1)]
    assert select_parameters([row({"a": 5}, 1.0, 0.5, of="abc"), *many]) == Selection(
        folded | {"a": 1}, [({"a": 5}, "held-out EERs of other speakers (3, not the same 1)")]
    )


def test_parameters_that_fail_with_a_seed_are_not_chosen() -> None:
    failed = {"parameters": {"a": 1}, "seed": 1, "failed": "no number"}
    rows = [row({"a": 1}, 1.0, 1.0), failed, row({"a": 2}, 1.0, 2.0), row({"a": 2}, 1.0, 2.0, seed=1)]
    assert select_parameters(rows) == Selection({"a": 2}, [({"a": 1}, "1 of 2 runs failed")])


@given(st.lists(st.floats(0, 50), min_size=3, max_size=3))
def test_no_figure_of_the_test_set_enters_the_choice(tests: list[float]) -> None:
    noisy = (9.0, 7.0, 8.0)
    rows = [row({"a": n}, 4.0, eer, test) for n, (eer, test) in enumerate(zip(noisy, tests, strict=True))]
    assert select_parameters(rows).parameters == {"a": 1}


@pytest.mark.parametrize("grid", sorted(GRIDS.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_grids_of_the_comparison_can_be_run(grid: Path) -> None:
    wanted, seeds = read_grid(grid)
    assert len(seeds) >= 3
    for changes in wanted:
        data = {name.removeprefix("data."): value for name, value in changes.items() if name.startswith("data.")}
        validated(DataSubset, data, str(grid))
        apply_changes(Params(), {name: value for name, value in changes.items() if not name.startswith("data.")})
