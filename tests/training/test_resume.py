"""Trainings that are killed or broken off go on as if they had not been."""

import csv
import random
import re
import subprocess
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from ruamel.yaml import YAML
from safetensors import safe_open

from pipeline.config.train import WATCHING, NetworkSettings, Train
from pipeline.errors import OutputError, TrainingError
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.store.leftovers import find_leftovers, remove_leftover
from pipeline.store.writer import write_store
from pipeline.training.checkpoints import Checkpoints, describe_checkpoint
from pipeline.training.loop import Trained
from pipeline.training.progress import PassProgress
from pipeline.training.train import train
from stages.cli import main
from tests.project import few_or_many
from tests.training.test_batches import in_shards, least
from tests.training.test_train import ENCODER, QUICK, make_store
from tests.warm import warm_seed

PROJECT = Path(__file__).parents[2]
SMALL = QUICK.model_copy(update={"max_epochs": 3, "batch_size": 16, "save_every": 4})
"""Nine steps an epoch."""


class KilledError(Exception):
    """Stands for the end of a process."""


def broken_off(store: EmbeddingStore, settings: Train, model: Path, step: int) -> None:
    """Begin or go on with a training, up to the end of some step, counted from its beginning."""
    steps = 9

    def stop(progress: PassProgress) -> None:
        if progress.epoch and (progress.epoch - 1) * steps + -(-progress.done // settings.batch_size) == step:
            raise KilledError

    with pytest.raises(KilledError):
        resumed(store, settings, model, [], stop)


def resumed(
    store: EmbeddingStore, settings: Train, model: Path, said: list[str], on_batch: Any = None, seed: int = 0
) -> Trained:
    with closing(Checkpoints(model, settings.save_every, True, said.append)) as saves:
        trained = train(store, settings, seed, 50, checkpoints=saves, on_batch=on_batch)
        saves.remove()
    return trained


def same(one: Trained, other: Trained) -> bool:
    states = [trained.model.state_dict() for trained in (one, other)]
    weights = all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    curves = [[list(epoch.values().items()) for epoch in trained.curve] for trained in (one, other)]
    return weights and curves[0] == curves[1] and one.best_epoch == other.best_epoch


@pytest.mark.parametrize(
    ("changes", "stream"),
    [
        ({}, False),
        ({}, True),
        ({"objective": "gap", "ema": 0.0, "clip": 0.1}, False),
        ({"warmup": 2.0, "schedule": "cosine", "network": NetworkSettings(dropout=0.5, precondition="center")}, True),
        ({"patience": 1, "learning_rate": 0.05}, False),
        ({"noise_per": "view", "epoch_crops": "one", "drop_last": True, "batch_size": 8, "patience": None}, False),
        ({"noise_per": "view", "epoch_crops": "one", "drop_last": True, "batch_size": 8, "keep_every": 1}, True),
    ],
)
def test_an_interrupted_training_resumes_to_the_same_bits(
    tmp_path: Path, changes: dict[str, Any], stream: bool
) -> None:
    store, settings = make_store(tmp_path / "s.zarr")[0], SMALL.model_copy(update=changes)
    if stream:
        store = in_shards(tmp_path / "t.zarr", store, 2)
        settings = least(store, settings)
    model = tmp_path / "m.safetensors"
    whole = train(store, settings, 0, 50)
    for step in (3, 9, 10, 14):  # before the first save, within an epoch, at its end, just after, later
        if step <= 9 * (len(whole.curve) - 1):
            broken_off(store, settings, model, step)
    torch.rand(7)  # whatever else was drawn
    said: list[str] = []
    assert same(resumed(store, settings, model, said), whole)
    assert re.fullmatch(r"resumed after \d+ steps, in epoch \d", said[0])
    assert not list(tmp_path.glob(".*"))


def test_a_checkpoint_of_other_parameters_or_another_store_is_ignored(tmp_path: Path) -> None:
    store, model = make_store(tmp_path / "s.zarr")[0], tmp_path / "m.safetensors"
    other = EmbeddingStore.open(tmp_path / "s.zarr")
    write_store(tmp_path / "o.zarr", other.utterances, other.read() * 1.01, other.status, ENCODER)
    broken_off(store, SMALL, model, 13)
    left = next(tmp_path.glob(".*.journal/training/*")).read_bytes()
    for chosen, seed, path in ((SMALL, 1, "s"), (SMALL.model_copy(update={"clip": 9.0}), 0, "s"), (SMALL, 0, "o")):
        said: list[str] = []
        opened = EmbeddingStore.open(tmp_path / f"{path}.zarr")
        assert same(resumed(opened, chosen, model, said, seed=seed), train(opened, chosen, seed, 50))
        (line,) = said
        assert "saved with another store, parameters" in line
        path_of(model).parent.mkdir(parents=True)
        path_of(model).write_bytes(left)
    said = []
    watched = SMALL.model_copy(update={"save_every": 5, "log": ["tensorboard"]})  # which do not matter
    resumed(store, watched, model, said)
    assert said == ["resumed after 12 steps, in epoch 2"]


def path_of(model: Path) -> Path:
    return model.parent / f".{model.name}.journal/training/state.safetensors"


def test_dvc_retrains_for_what_changes_a_model_and_resumes_after_a_kill() -> None:
    stage = YAML(typ="safe").load((PROJECT / "dvc.yaml").read_text())["stages"]["train"]
    assert "--resume" in stage["cmd"].split()
    listed = {name for name in stage["params"] if isinstance(name, str)}
    assert {name for name in listed if name.startswith("train.")} == {
        f"train.{name}" for name in set(Train.model_fields) - set(WATCHING)
    }
    assert ".*.journal" in (PROJECT / ".dvcignore").read_text().splitlines()  # or the folder of models would change


def test_a_damaged_checkpoint_is_ignored(tmp_path: Path) -> None:
    store, model = make_store(tmp_path / "s.zarr")[0], tmp_path / "m.safetensors"
    short = SMALL.model_copy(update={"max_epochs": 1})
    whole = train(store, short, 0, 50)
    broken_off(store, short, model, 5)
    good, rng = path_of(model).read_bytes(), random.Random(0)
    name = good.index(b"time_embed") - len(good)  # of a tensor, in the header
    for damage in (len(good) // 2, 0, name, *(-rng.randrange(len(good)) for _ in range(4))):
        if damage >= 0:
            content = good[:damage]
        else:
            content = good[:damage] + bytes([good[damage] ^ 4]) + (good[damage + 1 :] if damage < -1 else b"")
        path_of(model).parent.mkdir(parents=True, exist_ok=True)
        path_of(model).write_bytes(content)
        said: list[str] = []
        assert same(resumed(store, short, model, said), whole)
        assert said == [f"{path_of(model)}: damaged; training starts from scratch"]


def test_a_checkpoint_is_safetensors_listed_by_seed_clean_and_locked(tmp_path: Path) -> None:
    store, model = make_store(tmp_path / "s.zarr")[0], tmp_path / "m.safetensors"
    broken_off(store, SMALL, model, 13)
    with safe_open(path_of(model), framework="pt") as file:
        assert {"losses", "random.cpu", "random.noise"} < set(file.keys())
    with closing(Checkpoints(model, 1)), pytest.raises(OutputError, match="another process is writing there"):
        Checkpoints(model, 1)
    (found,), _ = find_leftovers(tmp_path, describe_checkpoint)
    assert found.what == "a training in epoch 2"
    remove_leftover(found)
    assert not list(tmp_path.glob(".*"))


def test_a_training_that_learns_nothing_leaves_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, model = make_store(tmp_path / "s.zarr")[0], tmp_path / "m.safetensors"
    monkeypatch.setattr("pipeline.training.loop.compute_validation_loss", lambda *rest: float("nan"))
    with closing(Checkpoints(model, 2)) as saves, pytest.raises(TrainingError, match="nothing was learnt"):
        train(store, SMALL, 0, 50, checkpoints=saves)
    assert not list(tmp_path.glob(".*"))


def command(folder: Path, *more: str, name: str = "m") -> list[str]:
    command = ["train", "--store", str(folder / "s.zarr"), "--params", str(folder / "p.yaml")]
    command += ["--manifest", str(folder / "m.csv")] if (folder / "m.csv").exists() else []
    return [*command, "--out", str(folder / f"{name}.safetensors"), *more]


@pytest.mark.endurance
def test_a_process_killed_at_random_moments_resumes_to_the_same_files(tmp_path: Path) -> None:
    speakers = make_store(tmp_path / "s.zarr")[1]
    lines = [f"{name},{name}.wav,{speaker}\n" for name, speaker in speakers.items()]
    (tmp_path / "m.csv").write_text("utterance,path,speaker\n" + "".join(lines))
    settings = "train: {threads: 1, batch_size: 8, max_epochs: 8, folds: 2, save_every: 3, network: {blocks: 1}}\n"
    (tmp_path / "p.yaml").write_text(settings)
    seed = warm_seed() / "seed"
    subprocess.run([seed, *command(tmp_path, name="whole")], check=True)
    rng, left, folder, met = random.Random(10), few_or_many(3, 10), path_of(tmp_path / "m.safetensors").parent, False
    model, curve = tmp_path / "m.safetensors", tmp_path / "m.curve.csv"

    def saved() -> int:
        """When a state was last written, of this model or one that finds its strength."""
        return max((path.stat().st_mtime_ns for path in folder.glob("*.safetensors")), default=0)

    while left:
        for path in (model, curve):
            path.unlink(missing_ok=True)  # as DVC does before it runs a stage
        before = saved()
        process = subprocess.Popen([seed, *command(tmp_path, "--resume")], stdout=subprocess.PIPE)
        while left % 3 and process.poll() is None and saved() == before:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.1))
        process.kill()
        process.communicate()  # ends when all are dead that write there
        if process.returncode == 0:  # too late
            continue
        assert process.returncode == -9
        left, met = left - 1, met or saved() > 0
        if curve.exists():
            rows = list(csv.reader(curve.open()))
            assert {len(row) for row in rows} == {6}
            assert [row[0] for row in rows[1:]] == [str(epoch) for epoch in range(len(rows) - 1)]
    assert met
    model.unlink(missing_ok=True)
    main(command(tmp_path, "--resume"))
    for kind in ("safetensors", "curve.csv"):
        assert (tmp_path / f"m.{kind}").read_bytes() == (tmp_path / f"whole.{kind}").read_bytes()
    assert not list(tmp_path.glob(".*"))
