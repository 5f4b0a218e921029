import hashlib
import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np

from pipeline.data.trials.lists import TrialCounts
from pipeline.scoring.provenance import describe_file, describe_list, describe_protocol, describe_store, read_versions
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.store.schema import FAILED, OK
from pipeline.store.writer import write_store

MADE_OF = {
    "encoder": "toy",
    "weights_sha256": "ab",
    "dim": 4,
    "recipe": {"views": [], "draws": 1},
    "manifest_sha256": "cd",
    "enhanced_by_sha256": "ef",
    "timestep": 50,
}


def make(path: Path) -> EmbeddingStore:
    values = np.full((3, 1, 1, 4), np.nan, dtype=np.float32)
    values[:2] = 1
    write_store(path, ["a", "b", "c"], values, np.array([OK, OK, FAILED], np.uint8), MADE_OF | {"seed": 7})
    return EmbeddingStore.open(path)


def test_versions_are_those_installed_and_nothing_is_imported_for_them() -> None:
    found = read_versions()
    assert list(found) == ["seed", "python", "numpy", "scipy", "torch", "zarr"]
    assert found["seed"] == version("speaker-seed")
    assert found["numpy"] == np.__version__
    code = "import sys; from pipeline.scoring import provenance as p; p.read_versions(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_a_store_is_told_by_what_it_was_made_of(tmp_path: Path) -> None:
    assert describe_store(make(tmp_path / "s.zarr")) == {"store": "s.zarr", "utterances": 3, "encoded": 2, **MADE_OF}


def test_a_list_is_told_by_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    path.write_bytes(b"1 a b\n")
    told = {"file": "t.txt", "sha256": hashlib.sha256(b"1 a b\n").hexdigest()}
    assert describe_file(path) == told
    assert describe_list(path, "VoxCeleb", TrialCounts(1, 1)) == told | {"form": "VoxCeleb", "trials": 1, "targets": 1}


def test_a_protocol_is_the_same_in_every_folder(tmp_path: Path) -> None:
    protocols = []
    for folder in ("here", "there"):
        store = make(tmp_path / folder / "s.zarr")
        (tmp_path / folder / "t.txt").write_text("1 a b\n")
        listed = describe_list(tmp_path / folder / "t.txt", "VoxCeleb", TrialCounts(1, 1))
        protocols.append(describe_protocol({"enrol": store}, trials=listed, seed=0, enrolment=None))
    assert protocols[0] == protocols[1]
    assert list(protocols[0]) == ["versions", "stores", "trials", "seed"]
    assert str(tmp_path) not in json.dumps(protocols[0])
