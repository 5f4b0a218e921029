"""The strength, found by models that have not seen a part of the speakers each."""

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.config.train import NetworkSettings, Train
from pipeline.model.diffusion.objectives.seed import seed_loss
from pipeline.model.model_file import save_model
from pipeline.training import train as module
from pipeline.training.checkpoints import Checkpoints
from pipeline.training.loop import Trained
from pipeline.training.progress import PassProgress
from pipeline.training.strength import HeldOut, StrengthPoint, find_strength
from pipeline.training.train import ENOUGH_SPEAKERS, FOLD_SPEAKERS, split_folds, train
from tests.project import few_or_many
from tests.training.test_train import ENCODER, QUICK, make_store, use_loss

SHORT = QUICK.model_copy(update={"max_epochs": 3})


def named(speakers: int, each: int = 2) -> dict[str, str]:
    return {f"{n}-{m}": f"s{n}" for n in range(speakers) for m in range(each)}


def held_of(known: dict[str, str], count: int) -> np.ndarray:
    return np.isin(list(known.values()), [f"s{n}" for n in range(count)])


def test_every_speaker_is_in_one_part_whole_and_parts_are_even() -> None:
    known = named(31)
    parts = split_folds(list(known), known, held_of(known, 3), 3, 0)
    assert np.stack(parts).sum(axis=0).tolist() == [1] * 62
    of_part = [{name for name, inside in zip(known.values(), part, strict=True) if inside} for part in parts]
    assert sorted(map(len, of_part)) == [10, 10, 11]
    assert len(set.union(*of_part)) == 31
    assert all(
        (part == again).all()
        for part, again in zip(parts, split_folds(list(known), known, parts[0], 3, 0), strict=True)
    )
    assert any(
        (part != other).any()
        for part, other in zip(parts, split_folds(list(known), known, parts[0], 3, 1), strict=True)
    )


def test_there_are_no_parts_if_they_are_too_small_or_not_needed() -> None:
    known, few = named(2 * ENOUGH_SPEAKERS), named(3 * FOLD_SPEAKERS - 1)
    assert len(split_folds(list(known), known, held_of(known, ENOUGH_SPEAKERS - 1), 3, 0)) == 3
    assert split_folds(list(known), known, held_of(known, ENOUGH_SPEAKERS), 3, 0) == []
    assert split_folds(list(few), few, held_of(few, 2), 3, 0) == []
    assert len(split_folds(list(few), few, held_of(few, 2), 2, 0)) == 2
    assert split_folds(list(known), known, held_of(known, 2), 0, 0) == []
    assert split_folds(list(known), {}, held_of(known, 2), 3, 0) == []


def test_parts_change_the_strength_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, speakers = make_store(tmp_path / "s.zarr", speakers=30, failed=5)
    asked: list[list[HeldOut]] = []

    def spy(parts: list[HeldOut], *rest: Any) -> StrengthPoint:
        asked.append(parts)
        return find_strength(parts, *rest)

    monkeypatch.setattr("pipeline.training.strength.find_strength", spy)
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
    real = module.open_batches
    monkeypatch.setattr(
        module, "open_batches", lambda s, held, *rest, **more: feeds.append(held) or real(s, held, *rest, **more)
    )
    reports: list[PassProgress] = []
    train(store, SHORT, 0, 50, speakers, on_batch=reports.append)
    assert len(feeds) == 4
    assert np.stack(feeds[1:]).sum(axis=0).tolist() == [1] * len(store.ok)
    assert {progress.label for progress in reports} == {"", *(f"strength, part {n} of 3, " for n in (1, 2, 3))}


SAVED = SHORT.model_copy(update={"save_every": 4, "network": NetworkSettings(dropout=0.5)})
FROM_SCRATCH = "saved with another store, parameters, seed or versions; training starts from scratch"


class KilledError(Exception):
    """Stands for the end of a process."""


class Run:
    """Trainings of one model, that may be killed."""

    def __init__(self, folder: Path) -> None:
        self.store, self.speakers = make_store(folder / "s.zarr", speakers=24)
        self.model, self.parts = folder / "m.safetensors", folder / ".m.safetensors.journal/training"

    def once(
        self, settings: Train = SAVED, seed: int = 0, resume: bool = True, until: tuple[str, int] | None = None
    ) -> tuple[Trained | None, list[str], set[str]]:
        """Train, to the end or that of an epoch of one training; return what was said as well, and what took steps."""
        said, worked = list[str](), set[str]()

        def watch(progress: PassProgress) -> None:
            worked.add(progress.label)
            if (
                until
                and progress.label.startswith(until[0])
                and (progress.epoch, progress.done) == (until[1], progress.pairs)
            ):
                raise KilledError

        with closing(Checkpoints(self.model, settings.save_every, resume, said.append)) as saves:
            try:
                return (
                    train(self.store, settings, seed, 50, self.speakers, on_batch=watch, checkpoints=saves),
                    said,
                    worked,
                )
            except KilledError:
                return None, said, worked


def test_a_training_for_the_strength_resumes_to_the_same_bits_and_finished_ones_are_kept(tmp_path: Path) -> None:
    run = Run(tmp_path)
    whole = train(run.store, SAVED, 0, 50, run.speakers)
    assert run.once(until=("strength, part 1", 2))[2] == {"", "strength, part 1 of 3, "}
    assert run.once(until=("strength, part 1", 3))[2] == {"strength, part 1 of 3, "}
    assert run.once(until=("strength, part 3", 2))[2] == {f"strength, part {n} of 3, " for n in (1, 2, 3)}
    trained, said, worked = run.once()
    assert trained
    assert worked == {"strength, part 3 of 3, "}
    assert said == [
        "already trained, 18 steps",
        "part 1: already trained, 12 steps",
        "part 2: already trained, 12 steps",
        "part 3: resumed after 8 steps, in epoch 2",
    ]
    assert models(trained, tmp_path / "a") == models(whole, tmp_path / "b")
    assert sorted(path.name for path in run.parts.iterdir()) == [
        *(f"part{n}.safetensors" for n in (1, 2, 3)),
        "state.safetensors",
    ]


def models(trained: Trained, folder: Path) -> list[bytes]:
    """The file of a model, and those of the models that found its strength."""
    files = [folder / f"{number}.safetensors" for number in range(1 + len(trained.fold_models))]
    for path, model in zip(files, (trained.model, *(fold.model for fold in trained.fold_models)), strict=True):
        save_model(path, model, ENCODER, trained.summary())
    return [path.read_bytes() for path in files]


@pytest.mark.endurance
@pytest.mark.parametrize("wrong", ["damaged", "other seed", *few_or_many([], ["without --resume", "swapped"])])
def test_an_unsuitable_checkpoint_of_a_part_is_ignored(tmp_path: Path, wrong: str) -> None:
    run = Run(tmp_path)
    run.once(until=("strength, part 2", 2))
    one, two, main = (run.parts / f"{name}.safetensors" for name in ("part1", "part2", "state"))
    if wrong == "damaged":
        two.write_bytes(two.read_bytes()[:-9])
    if wrong == "swapped":
        two.write_bytes(one.read_bytes())
    seed = int(wrong == "other seed")
    trained, said, _ = run.once(seed=seed, resume=wrong != "without --resume")
    left = "an interrupted training left this; it is ignored without --resume"
    first, done = "already trained, 18 steps", "part 1: already trained, 12 steps"
    assert (
        said
        == {
            "damaged": [first, done, f"{two}: damaged; training starts from scratch"],
            "swapped": [first, done],
            "other seed": [f"{main}: {FROM_SCRATCH}"],
            "without --resume": [f"{main}: {left}"],
        }[wrong]
    )
    assert trained
    assert models(trained, tmp_path / "a") == models(train(run.store, SAVED, seed, 50, run.speakers), tmp_path / "b")


def test_several_parts_are_averaged(tmp_path: Path) -> None:
    """A part in which the voice is lost says less than two in which noise is: means over parts decide."""
    from pipeline.model.seed_model import SeedModel
    from tests.training.test_strength import DIM, SETTINGS, crops, names

    model, values = SeedModel(DIM, SETTINGS), crops(noise=3.0)
    model.matrix[0, 0] = 0.1
    good = HeldOut(model, values, names())
    spoilt = SeedModel(DIM, SETTINGS)
    spoilt.matrix.copy_(torch.diag(torch.tensor([1.0, 1e-3, 1e-3, 1e-3, 1e-3, 1e-3])))
    bad = HeldOut(spoilt, values, names())
    assert find_strength([bad], 50, 1.0, 0).strength == 0
    assert find_strength([good, good], 50, 1.0, 0).strength == pytest.approx(
        find_strength([good], 50, 1.0, 0).strength, abs=0.11
    )
    assert find_strength([bad, bad, good], 50, 1.0, 0).strength < find_strength([good], 50, 1.0, 0).strength
    assert find_strength([good, HeldOut(model, values, [None] * len(values))], 50, 1.0, 0).strength == 0.4


@pytest.mark.parametrize("epoch", [1, 2])
def test_a_failed_training_for_the_strength_does_not_affect_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epoch: int
) -> None:
    """It and its kind are left out, with a warning; the model is as if no parts had been asked for."""
    store, speakers = make_store(tmp_path / "s.zarr", speakers=24)
    alone = train(store, SHORT.model_copy(update={"folds": 0}), 0, 50, speakers)
    broken: list[PassProgress] = []

    def watch(progress: PassProgress) -> None:
        broken.extend([progress] if progress.label.startswith("strength, part 2") and progress.epoch == epoch else [])

    use_loss(monkeypatch, lambda *args: seed_loss(*args) * (float("nan") if broken else 1.0))
    trained = train(store, SHORT, 0, 50, speakers, on_batch=watch)
    assert broken
    assert trained.facts["folds_failed"].startswith(f"part 2 of 3: in epoch {epoch} the loss is nan")
    for name, tensor in alone.model.state_dict().items():
        assert torch.equal(tensor, trained.model.state_dict()[name]), name
    save_model(tmp_path / "m.safetensors", trained.model, store.encoder(), trained.summary())
