from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.choice import choose
from pipeline.config import Params
from pipeline.sweep import Part, changed, read_grid
from pipeline.validation import validated

GRIDS = Path(__file__).parent.parent / "params/comparison"


def row(parameters: dict[str, Any], clean: float, noisy: float, test: float = 5.0) -> dict[str, Any]:
    held_out = {"held_out_clean_eer": clean, "held_out_noisy_eer": noisy, "held_out_raw_clean_eer": 5.0}
    return {"parameters": parameters, "test": {"clean": {"eer": test}, "mean noisy": {"eer": test}}} | held_out


def test_the_lowest_noisy_eer_of_held_out_speakers_that_keeps_clean_speech_is_chosen() -> None:
    rows = [row({"a": 1}, 4.0, 9.0), row({"a": 1}, 5.5, 8.0)]  # two seeds: 4.75 and 8.5
    rows += [row({"a": 2}, 4.9, 8.6), row({"a": 2}, 4.9, 8.6)]
    rows += [row({"a": 3}, 5.1, 1.0), row({"a": 3}, 5.0, 1.0)]  # harms clean speech
    rows += [row({"a": 4, "data.speakers": 3}, 1.0, 1.0)]  # other speakers
    assert choose(rows) == {"a": 1}
    assert choose(rows[4:]) is None
    assert choose([{"parameters": {}, "test": {}}]) is None


@given(st.lists(st.floats(0, 50), min_size=3, max_size=3))
def test_no_figure_of_the_test_set_enters_the_choice(tests: list[float]) -> None:
    noisy = (9.0, 7.0, 8.0)
    rows = [row({"a": n}, 4.0, eer, test) for n, (eer, test) in enumerate(zip(noisy, tests, strict=True))]
    assert choose(rows) == {"a": 1}


@pytest.mark.parametrize("grid", sorted(GRIDS.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_grids_of_the_comparison_can_be_run(grid: Path) -> None:
    wanted, seeds = read_grid(grid)
    assert len(seeds) >= 3
    for changes in wanted:
        data = {name.removeprefix("data."): value for name, value in changes.items() if name.startswith("data.")}
        validated(Part, data, str(grid))
        changed(Params(), {name: value for name, value in changes.items() if not name.startswith("data.")})
