"""The strength, found by models that have not seen a part of the speakers each."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline import training as module
from pipeline.operating import Point, Unseen, operating_point
from pipeline.pace import Pace
from pipeline.training import ENOUGH, PER_FOLD, folds, train
from tests.test_training import QUICK, make_store

SHORT = QUICK.model_copy(update={"max_epochs": 3})


def named(speakers: int, each: int = 2) -> dict[str, str]:
    return {f"{n}-{m}": f"s{n}" for n in range(speakers) for m in range(each)}


def held_of(known: dict[str, str], count: int) -> np.ndarray:
    return np.isin(list(known.values()), [f"s{n}" for n in range(count)])


def test_every_speaker_is_in_one_part_whole_and_parts_are_even() -> None:
    known = named(31)
    parts = folds(list(known), known, held_of(known, 3), 3, 0)
    assert np.stack(parts).sum(axis=0).tolist() == [1] * 62
    of_part = [{name for name, inside in zip(known.values(), part, strict=True) if inside} for part in parts]
    assert sorted(map(len, of_part)) == [10, 10, 11]
    assert len(set.union(*of_part)) == 31
    assert all(
        (part == again).all() for part, again in zip(parts, folds(list(known), known, parts[0], 3, 0), strict=True)
    )
    assert any(
        (part != other).any() for part, other in zip(parts, folds(list(known), known, parts[0], 3, 1), strict=True)
    )


def test_there_are_none_where_they_would_say_nothing_or_nothing_new() -> None:
    known, few = named(2 * ENOUGH), named(3 * PER_FOLD - 1)
    assert len(folds(list(known), known, held_of(known, ENOUGH - 1), 3, 0)) == 3
    assert folds(list(known), known, held_of(known, ENOUGH), 3, 0) == []
    assert folds(list(few), few, held_of(few, 2), 3, 0) == []
    assert len(folds(list(few), few, held_of(few, 2), 2, 0)) == 2
    assert folds(list(known), known, held_of(known, 2), 0, 0) == []
    assert folds(list(known), {}, held_of(known, 2), 3, 0) == []


def test_they_change_the_strength_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, speakers = make_store(tmp_path / "s.zarr", speakers=30, failed=5)
    asked: list[list[Unseen]] = []

    def spy(parts: list[Unseen], *rest: Any) -> Point:
        asked.append(parts)
        return operating_point(parts, *rest)

    monkeypatch.setattr("pipeline.operating.operating_point", spy)
    alone, together = (
        train(store, SHORT.model_copy(update={"folds": count}), 0, 50, speakers).model for count in (0, 3)
    )
    for name, tensor in alone.state_dict().items():
        assert name == "strength" or torch.equal(tensor, together.state_dict()[name]), name
    assert [len(parts) for parts in asked] == [1, 3]
    assert {len(set(part.speakers)) for part in asked[1]} == {10}
    assert set.union(*(set(part.speakers) for part in asked[1])) == {f"s{n}" for n in range(30)}
    models = [part.model for part in asked[1]]
    assert all(not torch.equal(model.mean, together.mean) for model in models)  # of other speakers
    assert all(
        any((a != b).any() for a, b in zip(model.parameters(), together.parameters(), strict=True)) for model in models
    )
    again = train(store, SHORT, 0, 50, speakers).model
    assert torch.equal(again.strength, together.strength)


def test_a_part_is_not_seen_by_its_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows that a model is fitted to are all but its part's."""
    store, speakers = make_store(tmp_path / "s.zarr", speakers=24)
    feeds: list[np.ndarray] = []
    real = module.open_feed
    monkeypatch.setattr(
        module, "open_feed", lambda s, held, *rest, **more: feeds.append(held) or real(s, held, *rest, **more)
    )
    told: list[Pace] = []
    train(store, SHORT, 0, 50, speakers, watch=told.append)
    assert len(feeds) == 4
    assert np.stack(feeds[1:]).sum(axis=0).tolist() == [1] * len(store.ok)
    assert {pace.what for pace in told} == {"", *(f"strength, part {n} of 3, " for n in (1, 2, 3))}


def test_several_parts_are_judged_together(tmp_path: Path) -> None:
    """A part in which the voice is lost says less than two in which noise is: means over parts decide."""
    from pipeline.model import SeedModel
    from tests.test_operating import DIM, SETTINGS, crops, names

    model, values = SeedModel(DIM, SETTINGS), crops(noise=3.0)
    model.matrix[0, 0] = 0.1
    good = Unseen(model, values, names())
    spoilt = SeedModel(DIM, SETTINGS)
    spoilt.matrix.copy_(torch.diag(torch.tensor([1.0, 1e-3, 1e-3, 1e-3, 1e-3, 1e-3])))
    bad = Unseen(spoilt, values, names())
    assert operating_point([bad], 50, 1.0, 0).strength == 0
    assert operating_point([good, good], 50, 1.0, 0).strength == pytest.approx(
        operating_point([good], 50, 1.0, 0).strength, abs=0.11
    )
    assert operating_point([bad, bad, good], 50, 1.0, 0).strength < operating_point([good], 50, 1.0, 0).strength
    assert operating_point([good, Unseen(model, values, [None] * len(values))], 50, 1.0, 0).strength == 0.4
