import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "own_encoder"

USE = """
import json, torch
from pipeline.config.encoder import EncoderDefinition
from pipeline.encoders.registry import families, load_encoder

def encoder(weights=None):
    return load_encoder("own", EncoderDefinition(family="own_encoder", weights=weights))

own = encoder()
waves = [torch.randn(length, generator=torch.Generator().manual_seed(length)) for length in (16000, 20000, 16000, 30)]
embeddings = own(waves)
torch.save(own.network.state_dict(), "own.pt")
alone = torch.cat([own([wave]) for wave in waves])
print(json.dumps({
    "families": families(), "dim": own.dim, "shape": embeddings.shape, "alone": (embeddings - alone).abs().max().item(),
    "finite": embeddings.isfinite().all().item(), "spread": embeddings.std(dim=0).mean().item(),
    "sha256": own.weights_sha256, "loaded": torch.equal(encoder("own.pt")(waves), embeddings),
    "loaded_sha256": encoder("own.pt").weights_sha256,
}))
try:
    torch.save({}, "wrong.pt")
    encoder("wrong.pt")
except Exception as error:
    print(json.dumps(f"{type(error).__name__}: {error}"))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the example is installed in."""
    # A copy: building leaves folders beside the source.
    source, target = tmp_path_factory.mktemp("source") / "own_encoder", tmp_path_factory.mktemp("target")
    shutil.copytree(EXAMPLE, source)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
    command += ["--no-deps", "--no-build-isolation", "--target", str(target), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return target


def test_the_example_encodes_once_it_is_installed(installed: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(installed), str(ROOT)])}
    done = subprocess.run(
        [sys.executable, "-c", USE], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found, refused = map(json.loads, done.stdout.splitlines())
    assert "own_encoder" in found["families"]
    assert (found["dim"], found["shape"], found["finite"], found["sha256"]) == (64, [4, 64], True, None)
    assert found["alone"] < 1e-5
    assert found["spread"] > 0.05
    assert found["loaded"]
    assert len(found["loaded_sha256"]) == 64
    assert refused.startswith("WeightsError: encoder own: own_encoder:build failed: ")


def test_the_document_shows_the_example() -> None:
    shown = (ROOT / "docs" / "encoders.md").read_text()
    for name in ("pyproject.toml", "own_encoder.py"):
        assert (EXAMPLE / name).read_text() in shown
