import tomllib
from pathlib import Path

import numpy as np
import pytest

from pipeline import Enhancer
from pipeline.errors import WeightsError
from pipeline.model import packaged
from pipeline.model.model_file import load_model
from pipeline.model.packaged import SHA256, find_packaged
from pipeline.utils.atomic import sha256_of
from stages.cli import main
from tests.project import PROJECT

NAMES = sorted(SHA256)


@pytest.mark.parametrize("name", NAMES)
def test_each_is_small_pinned_and_made_for_the_weights_that_the_package_fetches(name: str) -> None:
    path = find_packaged(name)
    assert path is not None
    assert path.stat().st_size <= 1_000_000
    assert sha256_of(path) == SHA256[name]
    loaded = load_model(path)
    assert loaded.model.only_timestep == loaded.timestep
    assert 0 < float(loaded.model.strength) <= 1
    assert loaded.encoder["family"] == name
    assert loaded.metadata["training"]["noisy_views"] == ["noise", "reverb"]
    card = path.with_suffix(".md").read_text()
    assert f'Enhancer.load("{name}"' in card
    assert "CC BY 4.0" in card


@pytest.mark.parametrize("name", NAMES)
def test_they_are_loaded_by_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    enhancer = Enhancer.load(name)
    assert enhancer.sha256 == SHA256[name]
    strength = f"strength {enhancer.strength:g}"
    assert repr(enhancer) == f"<Enhancer {name}: vectors of {name}, D = {enhancer.dim}, timestep 50, {strength}>"
    vectors = np.abs(np.random.default_rng(0).standard_normal((20, enhancer.dim))).astype(np.float32)
    assert enhancer.enhance(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), 0.5).shape == vectors.shape
    main(["export-model", name, "--out", "m.pt"])
    (tmp_path / name).write_text("a file of the reader's own")
    assert find_packaged(name) is None
    with pytest.raises(WeightsError):
        Enhancer.load(name)


def test_a_damaged_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = NAMES[0]
    content = bytearray(Path(packaged.__file__).with_name(f"{name}.safetensors").read_bytes())
    content[-1] ^= 1
    (tmp_path / f"{name}.safetensors").write_bytes(content)
    monkeypatch.setattr(packaged, "__file__", str(tmp_path / "__init__.py"))
    with pytest.raises(WeightsError, match="damaged or edited"):
        Enhancer.load(name)


def test_other_names_are_files() -> None:
    assert find_packaged("models/ge2e/seed.safetensors") is None
    with pytest.raises(WeightsError, match="no such model"):
        Enhancer.load("no-such-name")


def test_they_are_part_of_the_package() -> None:
    data = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["pipeline"]
    assert {"model/packaged/*.safetensors", "model/packaged/*.md"} <= set(data)
