"""Checkpoints of the paper's own code, made of random weights by their published names, against its equations."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import layer_norm, linear, normalize, silu

from pipeline.config.params import Params, read_params
from pipeline.encoders.families import FAMILIES
from pipeline.errors import ConfigError, WeightsError
from pipeline.model.apply import enhance_vectors
from pipeline.model.convert import PAPER, convert, describe_encoder
from pipeline.model.diffusion.sampler import Sampling
from pipeline.model.domain import domain_confidence
from pipeline.model.enhancer import Enhancer
from pipeline.model.model_file import load_model, save_model
from pipeline.model.seed_model import SeedModel
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.store.schema import OK
from pipeline.store.writer import write_store
from pipeline.training.train import train
from pipeline.utils.atomic import sha256_of
from tests.stages.test_cli import PROJECT, run
from tests.training.test_train import make_store
from tests.utils.test_checkpoint import Touch

State = dict[str, Tensor]


def checkpoint(dim: int = 16, blocks: int = 3, width: int = 2, seed: int = 0) -> State:
    """Random weights of a network by the names that its authors gave them."""
    hidden, source = width * dim, torch.Generator().manual_seed(seed)
    shapes = {"time_embed.0": (dim, hidden), "time_embed.2": (dim, dim), "input_proj": (hidden, dim)}
    for block in range(blocks):
        shapes |= {
            f"res_blocks.{block}.in_layers.0": (hidden,),
            f"res_blocks.{block}.in_layers.2": (hidden, hidden),
            f"res_blocks.{block}.emb_layers.1": (hidden, dim),
            f"res_blocks.{block}.out_layers.0": (hidden,),
            f"res_blocks.{block}.out_layers.3": (hidden, hidden),
        }
    shapes |= {"out.0": (hidden,), "out.2": (dim, hidden)}
    state = {}
    for name, shape in shapes.items():
        norm = len(shape) == 1
        state[f"{name}.weight"] = torch.randn(shape, generator=source) * (0.2 if norm else shape[-1] ** -0.5) + norm
        state[f"{name}.bias"] = 0.1 * torch.randn(shape[0], generator=source)
    return state


def network(state: State, x: Tensor, t: int) -> Tensor:
    """The authors' network by its equations, in float64: its output [B, D] for x [B, D]."""
    w = {name: tensor.double() for name, tensor in state.items()}

    def dense(name: str, h: Tensor) -> Tensor:
        return linear(h, w[f"{name}.weight"], w[f"{name}.bias"])

    def norm(name: str, h: Tensor, eps: float) -> Tensor:
        return layer_norm(h, h.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], eps)

    half = w["time_embed.0.weight"].shape[1] // 2
    angles = t * torch.exp(-math.log(10_000) * torch.arange(half, dtype=torch.float64) / half)
    time = dense("time_embed.2", silu(dense("time_embed.0", torch.cat([angles.cos(), angles.sin()])[None])))
    h = dense("input_proj", x.double())
    for block in range(len({name.split(".")[1] for name in w if name.startswith("res_blocks.")})):
        at = f"res_blocks.{block}"
        inner = dense(f"{at}.in_layers.2", silu(norm(f"{at}.in_layers.0", h, 1e-5)))
        inner = inner + dense(f"{at}.emb_layers.1", silu(time))
        h = h + dense(f"{at}.out_layers.3", silu(norm(f"{at}.out_layers.0", inner, 1e-5)))
    return dense("out.2", silu(norm("out.0", h, 1e-6)))


def paper(state: State, raw: Tensor, noise: Tensor | None, t: int = 50) -> Tensor:
    """What the paper makes of raw vectors [B, D]: to length sqrt(D), forward to t, and the predicted sample."""
    x = normalize(raw.double(), dim=1) * raw.shape[1] ** 0.5
    abar = float(np.cumprod(1 - np.linspace(1e-4**0.5, 0.02**0.5, 1000) ** 2)[t])
    x_t = math.sqrt(abar) * x + (0 if noise is None else math.sqrt(1 - abar) * noise.double())
    return network(state, x_t, t)


def vectors(count: int, dim: int) -> Tensor:
    return 3 * torch.randn(count, dim, generator=torch.Generator().manual_seed(7)) + 1


def converted(path: Path, **options: Any) -> SeedModel:
    """Convert a checkpoint, write the model and read it again."""
    out = path.with_name("seed.safetensors")
    model = convert(path, **options).model
    save_model(out, model, {"encoder": "toy", "dim": model.dim}, {})
    return load_model(out).model


def assert_near(found: np.ndarray, expected: Tensor, state: State) -> None:
    """Allow for the rounding of float32, whatever the order in which a processor sums up.

    Errors of a sum of n products grow as the root of n, and those of layers as the root of their number, as rounding
    goes both ways (Higham and Mary 2019, A new approach to probabilistic rounding error analysis).
    """
    layers, hidden = sum(tensor.ndim == 2 for tensor in state.values()), len(state["out.0.weight"])
    bound = torch.finfo(torch.float32).eps * (layers * hidden) ** 0.5
    assert np.abs(found - expected.numpy()).max() <= bound * expected.abs().max()


@pytest.mark.parametrize(("dim", "blocks", "width"), [(16, 1, 2), (192, 3, 2), (256, 3, 2), (64, 5, 1), (24, 2, 3)])
def test_a_converted_model_gives_what_the_equations_give(tmp_path: Path, dim: int, blocks: int, width: int) -> None:
    state, raw = checkpoint(dim, blocks, width), vectors(50, dim)
    torch.save(state, tmp_path / "c.pt")
    model = converted(tmp_path / "c.pt")
    shape = model.settings.network
    assert (model.dim, shape.blocks, shape.width) == (dim, blocks, width)
    for seed in (0, 1):
        drawn = np.random.default_rng(seed).standard_normal((50, dim), dtype=np.float32)
        found = enhance_vectors(model, raw.numpy(), Sampling(50, noise=1, strength=None), seed)
        assert_near(found, paper(state, raw, torch.from_numpy(drawn)), state)
    assert_near(enhance_vectors(model, raw.numpy(), Sampling(50, strength=None)), paper(state, raw, None), state)
    noise = torch.from_numpy(np.random.default_rng(0).standard_normal((50, dim), dtype=np.float32))
    for t in (20, 500, 999):
        assert_near(enhance_vectors(model, raw.numpy(), Sampling(t, strength=None)), paper(state, raw, None, t), state)
        found = enhance_vectors(model, raw.numpy(), Sampling(t, noise=1, strength=None), 0)
        assert_near(found, paper(state, raw, noise, t), state)


@pytest.mark.parametrize(("predict", "theirs"), [("sample", "sample"), ("epsilon", "epsilon"), ("v", "v_prediction")])
def test_the_step_is_that_of_the_scheduler_of_their_code(tmp_path: Path, predict: str, theirs: str) -> None:
    """Theirs also clips at 3 sqrt(D), which no number here comes near."""
    from diffusers import DDIMScheduler  # takes seconds to import

    dim, state = 32, checkpoint(32)
    torch.save(state, tmp_path / "c.pt")
    shape = PAPER.network.model_copy(update={"predict": predict})
    model = converted(tmp_path / "c.pt", settings=PAPER.model_copy(update={"network": shape}))
    raw, drawn = vectors(20, dim), np.random.default_rng(0).standard_normal((20, dim), dtype=np.float32)
    scheduler = DDIMScheduler(
        num_train_timesteps=1000, beta_schedule="scaled_linear", prediction_type=theirs, clip_sample_range=3 * dim**0.5
    )
    scheduler.set_timesteps(50)
    x = normalize(raw, dim=1) * dim**0.5
    x_t = scheduler.add_noise(x, torch.from_numpy(drawn), torch.full((20,), 50))
    expected = scheduler.step(network(state, x_t, 50), 50, x_t.double()).pred_original_sample
    found = enhance_vectors(model, raw.numpy(), Sampling(50, noise=1, strength=None), 0)
    assert_near(found, expected, state)


def test_the_defaults_are_those_of_the_papers_parameters() -> None:
    assert read_params(PROJECT / "params/paper.yaml").train == PAPER


def test_a_converted_model_is_trusted_with_any_speech(tmp_path: Path) -> None:
    torch.save(checkpoint(), tmp_path / "c.pt")
    model = converted(tmp_path / "c.pt")
    assert float(model.strength) == 1
    assert domain_confidence(model, 100 * vectors(30, 16).numpy()) == (1.0, 0.0)


def wrapped(state: State, kind: str) -> dict[str, Any]:
    other = checkpoint(seed=1)
    prefixed = {f"module.{name}": tensor for name, tensor in state.items()}
    return {
        "state_dict": {"epoch": 3, "state_dict": state, "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}}},
        "model": {"model": {f"model.{name}": tensor for name, tensor in state.items()}},
        "module": prefixed | {"n_averaged": torch.tensor(7)},
        "whole task": {
            **{f"backbone.{name}": torch.ones(1) for name in ("conv.weight", "out.0.weight")},
            **{f"diffusion_network.{name}": tensor for name, tensor in state.items()},
            **{f"diffusion_pipeline.pipeline.model.seed_model.{name}": tensor for name, tensor in state.items()},
        },
        "averaged": {"model": other, "ema": state},
        "averaged by prefix": {
            "state_dict": {f"net.{k}": v for k, v in other.items()} | {f"model_ema.{k}": v for k, v in state.items()}
        },
        "not averaged": {"model": state, "ema": other},
        "half": {name: tensor.half() for name, tensor in state.items()},
        "double": {name: tensor.double() for name, tensor in state.items()},
    }[kind]


@pytest.mark.parametrize(
    "kind",
    ["state_dict", "model", "module", "whole task", "averaged", "averaged by prefix", "not averaged", "half", "double"],
)
def test_what_wraps_the_weights_is_taken_off(tmp_path: Path, kind: str) -> None:
    state = checkpoint()
    torch.save(wrapped(state, kind), tmp_path / "c.model")
    found = convert(tmp_path / "c.model", average=kind != "not averaged").model.network.state_dict()
    assert found.keys() == state.keys()
    for name, tensor in state.items():
        assert torch.equal(found[name], tensor.half().float() if kind == "half" else tensor)


def test_safetensors_are_read_too(tmp_path: Path) -> None:
    state = checkpoint()
    save_file(state, tmp_path / "c.safetensors")
    found = convert(tmp_path / "c.safetensors")
    assert found.sha256 == sha256_of(tmp_path / "c.safetensors")
    assert all(torch.equal(tensor, state[name]) for name, tensor in found.model.network.state_dict().items())


def spoilt(path: Path, what: str) -> None:
    """Write a file that is no checkpoint of a SEED network."""
    state: dict[str, Any] = checkpoint()
    if what == "missing":
        del state["res_blocks.1.in_layers.2.bias"], state["out.2.weight"]
    elif what == "no input":
        del state["input_proj.weight"]
    elif what == "a gap of blocks":
        state = {name.replace("res_blocks.1", "res_blocks.7"): tensor for name, tensor in state.items()}
    elif what == "extra":
        state |= {f"res_blocks.{n}.context_layers.1.weight": torch.ones(32, 16) for n in range(3)}
    elif what == "shape":
        state["res_blocks.2.emb_layers.1.weight"] = torch.ones(32, 17)
    elif what == "width":
        state["input_proj.weight"] = torch.ones(40, 16)
    elif what == "NaN":
        state["out.2.weight"][3, 4] = float("nan")
    elif what == "too large":
        state["out.2.bias"] = torch.full((16,), 1e300, dtype=torch.float64)
    elif what == "integers":
        state["out.2.bias"] = torch.ones(16, dtype=torch.int64)
    elif what == "one for many":
        state["input_proj.weight"] = torch.ones(1, 1).expand(2_000_000, 1_000_000)
    elif what == "not stored":
        state["out.2.bias"] = torch.ones(1).expand(16)
    elif what == "another network":
        state = {"conv.weight": torch.ones(2), "fc.weight": torch.ones(2), "n": 3}
    elif what == "nothing":
        state = {"epoch": 3}
    elif what == "a list":
        state = [torch.ones(3)]  # type: ignore[assignment]
    elif what == "two":
        state = {"a": state, "b": checkpoint(seed=1)}
    elif what == "hostile":
        state["out.2.bias"] = Touch(path.with_name("proof"))
    elif what == "whole module":
        state = torch.nn.Linear(3, 3)  # type: ignore[assignment]
    if what == "text":
        path.write_text("input_proj.weight\n")
    elif what == "one of ours":
        save_model(path, SeedModel(16, PAPER), {"encoder": "toy", "dim": 16}, {})
    else:
        torch.save(state, path)


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("missing", r"do not fit DiffusionNetwork: 2 missing \(res_blocks.1.in_layers.2.bias, out.2.weight\)"),
        ("no input", "input_proj.weight is not a matrix"),
        ("a gap of blocks", r"10 missing \(res_blocks.1.in_layers.0.weight, .*10 unexpected \(res_blocks.7"),
        ("extra", r"3 unexpected \(res_blocks.0.context_layers.1.weight, "),
        ("shape", r"of another shape \(res_blocks.2.emb_layers.1.weight \[32, 17\] instead of \[32, 16\]\)"),
        ("width", "hidden layers are 40 wide for 16-d embeddings; the width must be 1 to 64"),
        ("NaN", "out.2.weight holds NaN, infinite or no weights"),
        ("too large", "out.2.bias holds NaN"),
        ("integers", "out.2.bias holds NaN"),
        ("one for many", r"of another shape \(time_embed.0.weight"),
        ("not stored", "out.2.bias holds NaN, infinite or no weights"),
        ("another network", "holds conv.weight, fc.weight, no SEED network; "),
        ("nothing", "holds no tensors, no SEED network; "),
        ("a list", "hold a list; give a file with a dictionary of tensors"),
        ("two", r"holds several networks, a.\* and b.\*"),
        ("hostile", "wants to run .*, which is refused"),
        ("whole module", "wants to run .*, which is refused"),
        ("text", "is truncated, damaged or of another format"),
        ("one of ours", "is a model that `seed enhance` accepts as it is"),
    ],
)
def test_what_is_no_checkpoint_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str, says: str
) -> None:
    path = tmp_path / ("c.safetensors" if what == "one of ours" else "c.pt")
    spoilt(path, what)
    with pytest.raises(WeightsError, match=says):
        convert(path)
    code, _, err = run(capsys, "convert", path, "--encoder", "toy", "--out", tmp_path / "m.safetensors")
    assert code == 1
    assert err.startswith("seed: error: ")
    assert err.count("\n") == 1
    assert str(path) in err
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_an_encoder_is_known_as_far_as_its_definition_goes(tmp_path: Path) -> None:
    (tmp_path / "w.pt").write_bytes(b"weights")
    params = Params.model_validate(
        {
            "encoder": {
                "own": {"family": "resnetse34v2", "weights": str(tmp_path / "w.pt")},
                "pinned": {"family": "ecapa_seed", "weights": "/nowhere.pt", "sha256": "AB" * 32},
                "bare": {"family": "wavlm_ecapa"},
                "long": {"family": "ecapa_seed", "dim": 300},
            }
        }
    )
    ours = {"family": "resnetse34v2", "front_end": None, "weights_sha256": sha256_of(tmp_path / "w.pt"), "dim": 512}
    assert describe_encoder("own", params, 512) == {"encoder": "own", **ours}
    assert describe_encoder("pinned", params, 256)["weights_sha256"] == "ab" * 32
    assert describe_encoder("bare", params, 256) == {
        "encoder": "bare",
        "family": "wavlm_ecapa",
        "front_end": None,
        "dim": 256,
    }
    assert describe_encoder("ge2e", Params(), 256)["weights_sha256"] == FAMILIES["ge2e"].sha256
    assert describe_encoder("nobody", params, 7) == {"encoder": "nobody", "dim": 7}
    for name, length in (("ge2e", 256), ("campplus", 192), ("ecapa_speechbrain", 192)):
        with pytest.raises(ConfigError, match=f"{name}: gives {length}-d embeddings, but the network takes 32 numbers"):
            describe_encoder(name, Params(), 32)
    with pytest.raises(ConfigError, match="its dim is set to 300, but the network takes 256 numbers"):
        describe_encoder("long", params, 256)


def test_an_encoder_that_is_loaded_is_described_as_its_stores_are(tmp_path: Path) -> None:
    class Fixed(torch.nn.Module):
        def forward(self, waves: Tensor) -> Tensor:
            return waves[:, :8]

    torch.jit.script(Fixed()).save(str(tmp_path / "w.pt"))
    entry = {
        "family": "torchscript",
        "weights": str(tmp_path / "w.pt"),
        "front_end": {"kind": "waveform"},
        "min_samples": 400,
    }
    params = Params.model_validate({"encoder": {"file": entry}})
    found = describe_encoder("file", params, 8)
    assert found == {
        "encoder": "file",
        "family": "torchscript",
        "weights_sha256": sha256_of(tmp_path / "w.pt"),
        "front_end": {"kind": "waveform", "scale": 1.0, "min_samples": 400},
        "dim": 8,
    }
    with pytest.raises(ConfigError, match="gives 8-d embeddings, but the network takes 9 numbers"):
        describe_encoder("file", params, 9)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a checkpoint of 16 numbers and stores of two encoders' vectors."""
    monkeypatch.chdir(tmp_path)
    torch.save(checkpoint(), "c.pt")
    values, status = vectors(6, 16).numpy()[:, None, None], np.full(6, OK, np.uint8)
    for name, sha256 in (("s", "11"), ("t", "22")):
        attributes = {"encoder": "toy", "family": "ecapa_seed", "weights_sha256": sha256, "front_end": None, "dim": 16}
        write_store(tmp_path / f"{name}.zarr", [f"u{n}" for n in range(6)], values, status, attributes)
    return tmp_path


def test_from_a_checkpoint_to_enhanced_vectors(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    code, out, err = run(capsys, "convert", "c.pt", "--store", "s.zarr", "--out", "m/seed.safetensors")
    assert (code, err) == (0, "")
    assert out == "m/seed.safetensors: D = 16, 3 blocks, width 2, predicts sample; all tensors\n"
    with safe_open("m/seed.safetensors", framework="pt") as file:
        content = json.loads(file.metadata()["seed"])
    assert content["training"] == {"converted_from_sha256": sha256_of(place / "c.pt"), "timestep": 50}
    assert content["encoder"]["weights_sha256"] == "11"
    card = (place / "m/seed.md").read_text()
    assert sha256_of(place / "m/seed.safetensors") in card
    assert "only vectors that are zero or not finite are flagged" in card
    assert "error rates above" not in card
    (place / "p.yaml").write_text("enhance: {noise: 1}\nseed: 5\n")
    enhance = ["enhance", "--model", "m/seed.safetensors", "--params", "p.yaml", "--out", "e.zarr"]
    code, out, err = run(capsys, *enhance, "--store", "s.zarr")
    assert code == 0
    assert "strength 1.00" in out
    assert "has no record of its training data" in err
    assert err.count("\n") == 1
    drawn = np.random.default_rng(5).standard_normal((6, 16), dtype=np.float32)
    found = EmbeddingStore.open(place / "e.zarr").read()[:, 0, 0]
    assert_near(found, paper(checkpoint(), vectors(6, 16), torch.from_numpy(drawn)), checkpoint())
    code, _, err = run(capsys, *enhance, "--store", "t.zarr", "--strength", "1")
    assert code == 1
    assert "t.zarr: encoder weights_sha256 is '22', but m/seed.safetensors was trained on '11'" in err


def test_the_noted_timestep_is_that_of_the_enhancer(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    assert run(capsys, "convert", "c.pt", "--store", "s.zarr", "--out", "m.safetensors", "--timestep", "20")[0] == 0
    raw = vectors(6, 16)
    found = Enhancer.load("m.safetensors", encoder=EmbeddingStore.open(place / "s.zarr")).enhance(raw.numpy())
    assert_near(found, paper(checkpoint(), raw, None, 20), checkpoint())


def test_a_model_that_knows_no_weights_says_so_and_still_enhances(
    capsys: pytest.CaptureFixture[str], place: Path
) -> None:
    code, _, err = run(capsys, "convert", "c.pt", "--encoder", "mine", "--out", "m.safetensors")
    assert code == 0
    assert "the weights of encoder mine are unknown" in err
    assert err.count("\n") == 1
    code, _, err = run(
        capsys, "enhance", "--model", "m.safetensors", "--store", "s.zarr", "--out", "e.zarr", "--strength", "1"
    )
    assert code == 0
    assert "knows only the name of its encoder, 'mine', so vectors of 'toy' may come from other weights" in err
    assert err.count("\n") == 1


def test_a_converted_model_can_be_trained_further(tmp_path: Path) -> None:
    torch.save(checkpoint(), tmp_path / "c.pt")
    save_model(tmp_path / "m.safetensors", convert(tmp_path / "c.pt").model, {"encoder": "toy", "dim": 16}, {})
    store, speakers = make_store(tmp_path / "s.zarr")
    further = PAPER.model_copy(update={"max_epochs": 40, "batch_size": 32, "validation": 0.1})
    trained = train(store, further, 0, 50, speakers, init=tmp_path / "m.safetensors")
    assert trained.init_sha256 == sha256_of(tmp_path / "m.safetensors")
    losses = [epoch.validation_loss for epoch in trained.curve]
    assert min(losses[1:]) < losses[0]
    assert trained.model.domain_matrix.abs().max() > 0  # now it knows the speech of its training


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--out", "m.safetensors"], 2, "give --encoder"),
        (["--encoder", "x", "--out", "m.pt"], 2, "must be a ….safetensors file"),
        (
            ["--encoder", "x", "--out", "m.safetensors", "--timestep", "100", "--timesteps", "100"],
            2,
            "below --timesteps",
        ),
        (["--encoder", "x", "--out", "m.safetensors", "--beta-start", "2"], 1, "options: beta_start: "),
        (["--store", "e.zarr", "--out", "m.safetensors"], 1, "e.zarr: holds enhanced embeddings already"),
        (["--store", "d.zarr", "--out", "m.safetensors"], 1, "vectors of 3 numbers, but the network takes 16"),
    ],
)
def test_wrong_calls_are_one_line(
    capsys: pytest.CaptureFixture[str], place: Path, arguments: list[str], code: int, says: str
) -> None:
    for name, dim, more in (("e", 16, {"enhanced_by_sha256": "3"}), ("d", 3, {})):
        values = np.ones((1, 1, 1, dim), np.float32)
        write_store(
            place / f"{name}.zarr", ["u"], values, np.full(1, OK, np.uint8), {"encoder": "toy", "dim": dim, **more}
        )
    found, _, err = run(capsys, "convert", "c.pt", *arguments)
    assert found == code
    assert says in err
    assert not (place / "m.safetensors").exists()


def test_the_checkpoint_is_not_overwritten(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    save_file(checkpoint(), "c.safetensors")
    before = sha256_of(place / "c.safetensors")
    code, _, err = run(capsys, "convert", "c.safetensors", "--encoder", "x", "--out", "./c.safetensors")
    assert code == 2
    assert "is the checkpoint itself" in err
    assert sha256_of(place / "c.safetensors") == before
