import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.training.loggers import open_loggers
from pipeline.training.progress import Epoch
from stages.cli import main
from tests.training.test_resume import command
from tests.training.test_train import make_store

VALUES = ("train_loss", "validation_loss", "gradient_norm", "learning_rate", "gradient_peak")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_store(tmp_path / "s.zarr")
    (tmp_path / "p.yaml").write_text("train: {batch_size: 32, threads: 1, max_epochs: 3, warmup: 2}\n")
    return tmp_path


def curve_of(path: Path) -> dict[str, list[tuple[int, float]]]:
    """Values of a curve by name, with their epochs."""
    names, *rows = (line.split(",") for line in path.read_text().splitlines())
    found: dict[str, list[tuple[int, float]]] = {name: [] for name in names[1:]}
    for row in rows:
        for name, value in zip(names[1:], row[1:], strict=True):
            found[name] += [(int(row[0]), float(value))] if value else []
    return found


def close(ours: list[tuple[int, float]], theirs: list[tuple[int, float]]) -> bool:
    return ours == [(epoch, pytest.approx(value, abs=1e-6)) for epoch, value in theirs]


def test_tensorboard_holds_the_curve_of_the_last_training_alone(folder: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for seed in ("1", "2"):
        main(command(folder, "--log", "tensorboard", "--seed", seed))
    events = EventAccumulator(str(folder / "m.log/tensorboard")).Reload()
    curve = curve_of(folder / "m.curve.csv")
    assert sorted(events.Tags()["scalars"]) == sorted(curve) == sorted(VALUES)
    assert [len(curve[name]) for name in VALUES] == [3, 4, 3, 3, 3]
    for name in VALUES:
        assert close([(event.step, event.value) for event in events.Scalars(name)], curve[name])


def test_dvclive_holds_the_curve_of_the_last_training_alone(folder: Path) -> None:
    pytest.importorskip("dvclive")
    from dvclive.utils import parse_metrics

    for seed in ("1", "2"):
        main(command(folder, "--log", "dvclive", "--seed", seed))
    log, curve = folder / "m.log/dvclive", curve_of(folder / "m.curve.csv")

    class Written:
        plots_dir, metrics_file = str(log / "plots"), str(log / "metrics.json")

    history, latest = parse_metrics(Written)
    assert {Path(name).stem for name in history} == set(VALUES)
    for name, rows in history.items():
        stem = Path(name).stem
        assert close([(int(row["step"]), float(row[stem])) for row in rows], curve[stem])
    assert latest["step"] == 3
    assert latest == json.loads((log / "metrics.json").read_text())
    assert not list(folder.rglob("dvc.yaml"))


def test_logs_can_be_read_during_training(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with open_loggers(["tensorboard"], tmp_path) as (log,):
        events = EventAccumulator(str(tmp_path / "tensorboard"))
        for epoch in range(3):
            log(Epoch(epoch, math.nan, 0.5))
            events.Reload()
            assert [event.step for event in events.Scalars("validation_loss")] == list(range(epoch + 1))


def test_dvclive_in_a_repository_without_commits_is_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("dvclive")
    pytest.importorskip("dvc")
    monkeypatch.chdir(folder)
    for tool in ("git", "dvc"):
        subprocess.run([tool, "init", "-q"], check=True)
    with pytest.raises(SystemExit):
        main(command(folder, "--log", "dvclive"))
    assert "train.log: dvclive cannot start (SCMError: Empty git repo)" in capsys.readouterr().err
    assert not (folder / "m.safetensors").exists()


@pytest.mark.parametrize("name", ["tensorboard", "dvclive"])
def test_a_logger_that_is_not_installed_is_one_line(
    folder: Path, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in [module for module in sys.modules if module.split(".")[0] == name]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard.writer", raising=False)
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(SystemExit):
        main(command(folder, "--log", name))
    line = f"train.log: {name} is not installed: pip install '.[{name}]' (docs/install.md), or log without it."
    assert capsys.readouterr().err == f"seed: error: {line}\n"
    assert sorted(path.name for path in folder.iterdir()) == ["p.yaml", "s.zarr"]
