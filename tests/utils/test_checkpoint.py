import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from pipeline.errors import WeightsError
from pipeline.utils.checkpoint import drop_heads, find_tensors, load_state, read_checkpoint


def one_line(error: pytest.ExceptionInfo[WeightsError]) -> str:
    message = str(error.value)
    assert len(message.splitlines()) == 1
    return message


class Touch:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (self.path,)


class System(Touch):
    """Unpickling it runs a shell."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.path}",)


class TestReadCheckpoint:
    @pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
    def test_round_trip(self, tmp_path: Path, suffix: str) -> None:
        state = {"weight": torch.arange(6.0).reshape(2, 3)}
        path = tmp_path / f"net{suffix}"
        save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
        torch.testing.assert_close(read_checkpoint(path), state)

    @pytest.mark.parametrize("kind", [Touch, System])
    @pytest.mark.parametrize("zipped", [True, False])
    def test_hostile_pickle_is_not_run(self, tmp_path: Path, kind: type[Touch], zipped: bool) -> None:
        path, proof = tmp_path / "net.pt", tmp_path / "proof"
        torch.save({"weight": kind(proof)}, path, _use_new_zipfile_serialization=zipped)
        with pytest.raises(WeightsError, match=r"wants to run \S+, which is refused") as error:
            read_checkpoint(path)
        assert str(path) in one_line(error)
        assert not proof.exists()
        pickle.loads(pickle.dumps(kind(proof)))
        assert proof.exists()  # the attack is real

    @pytest.mark.filterwarnings("ignore:Detected pickle protocol")
    def test_plain_hostile_pickle_is_not_run(self, tmp_path: Path) -> None:
        path, proof = tmp_path / "net.pt", tmp_path / "proof"
        path.write_bytes(pickle.dumps({"weight": System(proof)}))
        with pytest.raises(WeightsError) as error:
            read_checkpoint(path)
        one_line(error)
        assert not proof.exists()

    @pytest.mark.parametrize("suffix", [".pt", ".old.pt", ".safetensors"])
    @pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
    def test_truncated(self, tmp_path: Path, suffix: str, share: float) -> None:
        state, whole, path = {"weight": torch.zeros(100, 100)}, tmp_path / "whole", tmp_path / f"net{suffix}"
        if suffix == ".safetensors":
            save_file(state, whole)
        else:
            torch.save(state, whole, _use_new_zipfile_serialization=suffix == ".pt")
        path.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * share)])
        with pytest.raises(WeightsError, match="cannot read weights") as error:
            read_checkpoint(path)
        assert str(path) in one_line(error)

    def test_noise_and_wrong_content(self, tmp_path: Path) -> None:
        path = tmp_path / "net.pt"
        path.write_bytes(b"<html>\nplease log in\n</html>")
        with pytest.raises(WeightsError, match="cannot read weights") as error:
            read_checkpoint(path)
        one_line(error)
        torch.save(torch.zeros(3), path)
        with pytest.raises(WeightsError, match="hold a Tensor"):
            read_checkpoint(path)
        with pytest.raises(WeightsError, match="no weights at"):
            read_checkpoint(tmp_path / "none.pt")


class TestLoadState:
    def test_fits(self) -> None:
        module, other = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
        load_state(module, other.state_dict(), "net.pt")
        torch.testing.assert_close(module.state_dict(), other.state_dict())

    def test_names_what_does_not_fit(self) -> None:
        module = torch.nn.Sequential(*(torch.nn.Linear(3, 2) for _ in range(3)))
        before = {key: value.clone() for key, value in module.state_dict().items()}
        state = {"0.weight": torch.zeros(2, 4), "0.bias": torch.ones(2), "extra": torch.zeros(1), "epoch": 3}
        with pytest.raises(WeightsError) as error:
            load_state(module, state, "net.pt")
        message = one_line(error)
        assert "weights net.pt do not fit Sequential" in message
        assert "4 missing (1.weight, 1.bias, 2.weight, ...)" in message
        assert "2 unexpected (extra, epoch)" in message
        assert "1 of another shape (0.weight [2, 4] instead of [2, 3])" in message
        torch.testing.assert_close(module.state_dict(), before)

    def test_what_is_no_tensor_has_another_shape(self) -> None:
        with pytest.raises(WeightsError, match=r"0\.bias str instead of \[2\]|bias str instead of \[2\]"):
            load_state(torch.nn.Linear(3, 2), {"weight": torch.zeros(2, 3), "bias": "no"}, "net.pt")


LINEAR = {"fc.weight": torch.ones(2, 3), "fc.bias": torch.zeros(2)}
Wrap = Callable[[dict[str, Tensor]], dict[str, object]]


class TestTensorsOf:
    @pytest.mark.parametrize(
        "wrap",
        [
            lambda state: state,
            lambda state: {"model": state, "epoch": 3},
            lambda state: {"state_dict": {f"resnet.{key}": value for key, value in state.items()}},
            lambda state: {f"module.__S__.{key}": value for key, value in state.items()},
            lambda state: {f"module.model.{key}": value for key, value in state.items()},
            lambda state: {"model": {"state_dict": {f"_orig_mod.{key}": value for key, value in state.items()}}},
        ],
    )
    def test_what_trainers_put_around_is_taken_off(self, wrap: Wrap) -> None:
        assert find_tensors(wrap(LINEAR), Path("net.pt")) == LINEAR

    def test_a_head_beside_a_nest_does_not_hide_it(self) -> None:
        nested = {f"encoder.{key}": value for key, value in LINEAR.items()}
        state = find_tensors(nested | {"classifier.weight": torch.ones(9, 2)}, Path("net.pt"))
        assert set(state) == {*LINEAR, "classifier.weight"}

    def test_without_any(self) -> None:
        with pytest.raises(WeightsError, match="hold no tensors, but epoch, optimizer; give") as error:
            find_tensors({"epoch": 3, "optimizer": {"lr": 0.1}}, Path("net.pt"))
        one_line(error)


def test_heads_are_dropped_unless_the_network_has_them() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.projection = nn.Linear(2, 2)

    own = Net().state_dict()
    heads = [
        "__L__.weight",
        "classifier.weight",
        "loss.W",
        "projection.extra",
        "similarity_weight",
        "head.classifier.b",
    ]
    kept = drop_heads(own | {key: torch.zeros(1) for key in [*heads, "fc.weight"]}, Net())
    assert set(kept) == {*own, "fc.weight"}  # what is neither ours nor a head stays, to be refused
