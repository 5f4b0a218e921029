import ast
import copy
import json
import random
import re
import struct
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from pipeline.config.train import Train
from pipeline.errors import ConfigError, SeedWarning, WeightsError
from pipeline.model.card import card, write_card
from pipeline.model.model_file import load_model, save_model
from pipeline.model.seed_model import SeedModel
from pipeline.utils.tensor_file import read_tensor_file, write_tensor_file

DIM = 6
ENCODER = {"encoder": "toy", "family": "linear", "weights_sha256": "ab", "front_end": None, "dim": DIM}
SUMMARY = {
    "timestep": 50,
    "best_epoch": 1,
    "epochs": 2,
    "noisy_views": ["noise"],
    "held_out_eer": {name: {"clean": 1.0, "noisy": 2.0} for name in ("raw", "enhanced")},
}
FLIPS = 300


@pytest.fixture(params=[False, True], ids=["usual", "compact"])
def path(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    torch.manual_seed(0)
    model = SeedModel(DIM, Train())
    torch.nn.init.normal_(model.network.out[2].weight)
    model.strength.fill_(0.4)
    save_model(tmp_path / "m.safetensors", model.eval(), ENCODER, SUMMARY, compact=request.param)
    return tmp_path / "m.safetensors"


def read_all(path: Path) -> tuple[Any, ...]:
    """Return everything that a file says, but for the hash of its bytes."""
    loaded = load_model(path)
    state = {name: tensor.numpy().tobytes() for name, tensor in loaded.model.state_dict().items()}
    return state, loaded.encoder, loaded.metadata, loaded.timestep


def test_no_flipped_byte_is_silent(path: Path) -> None:
    whole, content = path.read_bytes(), read_all(path)
    header = 8 + struct.unpack("<Q", whole[:8])[0]
    rng = random.Random(7)
    # The header is small beside the tensors, and has fields of all kinds.
    places = [rng.randrange(limit) for limit in (header, len(whole)) for _ in range(FLIPS)]
    places += list(range(8)) + [whole.index(word) for word in (b'"digest', b"digest", b'"seed', b"F32", b"seed-2")]
    detected = 0
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        try:
            with warnings.catch_warnings(action="error"):
                found = read_all(path)
        except WeightsError as error:
            detected += "\n" not in str(error)
        else:
            assert found == content, f"byte {place}"
    assert detected >= 0.95 * len(places)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("training", value) for value in (None, [], [1], "text", 3, {"timestep": "a"}, {"noisy_views": 3})),
        *(("training", value) for value in ({"held_out_eer": {"raw": {}}}, {"validation_loss": "low"})),
        *(("encoder", value) for value in (None, [], "text", {}, {"dim": DIM, "encoder": 3})),
        *(("settings", value) for value in (None, [], "text", {"network": None})),
        *((key, value) for key in ("vectors", "adaptation", "only_timestep", "strength") for value in ([], "text")),
        ("only_timestep", -1),
        ("format", None),
        ("unknown", 1),
    ],
)
def test_metadata_of_a_wrong_type_are_one_line(path: Path, key: str, value: object) -> None:
    file = read_tensor_file(path)
    write_tensor_file(path, {**file.content, key: value}, file.tensors)
    with pytest.raises(WeightsError, match=r"not a SEED model; |model format None") as said:
        load_model(path)
    assert "\n" not in str(said.value)


def test_metadata_without_optional_facts_make_a_card(path: Path) -> None:
    file = read_tensor_file(path)
    write_tensor_file(path, {key: value for key, value in file.content.items() if key != "training"}, file.tensors)
    assert load_model(path).timestep == 50
    write_card(path, path.with_suffix(".md"))


def test_what_could_not_be_loaded_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"metadata: training.timestep: .*integer"):
        save_model(tmp_path / "m.safetensors", SeedModel(DIM, Train()), ENCODER, {"timestep": 5.5})
    assert not list(tmp_path.iterdir())


def test_a_file_without_a_digest_warns_once(path: Path) -> None:
    file = read_tensor_file(path)
    older = path.with_name("older.safetensors")
    save_file(file.tensors, older, {"seed": json.dumps(file.content)})
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert read_all(older) == read_all(path)
        load_model(older)
    assert [each.category for each in said] == [SeedWarning]
    assert "was saved by a version that wrote no checksum" in str(said[0].message)


def test_a_changed_model_is_saved_with_a_digest_of_its_own(path: Path) -> None:
    loaded = load_model(path)
    loaded.model.strength.fill_(0.25)
    changed = path.with_name("changed.safetensors")
    save_model(changed, loaded.model, loaded.encoder, loaded.metadata["training"])
    assert load_model(changed).model.default_strength == 0.25
    content = copy.deepcopy(dict(load_model(changed).metadata))
    assert content.pop("strength") == 0.25
    assert content.items() <= dict(loaded.metadata).items()


def test_a_card_takes_foreign_names_as_text(path: Path) -> None:
    evil = "<img src=x onerror=alert(1)> [a](b) `c`\n# d"
    loaded = load_model(path)
    summary = {**SUMMARY, "noisy_views": [evil], "held_out": evil}
    save_model(path, loaded.model, {**loaded.encoder, "encoder": evil}, summary)
    written = card(load_model(path), 'm"\n```\n<b>.safetensors')
    assert not re.search(r"<(img|b)\b", re.sub(r"```python\n.*?\n```", "", written, flags=re.DOTALL))
    code = re.findall(r"```python\n(.*?)\n```\n", written, re.DOTALL)
    assert len(code) == 1
    ast.parse(code[0])
    assert "\n# d" not in written
