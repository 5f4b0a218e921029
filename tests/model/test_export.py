"""Exported models: ONNX Runtime and TorchScript against the model itself."""

import copy
import json
import subprocess
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

import pipeline.model.export as exporting
from pipeline.config.objectives import OBJECTIVES
from pipeline.config.train import NetworkSettings, Train
from pipeline.errors import ConfigError, ExportError, OutputError, WeightsError
from pipeline.model.apply import enhance_vectors
from pipeline.model.diffusion.sampler import Sampling
from pipeline.model.export import PROPERTIES, export_model
from pipeline.model.model_file import load_model, save_model
from pipeline.model.seed_model import SeedModel
from pipeline.utils.atomic import sha256_of
from pipeline.utils.onnx import OPSET
from tests.project import ENDURANCE
from tests.stages.test_cli import PROJECT, run
from tests.warm import warm_seed

DIM = 12
PREDICTIONS = get_args(NetworkSettings.model_fields["predict"].annotation)
ENCODER = {"encoder": "toy", "family": "ge2e", "weights_sha256": "ab" * 32, "front_end": None, "dim": DIM}


def write_model(path: Path, strength: float = 0.6, precondition: bool = True, **settings: Any) -> SeedModel:
    """Write a model of random weights, as a training with these settings could leave it."""
    network = {"blocks": 1, **settings.pop("network", {})}
    model = SeedModel(DIM, Train.model_validate({"network": network, **settings}))
    source = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.network.parameters():
            nn.init.normal_(parameter, std=DIM**-0.5, generator=source)
        if precondition:
            model.mean.normal_(generator=source)
            model.matrix.copy_(torch.eye(DIM) + 0.3 * torch.randn(DIM, DIM, generator=source))
        model.strength.fill_(strength)
    save_model(path, model, ENCODER, {})
    return load_model(path).model


def raw(count: int) -> np.ndarray:
    return (2 * np.random.default_rng(count).standard_normal((count, DIM)) + 0.5).astype(np.float32)


def by_onnx(path: Path, vectors: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(["enhanced"], {"embeddings": vectors})[0]


def by_torchscript(path: Path, vectors: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return torch.jit.load(str(path))(torch.from_numpy(vectors)).numpy()


def agrees(path: Path, model: SeedModel, sampling: Sampling) -> None:
    run_file = by_onnx if path.suffix == ".onnx" else by_torchscript
    for count in (1, 2, 1000):
        vectors = raw(count)
        expected = enhance_vectors(model, vectors, sampling)
        np.testing.assert_allclose(run_file(path, vectors), expected, atol=1e-5 * np.abs(expected).max(), rtol=0)


def allowed(objective: str, predict: str, steps: int) -> bool:
    """Whether there are such models, and they enhance in so many steps."""
    try:
        settings = Train.model_validate({"objective": objective, "network": {"predict": predict}, "contrast": 0.0})
    except ValueError:
        return False
    return settings.find_sampling_conflict(steps, 0) is None


WAYS = [way for way in product(OBJECTIVES, PREDICTIONS, (1, 3)) if allowed(*way)]
FEWER = [way for way in WAYS if way[2] == 1 or way[:2] in {("seed", "epsilon"), ("gap", "v"), ("bridge", "v")}]
"""For ONNX, whose exporter takes seconds: in several steps one of each kind."""
if not ENDURANCE:  # the objective whose network takes no diffusion time; the paper's network takes several steps below
    FEWER = [("vmf-pl", "sample", 1)]


@pytest.mark.endurance
@pytest.mark.parametrize(
    ("suffix", "objective", "predict", "steps"),
    [*((".pt", *way) for way in WAYS), *((".onnx", *way) for way in FEWER)],
)
def test_files_give_what_the_model_gives(tmp_path: Path, suffix: str, objective: str, predict: str, steps: int) -> None:
    path, out, sampling = tmp_path / "m.safetensors", tmp_path / f"m{suffix}", Sampling(50, steps, strength=0.6)
    model = write_model(path, 0.6, objective=objective, network={"predict": predict}, contrast=0.0)
    export_model(path, out, None, replace(sampling, strength=None))
    agrees(out, model, sampling)
    # Agreement would say nothing if the way made no difference.
    whole = enhance_vectors(model, raw(9), replace(sampling, strength=1.0))
    assert np.abs(enhance_vectors(model, raw(9), sampling) - whole).max() > 0.01
    assert steps == 1 or np.abs(enhance_vectors(model, raw(9), Sampling(50)) - whole).max() > 1e-4


@pytest.mark.endurance
@pytest.mark.parametrize(
    ("suffix", "strength", "steps"),
    [
        (".onnx", 0.25, 3),
        (".pt", 0.0, 1),
        (".pt", 0.25, 1),
        (".pt", 1.0, 1),
        *([(".onnx", 0.0, 1), (".onnx", 0.25, 1), (".onnx", 1.0, 1)] if ENDURANCE else []),
    ],
)
def test_the_papers_network_without_preconditioner_at_any_strength(
    tmp_path: Path, suffix: str, strength: float, steps: int
) -> None:
    path, out, sampling = tmp_path / "m.safetensors", tmp_path / f"m{suffix}", Sampling(20, steps, strength=strength)
    network = {"predict": "sample", "precondition": "none", "blocks": 3, "width": 2}
    model = write_model(path, 0.6, precondition=False, scale="sampling", network=network)
    export_model(path, out, None, sampling)
    agrees(out, model, sampling)


def by_command(folder: Path, out: str) -> None:
    command = [warm_seed() / "seed", "export-model", "m.safetensors", "--out", out]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{out}: {DIM} numbers in and out, strength 0.60, timestep 50\n"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, and what was made of it by the command."""
    place = tmp_path_factory.mktemp("exported")
    write_model(place / "m.safetensors")
    for out in ("below/m.onnx", "below/m.pt"):
        by_command(place, out)
    return place


def test_files_say_what_they_are(files: Path) -> None:
    session = onnxruntime.InferenceSession(str(files / "below/m.onnx"), providers=["CPUExecutionProvider"])
    said = session.get_modelmeta().custom_metadata_map
    assert said == {
        "encoder": "toy",
        "family": "ge2e",
        "weights_sha256": "ab" * 32,
        "dim": str(DIM),
        "objective": "seed",
        "strength": "0.6",
        "timestep": "50",
        "steps": "1",
        "spacing": "trailing",
        "model_sha256": sha256_of(files / "m.safetensors"),
        "opset": str(OPSET),
    }
    content = onnx.load(files / "below/m.onnx")
    assert [(each.domain, each.version) for each in content.opset_import] == [("", OPSET)]
    assert session.get_inputs()[0].shape == ["batch", DIM]
    assert [each.name for each in session.get_inputs()] == ["embeddings"]
    about = {PROPERTIES: ""}
    torch.jit.load(str(files / "below/m.pt"), _extra_files=about)
    assert json.loads(about[PROPERTIES]) == {key: value for key, value in said.items() if key != "opset"}


def test_files_are_whole_and_always_the_same_and_silent_about_where_they_were_made(files: Path) -> None:
    assert {path.name for path in (files / "below").iterdir()} == {"m.onnx", "m.pt"}
    export_model(files / "m.safetensors", files / "again/m.onnx")
    by_command(files, "again/m.pt")
    for name in ("m.onnx", "m.pt"):
        content = (files / "below" / name).read_bytes()
        assert (files / "again" / name).read_bytes() == content
        for word in (str(PROJECT), str(Path(torch.__file__).parent), str(files)):
            assert word.encode() not in content


def test_the_example_needs_no_torch(files: Path) -> None:
    model = load_model(files / "m.safetensors").model
    vectors = raw(10_000)
    np.save(files / "raw.npy", vectors)
    code = (
        "import runpy, sys; sys.argv = ['onnx_enhance.py', 'below/m.onnx', 'raw.npy', 'enhanced.npy'];"
        f"runpy.run_path({str(PROJECT / 'examples/onnx_enhance.py')!r}, run_name='__main__');"
        "assert 'torch' not in sys.modules and 'pipeline' not in sys.modules"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=files, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "enhanced.npy: 10000 embeddings of toy, strength 0.6\n"), done.stderr
    expected = enhance_vectors(model, vectors, Sampling(strength=0.6))
    np.testing.assert_allclose(np.load(files / "enhanced.npy"), expected, atol=1e-5 * np.abs(expected).max(), rtol=0)
    np.save(files / "raw.npy", vectors[:, :5])
    done = subprocess.run(command, cwd=files, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == f"raw.npy: holds [10000, 5], but below/m.onnx takes [N, {DIM}] embeddings of toy\n"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a model."""
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "m.safetensors")
    return tmp_path


@pytest.mark.parametrize(
    ("out", "sampling", "error", "says"),
    [
        ("m.pt", Sampling(noise=1), ExportError, "cannot be exported with draws of noise"),
        ("m.onnx", Sampling(noise=2, eta=1.0), ExportError, "cannot be exported with draws of noise"),
        ("m.bin", Sampling(), ConfigError, "m.bin: no export format has this suffix"),
        ("m.pt", Sampling(1000), ConfigError, "timesteps are from 0 to 999"),
        (".", Sampling(), ConfigError, "no export format has this suffix"),
    ],
)
def test_what_cannot_be_exported_says_so_and_leaves_nothing(
    place: Path, out: str, sampling: Sampling, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says) as refused:
        export_model(place / "m.safetensors", place / out, None, sampling)
    assert "\n" not in str(refused.value)
    assert [path.name for path in place.iterdir()] == ["m.safetensors"]


def test_objectives_of_one_pass_take_no_steps(place: Path) -> None:
    write_model(place / "m.safetensors", objective="dae")
    with pytest.raises(ConfigError, match="objective dae takes one pass"):
        export_model(place / "m.safetensors", place / "m.pt", None, Sampling(50, 3))


def test_the_model_is_not_overwritten_and_must_be_one(place: Path) -> None:
    before = sha256_of(place / "m.safetensors")
    with pytest.raises(OutputError, match="is the model to export"):
        export_model(place / "m.safetensors", place / "./m.safetensors", "torchscript")
    assert sha256_of(place / "m.safetensors") == before
    (place / "m.safetensors").write_bytes(b"no model")
    with pytest.raises(WeightsError, match="not a readable safetensors file"):
        export_model(place / "m.safetensors", place / "m.pt")


@pytest.mark.parametrize("suffix", [".onnx", ".pt"])
def test_a_file_that_gives_something_else_never_appears(
    place: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exporter that changes the weights stands in for one that is wrong."""
    form = exporting.FORMATS[suffix]
    write, model = exporting._WRITERS[form], place / "m.safetensors"

    def wrong(step: Any, properties: Any) -> bytes:
        other = copy.deepcopy(step)
        other.model.matrix.mul_(torch.linspace(0.9, 1.1, DIM))
        return write(other, properties)

    monkeypatch.setitem(exporting._WRITERS, form, wrong)
    (place / f"m{suffix}").write_text("of before")
    with pytest.raises(
        ExportError, match=r"was not exported to .*, because the file gave values .* off for 1 embeddings"
    ):
        export_model(model, place / f"m{suffix}")
    assert (place / f"m{suffix}").read_text() == "of before"
    assert len(list(place.iterdir())) == 2


def test_the_command_says_in_one_line_what_is_wrong(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    (place / "params.yaml").write_text("enhance: {noise: 1}\n")
    code, out, err = run(capsys, "export-model", "m.safetensors", "--out", "m.pt")
    assert (code, out) == (1, "")
    assert err.startswith("seed: error: m.safetensors: cannot be exported with draws of noise (enhance.noise 1)")
    assert err.count("\n") == 1
    (place / "params.yaml").unlink()
    arguments = ["--strength", 0.3, "--timestep", 40, "--format", "torchscript"]
    code, out, _ = run(capsys, "export-model", "m.safetensors", "--out", "m.bin", *arguments)
    assert (code, out) == (0, f"m.bin: {DIM} numbers in and out, strength 0.30, timestep 40\n")
    model = load_model(place / "m.safetensors").model
    expected = enhance_vectors(model, raw(5), Sampling(40, strength=0.3))
    np.testing.assert_allclose(by_torchscript(place / "m.bin", raw(5)), expected, atol=1e-5)


def test_onnx_is_an_extra(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ConfigError, match=r"needs onnxscript; pip install '\.\[onnx\]'"):
        export_model(place / "m.safetensors", place / "m.onnx")
    export_model(place / "m.safetensors", place / "m.pt")
