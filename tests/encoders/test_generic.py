import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper, save
from torch import Tensor, nn

from pipeline.config.encoder import EncoderDefinition
from pipeline.encoders.encoder import Encoder, repeat_to_length
from pipeline.encoders.front_end import build_front_end
from pipeline.encoders.generic import MIN_SAMPLES
from pipeline.encoders.registry import GENERIC, families, load_encoder
from pipeline.errors import ConfigError, SeedError, WeightsError
from pipeline.utils.atomic import sha256_of
from tests.conftest import voice
from tests.encoders.test_features import kaldi

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")

FAMILIES = ("torchscript", "onnx")
DIM = 8
FBANK = {"kind": "kaldi_fbank", "mels": 40}
WEIGHT = torch.randn(40, DIM, generator=torch.Generator().manual_seed(1)) / 50
WAVE_WEIGHT = torch.randn(2, DIM, generator=torch.Generator().manual_seed(2))


class Tiny(nn.Module):
    """Mean magnitude over time, projected: [B, T, 40] or [B, 40, T] to [B, 8]."""

    def __init__(self, axis: int = 1) -> None:
        super().__init__()
        self.axis = axis
        self.register_buffer("weight", WEIGHT)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x.abs().mean(self.axis) @ self.weight)


class TinyOfWaves(nn.Module):
    """Mean and largest magnitude, projected: [B, S] to [B, 8]."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", WAVE_WEIGHT)

    def forward(self, x: Tensor) -> Tensor:
        x = x.abs()
        return torch.stack([x.mean(1), x.amax(1)], dim=1) @ self.weight


class Odd(nn.Module):
    """A Tiny whose output is then bent: not what an embedding should be, or not how it should come."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.tiny = Tiny()

    def forward(self, x: Tensor) -> Tensor:
        y = self.tiny(x)
        if self.how == "row":
            y = y.unsqueeze(1)
        elif self.how == "column":
            y = y.unsqueeze(2)
        elif self.how == "frames":
            y = x
        elif self.how == "flat":
            y = y.flatten()
        elif self.how == "length":
            y = x[:, :, 0]
        elif self.how == "nan":
            y = y / 0.0
        elif self.how == "random":
            y = y + torch.rand_like(y)
        elif self.how == "first row only":
            y = y[:1].expand_as(y)
        elif self.how == "one row":
            y = y.reshape(1, 8)
        return y


class Two(nn.Module):
    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        return x.mean(1)


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tiny = Tiny()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.tiny(x), x


class Words(nn.Module):
    def forward(self, x: Tensor) -> str:
        return "words"


def script(module: nn.Module, path: Path) -> Path:
    torch.jit.save(torch.jit.script(module.eval()), path)
    return path


def onnx_file(
    path: Path,
    shape: tuple[str | int, ...] = ("batch", "frames", 40),
    axis: int = 1,
    then: Callable[[str], list[Any]] = lambda name: [helper.make_node("Identity", [name], ["y"])],
    element: int = TensorProto.FLOAT,
    others: tuple[str, ...] = (),
    out: tuple[str | int, ...] | None = ("batch", DIM),
    **saving: Any,
) -> Path:
    """What Tiny computes, then the nodes of `then` from the embedding to `y`."""
    constants = {
        "axes": np.array([axis]), "weight": WEIGHT.numpy(), "one": np.array([1]), "two": np.array([2]),
        "one_row": np.array([1, DIM]),
    }  # fmt: skip
    nodes = [
        helper.make_node("Abs", ["x"], ["abs"]),
        helper.make_node("ReduceMean", ["abs", "axes"], ["mean"], keepdims=0),
        helper.make_node("MatMul", ["mean", "weight"], ["product"]),
        helper.make_node("Tanh", ["product"], ["embedding"]),
        *then("embedding"),
    ]
    if element != TensorProto.FLOAT:
        nodes = [helper.make_node("Cast", ["x"], ["cast"], to=TensorProto.FLOAT), *nodes]
        nodes[1].input[0] = "cast"
    inputs = [helper.make_tensor_value_info("x", element, shape)]
    inputs += [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch"]) for name in others]
    graph = helper.make_graph(
        nodes, "tiny", inputs, [helper.make_tensor_value_info("y", TensorProto.FLOAT, out)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )  # fmt: skip
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path, **saving)
    return path


def onnx_of_waves(path: Path) -> Path:
    nodes = [
        helper.make_node("Abs", ["x"], ["abs"]),
        helper.make_node("ReduceMean", ["abs", "axes"], ["mean"]),
        helper.make_node("ReduceMax", ["abs", "axes"], ["max"]),
        helper.make_node("Concat", ["mean", "max"], ["both"], axis=1),
        helper.make_node("MatMul", ["both", "weight"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes, "waves", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", "s"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["b", DIM])],
        [numpy_helper.from_array(np.array([1]), "axes"), numpy_helper.from_array(WAVE_WEIGHT.numpy(), "weight")],
    )  # fmt: skip
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def encoder(path: Path, **keys: Any) -> Encoder:
    family = "onnx" if path.suffix == ".onnx" else "torchscript"
    return load_encoder(
        "own", EncoderDefinition(**{"family": family, "weights": str(path), "front_end": FBANK, **keys})
    )


@pytest.fixture(params=FAMILIES)
def tiny(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A file of either family with what Tiny computes."""
    return script(Tiny(), tmp_path / "tiny.pt") if request.param == "torchscript" else onnx_file(tmp_path / "tiny.onnx")


def waves(*seconds: float) -> list[Tensor]:
    return [torch.from_numpy(voice(100 + 30 * index, length, index)) for index, length in enumerate(seconds)]


def test_files_are_families() -> None:
    assert set(FAMILIES) < set(families())


def test_embeddings_are_those_of_the_module_on_kaldis_features(tiny: Path) -> None:
    own = encoder(tiny)
    assert (own.dim, own.min_samples, own.weights_sha256) == (DIM, MIN_SAMPLES, sha256_of(tiny))
    assert own.front_end is not None
    assert own.front_end["kind"] == "kaldi_fbank"
    batch = waves(1.1, 2.015, 1.1)
    for wave, embedding in zip(batch, own(batch), strict=True):
        fbank = torch.from_numpy(kaldi(wave.numpy(), "povey", 1.0, 40))[None]
        (expected,) = Tiny()(fbank - fbank.mean(dim=1, keepdim=True))
        torch.testing.assert_close(embedding, expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("kind", ["kaldi_fbank", "log_mel"])
@pytest.mark.parametrize("layout", ["frames_mels", "mels_frames"])
@pytest.mark.parametrize("family", FAMILIES)
def test_both_layouts(tmp_path: Path, family: str, layout: str, kind: str) -> None:
    axis, shape = (1, ("b", "t", 40)) if layout == "frames_mels" else (2, ("b", 40, "t"))
    path = (
        script(Tiny(axis), tmp_path / "x.pt")
        if family == "torchscript"
        else onnx_file(tmp_path / "x.onnx", shape, axis)
    )
    own = encoder(path, front_end={"kind": kind, "mels": 40, "layout": layout, "remove_mean": False})
    (wave,) = waves(1.2)
    declared = EncoderDefinition(family=family, front_end={"kind": kind, "mels": 40, "remove_mean": False}).front_end  # type: ignore[arg-type]
    assert declared is not None
    expected = Tiny()(build_front_end(declared, "x")(wave[None]))
    torch.testing.assert_close(own([wave]), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_waves_go_in_as_they_are(tmp_path: Path, family: str) -> None:
    path = script(TinyOfWaves(), tmp_path / "x.pt") if family == "torchscript" else onnx_of_waves(tmp_path / "x.onnx")
    own = encoder(path, front_end={"kind": "waveform", "scale": 100})
    (wave,) = waves(0.9)
    torch.testing.assert_close(own([wave]), TinyOfWaves()(100 * wave[None]), atol=1e-5, rtol=1e-5)


def test_a_batch_gives_what_each_wave_gives_alone(tiny: Path) -> None:
    own, batch = encoder(tiny), waves(0.7, 1.3, 0.7, 0.7, 0.01)
    together = own(batch)
    assert (together.shape, together.dtype) == ((5, DIM), torch.float32)
    for wave, embedding in zip(batch, together, strict=True):
        torch.testing.assert_close(embedding, own([wave])[0], atol=1e-5, rtol=1e-5)
    assert (together[0] - together[2]).abs().max() > 0.01


def test_short_waves_are_repeated_to_the_declared_length(tiny: Path) -> None:
    (wave,) = waves(0.1)
    for own, length in ((encoder(tiny), MIN_SAMPLES), (encoder(tiny, min_samples=1200), 1200)):
        assert own.min_samples == length
        assert torch.equal(own([wave]), own([repeat_to_length(wave, length)]))


def test_runs_repeat_bit_by_bit_and_in_two_threads_at_once(tiny: Path) -> None:
    own = encoder(tiny)
    batches = [waves(0.6 + 0.1 * (index % 5), 1.0) for index in range(20)]
    expected = [own(batch) for batch in batches]
    with ThreadPoolExecutor(2) as pool:
        for found, alone in zip(pool.map(own, batches), expected, strict=True):
            assert torch.equal(found, alone)


def test_half_precision_leaves_features_exact(tiny: Path) -> None:
    definition = EncoderDefinition(family=encoder(tiny).family, weights=str(tiny), front_end=FBANK)  # type: ignore[arg-type]
    half, batch = load_encoder("own", definition, precision="bfloat16"), waves(1.0)
    found = half(batch)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, encoder(tiny)(batch), atol=0.02, rtol=0)


def test_traced_and_frozen_modules_load(tmp_path: Path) -> None:
    traced = torch.jit.trace(Tiny().eval(), torch.randn(2, 50, 40))
    batch = waves(0.8, 1.1)
    expected = encoder(script(Tiny(), tmp_path / "scripted.pt"))(batch)
    for name, module in {"traced": traced, "frozen": torch.jit.freeze(traced)}.items():
        torch.jit.save(module, tmp_path / f"{name}.pt")
        torch.testing.assert_close(encoder(tmp_path / f"{name}.pt")(batch), expected)


def test_the_first_of_several_outputs_is_taken(tmp_path: Path) -> None:
    batch = waves(0.8)
    expected = encoder(script(Tiny(), tmp_path / "tiny.pt"))(batch)
    assert torch.equal(encoder(script(Pair(), tmp_path / "pair.pt"))(batch), expected)


def unsqueezed(axis: str) -> Callable[[str], list[Any]]:
    return lambda name: [helper.make_node("Unsqueeze", [name, axis], ["y"])]


def reshaped(name: str) -> list[Any]:
    return [helper.make_node("Reshape", [name, "one_row"], ["y"])]


def test_an_axis_of_one_is_squeezed(tmp_path: Path) -> None:
    batch = waves(0.8, 0.8, 1.0)
    expected = encoder(script(Tiny(), tmp_path / "tiny.pt"))(batch)
    files = [script(Odd(how), tmp_path / f"{how}.pt") for how in ("row", "column")]
    files += [onnx_file(tmp_path / f"{axis}.onnx", then=unsqueezed(axis), out=None) for axis in ("one", "two")]
    for path in files:
        own = encoder(path)
        torch.testing.assert_close(own(batch), expected, atol=1e-5, rtol=1e-5)
        assert not own.network.one_by_one


def test_files_for_one_row_get_rows_one_by_one(tmp_path: Path) -> None:
    batch = waves(0.8, 0.8, 1.0, 0.8)
    expected = encoder(script(Tiny(), tmp_path / "tiny.pt"))(batch)
    for path in (
        onnx_file(tmp_path / "declared.onnx", (1, "frames", 40), out=(1, DIM)),
        onnx_file(tmp_path / "reshaped.onnx", then=reshaped, out=None),
        script(Odd("one row"), tmp_path / "reshaped.pt"),
        script(Odd("first row only"), tmp_path / "mixed.pt"),
    ):
        own = encoder(path)
        assert own.network.one_by_one
        torch.testing.assert_close(own(batch), expected, atol=1e-5, rtol=1e-5)


BAD = {
    "frames": "dim] should be; export it with the embedding as its first output",
    "flat": "dim] should be; export it with the embedding as its first output",
    "length": "values for 16000 samples, but 48 for 8000; export it with the embedding of the whole utterance",
    "nan": "returns NaN or infinite values for noise; correct front_end",
    "random": "returns another embedding every time; export it in evaluation mode",
}


@pytest.mark.parametrize("how", BAD)
def test_outputs_that_are_no_embeddings_are_refused(tmp_path: Path, how: str) -> None:
    refuses(script(Odd(how), tmp_path / "odd.pt"), BAD[how])


def test_other_modules_are_refused(tmp_path: Path) -> None:
    refuses(script(Two(), tmp_path / "two.pt"), "forward() is missing value for argument 'lengths'")
    refuses(script(Words(), tmp_path / "words.pt"), "returns a str; export it")
    refuses(script(Tiny(), tmp_path / "tiny.pt"), "fails for features [1, 98, 80]: ", front_end={"kind": "kaldi_fbank"})


def test_other_graphs_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    refuses(onnx_file(path, others=("lengths",)), "has 2 inputs (x, lengths); export it with one")
    refuses(onnx_file(path, ("batch", 40), 1), "takes ['batch', 40], but its front_end gives 3 axes; correct front_end")
    refuses(onnx_file(path, (4, "frames", 40), out=(4, DIM)), "takes batches of 4 only")
    refuses(onnx_file(path, element=TensorProto.DOUBLE), "takes tensor(double); export it with a float32 input")
    refuses(onnx_file(path, ("batch", 200, 40)), "fails for features [1, 98, 40]: ")
    refuses(onnx_file(path), "fails for features [1, 98, 80]: ", front_end={"kind": "kaldi_fbank"})


def test_tensors_in_other_files_are_refused(tmp_path: Path) -> None:
    path = onnx_file(tmp_path / "x.onnx", save_as_external_data=True, location="x.data", size_threshold=500)
    assert (tmp_path / "x.data").exists()
    refuses(path, "export it with its weights inside")


@pytest.mark.parametrize("damage", ["empty", "text", "truncated", "checkpoint", "folder"])
def test_damaged_files_are_refused(tiny: Path, damage: str) -> None:
    content = tiny.read_bytes()
    if damage == "checkpoint":
        torch.save({"weight": WEIGHT}, tiny)
    elif damage == "folder":
        tiny.unlink()
        tiny.mkdir()
    else:
        tiny.write_bytes({"empty": b"", "text": b"<html>Not found</html>", "truncated": content[:-200]}[damage])
    refuses(tiny, "no weights" if damage == "folder" else "cannot be read as")


def refuses(path: Path, said: str, **keys: Any) -> None:
    with pytest.raises(WeightsError) as refused:
        encoder(path, **keys)
    text = str(refused.value)
    assert said in text
    assert str(path) in text
    assert "\n" not in text
    assert len(text) < 500


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"front_end": None}, "write front_end: with kind: waveform, kaldi_fbank or log_mel .* under encoder.own"),
        ({"min_samples": 100}, "min_samples is 100, but its front_end needs 400"),
        ({"dim": 16}, "gives 8-d embeddings, but its dim is set to 16"),
        ({"weights": None}, "needs a file; give `weights` in params.yaml under encoder.own"),
    ],
)
def test_definitions_that_do_not_fit_are_refused(tiny: Path, keys: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=f"^encoder own: .*{said}"):
        encoder(tiny, **keys)


def test_the_checksum_is_checked(tiny: Path) -> None:
    encoder(tiny, sha256=sha256_of(tiny).upper())
    with pytest.raises(WeightsError, match="expected"):
        encoder(tiny, sha256="0" * 64)


def test_onnxruntime_is_optional(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = onnx_file(tmp_path / "x.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigError, match=r"needs onnxruntime; pip install '\.\[onnx\]'"):
        encoder(path)


class _NoCuda:
    """A stand-in for features on a GPU that is not there."""

    device = torch.device("cuda", 0)


def test_a_runtime_without_cuda_says_so(tmp_path: Path) -> None:
    definition = EncoderDefinition(family="onnx", front_end=FBANK)  # type: ignore[arg-type]
    network = GENERIC["onnx"](onnx_file(tmp_path / "x.onnx"), definition, "own")
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime can use CUDA")
    with pytest.raises(SeedError, match="cannot use CUDA; install onnxruntime-gpu"):
        network._run(_NoCuda())  # type: ignore[operator]


def test_a_gpu_gives_the_same(tiny: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    cuda = torch.device("cuda")
    definition = EncoderDefinition(family=encoder(tiny).family, weights=str(tiny), front_end=FBANK)  # type: ignore[arg-type]
    batch = waves(1.0, 0.8, 1.0)
    found = load_encoder("own", definition, cuda)(batch)
    torch.testing.assert_close(found, encoder(tiny)(batch), atol=1e-3, rtol=1e-3)
