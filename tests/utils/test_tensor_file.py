"""Files of models and checkpoints: damage to any byte is noticed."""

from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from pipeline.utils.tensor_file import read_tensor_file, write_tensor_file
from tests.damage import CountDamage, damage, damages
from tests.project import few_or_many

TENSORS = {"b": torch.arange(6.0).reshape(2, 3), "a": torch.tensor([True, False]), "c": torch.tensor(7)}
CONTENT = {"format": "x", "numbers": [1, 2.5], "key": None}


@pytest.mark.endurance
def test_damage_to_any_byte_is_noticed(tmp_path: Path, count_damage: CountDamage) -> None:
    path = tmp_path / "t.safetensors"
    write_tensor_file(path, CONTENT, TENSORS)
    original = path.read_bytes()
    for what, content in damages(original, few_or_many(60, 2000), 0):
        path.write_bytes(original)
        damage(path, content)
        try:
            read = read_tensor_file(path)
        except (OSError, ValueError, SafetensorError):
            count_damage("noticed")
            continue
        same = read.content == CONTENT and all(torch.equal(read.tensors[name], TENSORS[name]) for name in TENSORS)
        if read.has_digest:
            assert same, what
            count_damage("harmless")
        else:  # the name of the digest is damaged: its caller refuses the unknown name, or warns
            assert read.content != CONTENT, what
            count_damage("noticed")


def test_the_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    for name, tensors in (("a", TENSORS), ("b", dict(reversed(TENSORS.items())))):
        write_tensor_file(tmp_path / name, CONTENT, tensors)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
