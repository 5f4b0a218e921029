import json
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from scipy.spatial.distance import cdist, mahalanobis

from pipeline import EmbeddingStore, Enhancer
from pipeline.errors import ConfigError, SeedWarning, StoreError, VectorError, WeightsError
from pipeline.model.diffusion.sampler import Sampling
from pipeline.model.model_file import load_model
from pipeline.store.schema import FAILED, OK
from pipeline.store.writer import write_store
from pipeline.training.api import train
from pipeline.training.strength import RIDGE
from pipeline.utils.atomic import sha256_of
from pipeline.utils.device import choose_device
from tests.linear_encoder import DIM, encoded, speech

SETTINGS: dict[str, Any] = {"max_epochs": 5, "batch_size": 64, "validation": 0.25, "strength": 0.6, "device": "cpu"}
ENCODER = {"encoder": "toy", "family": "linear", "weights_sha256": "ab", "front_end": None, "dim": DIM}
SPEECH = speech()
RAW = encoded(speech(8, seed=1))
"""Of other speakers than those of training."""
TORCH = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path, values = tmp_path_factory.mktemp("model") / "seed.safetensors", encoded(SPEECH)
    train(
        values[:, :, 0],
        values[:, :, 1:],
        speakers=SPEECH.speakers,
        encoder=ENCODER,
        settings=SETTINGS,
        out=path,
    )
    return path


@pytest.fixture(scope="module")
def enhancer(model: Path) -> Enhancer:
    return Enhancer.load(model)


@pytest.fixture(autouse=True)
def _no_warning_unasked() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def store_at(path: Path, values: np.ndarray, **other: Any) -> EmbeddingStore:
    ids = [f"u{row:03}" for row in range(len(values))]
    status = np.where(np.isnan(values).any(axis=(1, 2, 3)), FAILED, OK).astype(np.uint8)
    write_store(path, ids, values, status, ENCODER | other)
    return EmbeddingStore.open(str(path))


def old_file(model: Path, path: Path) -> Path:
    """The model as it was written before files said anything of training vectors."""
    with safe_open(model, framework="pt") as file:
        content = json.loads(file.metadata()["seed"])
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for key in ("vectors", "strength", "digest"):
        del content[key]
    content["scale"] = {"input": "", "network": "", "output": ""}
    content["training"] = {"best_epoch": 1, "validation_loss": 0.5, "held_out": "6 of 24 speakers"}
    save_file(state, path, {"seed": json.dumps(content)})
    return path


def test_it_gives_what_the_model_gives(enhancer: Enhancer, model: Path) -> None:
    loaded, x = load_model(model), torch.from_numpy(RAW.reshape(-1, DIM))
    assert 0 < enhancer.strength < 1
    assert (enhancer.dim, enhancer.sha256, enhancer.encoder) == (DIM, sha256_of(model), ENCODER)
    for strength in (None, 0.3, 1.0):
        expected = loaded.model(x, Sampling(50, strength=enhancer.strength if strength is None else strength)).numpy()
        np.testing.assert_array_equal(enhancer.enhance(RAW, strength), expected.reshape(RAW.shape))
    np.testing.assert_array_equal(enhancer.enhance(RAW, 0.0), RAW)


@pytest.mark.parametrize("shape", [(DIM,), (1, DIM), (7, DIM), (3, 4, DIM), (2, 3, 2, DIM), (0, DIM), (0, 4, DIM)])
@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, ">f4", *TORCH])
def test_shape_type_and_kind_come_back(enhancer: Enhancer, shape: tuple[int, ...], kind: Any) -> None:
    values = RAW.reshape(-1, DIM)[: max(1, int(np.prod(shape)) // DIM)].reshape(-1)[: int(np.prod(shape))]
    values = values.reshape(shape)
    x = torch.from_numpy(values.copy()).to(kind) if isinstance(kind, torch.dtype) else values.astype(kind)
    out, info = enhancer.enhance(x, return_info=True)
    assert type(out) is type(x)
    assert out.shape == x.shape
    assert out.dtype == x.dtype
    expected = enhancer.enhance(values)
    found = out.float().numpy() if isinstance(out, torch.Tensor) else out
    off = {2: 2.0**-6, 4: 2e-5, 8: 2e-5}[x.dtype.itemsize] * (8 if x.dtype == torch.bfloat16 else 1)
    np.testing.assert_allclose(found, expected, atol=off)
    for each in (info.moved, info.atypicality, info.confidence, info.norm_ratio, info.reason, info.out_of_distribution):
        assert isinstance(each, np.ndarray)
        assert each.shape == shape[:-1]


def test_arrays_that_torch_does_not_like_will_do(enhancer: Enhancer) -> None:
    x = RAW[:, 0, 1].copy()
    x.flags.writeable = False
    expected = enhancer.enhance(RAW[:, 0, 1])
    np.testing.assert_array_equal(enhancer.enhance(x), expected)
    np.testing.assert_allclose(enhancer.enhance(x[::-1]), expected[::-1], atol=1e-5)
    np.testing.assert_array_equal(enhancer.enhance(np.asfortranarray(x)), expected)
    with_gradient = torch.from_numpy(RAW[:, 0, 1].copy()).requires_grad_()
    out = enhancer.enhance(with_gradient)
    assert not out.requires_grad
    assert not out.is_inference()  # which could not be trained on
    np.testing.assert_array_equal(out.numpy(), expected)


def test_a_vector_does_not_depend_on_the_batch(enhancer: Enhancer, monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.concatenate([RAW[:, 0, 1], 1e30 * RAW[:3, 0, 0], np.zeros((1, DIM), np.float32)])
    lengths = np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True) + 1e-30
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SeedWarning)
        whole, known = enhancer.enhance(x, return_info=True)
        for part in ([5], [5, 17, 3], list(range(11)), [len(x) - 2], [*range(len(x))[::-1]]):
            out, info = enhancer.enhance(x[part], return_info=True)
            np.testing.assert_allclose(out / lengths[part], whole[part] / lengths[part], atol=1e-6)
            np.testing.assert_allclose(info.atypicality, known.atypicality[part], rtol=1e-4)
            np.testing.assert_array_equal(info.reason, known.reason[part])
        monkeypatch.setattr("pipeline.model.enhancer.BATCH", 7)
        np.testing.assert_allclose(enhancer.enhance(x) / lengths, whole / lengths, atol=1e-6)


def test_the_callers_random_numbers_stay_what_they_are(model: Path) -> None:
    state = torch.random.get_rng_state()
    Enhancer.load(model).enhance(RAW)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("return_info", [False, True])
def test_a_callers_autocast_changes_nothing(enhancer: Enhancer, return_info: bool) -> None:
    x = torch.randn(5, enhancer.dim, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = enhancer.enhance(x, 1.0, return_info=return_info)
    assert torch.equal(found[0] if return_info else found, enhancer.enhance(x, 1.0))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_a_callers_default_type_changes_nothing(model: Path, enhancer: Enhancer, dtype: torch.dtype) -> None:
    expected, before = enhancer.enhance(RAW[:, 0, 0]), Enhancer.load(model)
    torch.set_default_dtype(dtype)
    try:
        for each in (before, Enhancer.load(model)):
            np.testing.assert_array_equal(each.enhance(RAW[:, 0, 0]), expected)
            np.testing.assert_array_equal(each.enhance(RAW[0, 0, 0]), enhancer.enhance(RAW[0, 0, 0]))
        assert torch.get_default_dtype() is dtype
    finally:
        torch.set_default_dtype(torch.float32)


def test_a_callers_default_device_changes_nothing(model: Path, enhancer: Enhancer) -> None:
    with torch.device("meta"):
        loaded = Enhancer.load(model)
        np.testing.assert_array_equal(loaded.enhance(RAW[0, 0, 0]), enhancer.enhance(RAW[0, 0, 0]))
        np.testing.assert_array_equal(loaded.enhance(RAW[:, 0, 0]), enhancer.enhance(RAW[:, 0, 0]))


def test_threads_share_one(enhancer: Enhancer) -> None:
    parts = [RAW[row, :, 1] for row in range(len(RAW))] * 4
    expected = [enhancer.enhance(part) for part in parts]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(enhancer.enhance, parts))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("x", "says"),
    [
        (np.ones((2, DIM), int), r"vectors are int64; pass float16"),
        (torch.ones(2, DIM, dtype=torch.int8), r"vectors are torch.int8"),
        (np.ones((2, DIM), complex), "vectors are complex128"),
        (np.array(["a"] * DIM), "vectors are <U1"),
        (np.ones((2, DIM + 1), np.float32), rf"shape \(2, {DIM + 1}\); the model takes \[\.\.\., {DIM}\]"),
        (np.ones((DIM, 0), np.float32), r"shape \(32, 0\)"),
        (np.array(1.0), r"shape \(\)"),
        (torch.tensor(1.0), r"shape \(\)"),
        ([[1.0] * DIM], "vectors are a list; pass a NumPy array or a torch tensor"),
    ],
)
def test_what_is_no_vector_of_the_encoder_is_refused(enhancer: Enhancer, x: Any, says: str) -> None:
    with pytest.raises(VectorError, match=says):
        enhancer.enhance(x)


def test_settings_out_of_range_are_refused(enhancer: Enhancer) -> None:
    for strength in (-0.1, 1.1, float("nan")):
        with pytest.raises(ConfigError, match="is not from 0"):
            enhancer.enhance(RAW, strength)
    with pytest.raises(ConfigError, match="on_bad 'skip'"):
        enhancer.enhance(RAW, on_bad="skip")  # type: ignore[call-overload]
    with pytest.raises(ConfigError, match="timestep 1000"):
        Enhancer(enhancer.model, timestep=1000)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_an_error_or_come_back_flagged(enhancer: Enhancer, bad: float) -> None:
    x = RAW[:5, :, 1].copy()
    x[3, 1, 7] = x[4, 0, 0] = bad
    with pytest.raises(VectorError, match=r"2 of 10 vectors hold NaN or infinite values, first: row 3, 1\. .*on_bad"):
        enhancer.enhance(x)
    out, info = enhancer.enhance(x, return_info=True, on_bad="raw")
    wrong = np.zeros((5, 2), bool)
    wrong[3, 1] = wrong[4, 0] = True
    np.testing.assert_array_equal(out[wrong], x[wrong])
    np.testing.assert_array_equal(info.reason == "not finite", wrong)
    # The order of summation depends on the number of rows.
    np.testing.assert_allclose(out[~wrong], enhancer.enhance(x[~wrong]), atol=2e-6 * np.abs(RAW).max(), rtol=0)
    assert (info.moved[wrong] == 0).all()
    assert np.isposinf(info.atypicality[wrong]).all()
    assert info.confidence is not None
    assert (info.confidence[wrong] == 0).all()
    assert info.norm_ratio is not None
    assert np.isposinf(info.norm_ratio[wrong]).all()
    assert np.isfinite(info.moved).all()
    single = x[4, 0]
    with pytest.raises(VectorError, match=r"1 of 1 vectors hold NaN or infinite values\. "):
        enhancer.enhance(single)
    with pytest.raises(VectorError, match="2 of 10"):
        enhancer.adapt(x)


def test_zeros_come_back_as_they_are_and_flagged(enhancer: Enhancer) -> None:
    x = RAW[:4, 0, 1].copy()
    x[1], x[2] = 0, 1e-20
    for strength in (None, 1.0):
        out, info = enhancer.enhance(x, strength, return_info=True)
        np.testing.assert_array_equal(out[1:3], x[1:3])
        assert info.reason[1:3].tolist() == ["zero"] * 2
        assert info.moved[1:3].tolist() == [0, 0]
        assert np.isposinf(info.atypicality[1:3]).all()
        np.testing.assert_allclose(out[[0, 3]], enhancer.enhance(x[[0, 3]], strength), atol=1e-5)


F32 = float(np.finfo(np.float32).max)
LARGE: list[np.ndarray] = [
    np.full(DIM, F32, np.float32),
    np.where(np.arange(DIM) % 2, F32, -F32).astype(np.float32),
    np.eye(DIM, dtype=np.float32)[3] * F32,
    np.full(DIM, np.finfo(np.float64).max),
    np.full(DIM, np.finfo(np.float16).max, np.float16),
    np.full(DIM, 1e20, np.float32),
]


@pytest.mark.parametrize("x", LARGE)
@pytest.mark.parametrize("strength", [None, 1.0])
def test_values_up_to_the_largest_there_are_do_no_harm(
    enhancer: Enhancer, x: np.ndarray, strength: float | None
) -> None:
    with pytest.warns(SeedWarning, match="median length"):
        out, info = enhancer.enhance(x, strength, return_info=True)
    assert np.isfinite(out).all()
    assert info.reason == "length"
    # Next to such values the mean of training is nothing: the direction is that of a vector a little less large.
    less = (x.astype(np.float64) / np.abs(x.astype(np.float64)).max() * 2**20).astype(np.float32)
    with pytest.warns(SeedWarning):
        expected = enhancer.enhance(less, strength)
    cosine = 1 - cdist((out.astype(np.float64) / np.abs(out.astype(np.float64)).max())[None], expected[None], "cosine")
    assert cosine[0, 0] == pytest.approx(1, abs=1e-5)


def test_large_values_keep_their_length_where_there_is_room(enhancer: Enhancer) -> None:
    x = np.float32(1e30) * RAW[:4, 0, 0]
    with pytest.warns(SeedWarning):
        out = enhancer.enhance(x)
    lengths = [np.linalg.norm(each.astype(np.float64), axis=1) for each in (out, x)]
    np.testing.assert_allclose(*lengths, rtol=1e-5)


def test_half_precision_never_overflows(enhancer: Enhancer) -> None:
    x = np.zeros((1, DIM), np.float16)
    x[0, :4] = np.finfo(np.float16).max  # whose length may come to lie along one axis
    with pytest.warns(SeedWarning):
        assert np.isfinite(enhancer.enhance(x, 0.9)).all()


def test_info_against_plain_formulas(enhancer: Enhancer) -> None:
    x = RAW[:, :, 1].reshape(-1, DIM)
    out, info = enhancer.enhance(x, return_info=True)
    np.testing.assert_allclose(info.moved, np.diag(cdist(x, out, "cosine")), atol=1e-6)
    assert 0.01 < np.median(info.moved) < 0.5
    values = encoded(SPEECH)
    lengths = np.linalg.norm(values[:, :, 0].reshape(-1, DIM), axis=1)
    assert info.norm_ratio is not None
    ratio = np.linalg.norm(x, axis=1) / np.median(lengths)  # of all, where the model looked at those not held out
    np.testing.assert_allclose(info.norm_ratio, ratio, rtol=0.1)
    assert info.strength == enhancer.strength
    assert np.corrcoef(info.norm_ratio, ratio)[0, 1] > 0.999999
    units = values.reshape(-1, DIM) / np.linalg.norm(values.reshape(-1, DIM), axis=1, keepdims=True)
    covariance = np.cov(units.T)
    covariance += RIDGE * np.trace(covariance) / DIM * np.eye(DIM)
    far = [mahalanobis(row / np.linalg.norm(row), units.mean(axis=0), np.linalg.inv(covariance)) ** 2 for row in x]
    assert np.corrcoef(info.atypicality, far)[0, 1] > 0.9  # with those held out, whom the model did not look at
    assert np.median(info.atypicality) == pytest.approx(1, abs=0.3)
    assert info.confidence is not None
    assert 0.2 < np.median(info.confidence) < 0.9
    order = np.argsort(info.atypicality)
    assert (np.diff(info.confidence[order]) <= 0).all()
    assert (info.confidence[np.flatnonzero(info.reason == "atypical")] < 0.0011).all()


def test_tensors_without_values_of_their_own_are_refused(enhancer: Enhancer) -> None:
    for x in (torch.zeros(3, DIM).to_sparse(), torch.zeros(3, DIM, device="meta")):
        with pytest.raises(VectorError, match=r"pass a dense tensor"):
            enhancer.enhance(x)


def test_usual_vectors_are_rarely_flagged_and_those_of_other_encoders_always(enhancer: Enhancer) -> None:
    other_speech = speech(12, seed=5)
    _, known = enhancer.enhance(encoded(other_speech), return_info=True)
    assert known.out_of_distribution.mean() < 0.03
    usual = np.linalg.norm(encoded(other_speech), axis=-1, keepdims=True)
    for other in (1, 2, 3):
        foreign = encoded(other_speech, encoder=other)
        foreign *= usual / np.linalg.norm(foreign, axis=-1, keepdims=True)  # the length does not give them away
        out, info = enhancer.enhance(foreign, return_info=True)
        assert np.isfinite(out).all()
        assert info.out_of_distribution.mean() > 0.99
        assert set(np.unique(info.reason)) <= {"", "atypical"}
    constant = np.full((1, DIM), np.float32(np.median(usual) / DIM**0.5))
    _, info = enhancer.enhance(constant, return_info=True)
    assert info.reason.tolist() == ["atypical"]


def test_vectors_of_another_length_by_far_are_warned_of(enhancer: Enhancer) -> None:
    x = RAW[:, 0, 0]
    bounds = enhancer.model.training_stats
    assert bounds
    units = x / np.linalg.norm(x, axis=1, keepdims=True)
    for wrong in (units, 10 * x, x.astype(np.float64) * 32768):
        with pytest.warns(SeedWarning, match=r"median length of .*neither normalised nor scaled") as caught:
            _, info = enhancer.enhance(wrong, return_info=True)
        assert caught[0].filename == __file__  # whose arrays they are
        assert (info.reason == "length").mean() > 0.9
    for edge, turn in zip(bounds.fences, (1, -1), strict=True):
        enhancer.enhance((1.01**turn * edge * units).astype(np.float32))  # no warning
        with pytest.warns(SeedWarning):
            enhancer.enhance((0.99**turn * edge * units).astype(np.float32))
    few = np.concatenate([units[:5], x])  # they are flagged, but most are not
    _, info = enhancer.enhance(few, return_info=True)
    assert (info.reason[:5] == "length").all()


def test_vectors_of_another_encoder_are_refused_or_warned_of(enhancer: Enhancer, model: Path, tmp_path: Path) -> None:
    values = RAW[:, :, :1]
    same = store_at(tmp_path / "same.zarr", values)
    for fine in (same, same.attributes, {}, {"weights_sha256": None}, {"family": "linear"}):
        Enhancer.load(model, encoder=fine)
    other = store_at(tmp_path / "other.zarr", values, weights_sha256="cd")
    for wrong, says in (
        (other, "weights_sha256 'cd' instead of 'ab'"),
        (other.attributes, "weights_sha256 'cd' instead of 'ab'"),
        ({"weights_sha256": "ab", "front_end": {"n_mels": 80}}, "front_end {'n_mels': 80} instead of None"),
        (store_at(tmp_path / "denoised.zarr", values, denoise="rnnoise"), "applied to vectors of rnnoise"),
    ):
        with pytest.warns(SeedWarning, match=says.replace("{", r"\{")) as caught:
            Enhancer.load(model, encoder=wrong)
        assert caught[0].filename == __file__
    with pytest.warns(SeedWarning, match="another encoder"):
        enhancer.adapt(other)
    longer = store_at(tmp_path / "longer.zarr", np.concatenate([values, values], axis=3), dim=2 * DIM)
    for too_long in (longer, {"dim": 2 * DIM}):
        with pytest.raises(VectorError, match=rf"vectors have {2 * DIM} numbers; .* takes {DIM}"):
            Enhancer.load(model, encoder=too_long)
    enhanced = store_at(tmp_path / "enhanced.zarr", values, enhanced_by_sha256="ef")
    with pytest.raises(StoreError, match="enhanced embeddings already"):
        enhancer.adapt(enhanced)


def test_files_of_before_work_without_what_they_do_not_say(model: Path, tmp_path: Path, enhancer: Enhancer) -> None:
    with pytest.warns(SeedWarning, match="wrote no checksum"):
        old = Enhancer.load(old_file(model, tmp_path / "old.safetensors"))
    assert old.model.training_stats is None
    out, info = old.enhance(10 * RAW, return_info=True)  # no warning: it knows of no lengths
    assert info.norm_ratio is None
    assert np.isfinite(out).all()
    np.testing.assert_array_equal(old.enhance(RAW), enhancer.enhance(RAW))
    _, foreign = old.enhance(encoded(SPEECH, encoder=1), return_info=True)
    assert (foreign.reason == "atypical").mean() > 0.99
    _, usual = old.enhance(RAW, return_info=True)
    assert not usual.out_of_distribution.any()


def test_the_timestep_is_that_of_training(tmp_path: Path) -> None:
    values = encoded(SPEECH)
    settings = {**SETTINGS, "max_epochs": 1, "max_timestep": None}
    out = tmp_path / "m.safetensors"
    trained = train(values[:, :, 0], values[:, :, 1:], settings=settings, timestep=300, out=out)
    x = torch.from_numpy(RAW[:, 0, 1].copy())
    expected = trained.model(x, Sampling(300, strength=round(float(trained.model.strength), 6)))
    assert torch.equal(Enhancer.load(out).enhance(x), expected)
    assert torch.equal(Enhancer(trained.model, timestep=300).enhance(x), expected)
    assert not torch.equal(Enhancer(trained.model).enhance(x), expected)


def test_a_checksum_is_kept_to(model: Path) -> None:
    digest = sha256_of(model)
    assert Enhancer.load(str(model), sha256=digest.upper()).sha256 == digest
    with pytest.raises(WeightsError, match=f"has sha256 {digest}, expected 00"):
        Enhancer.load(model, sha256="00" * 32)
    with pytest.raises(WeightsError, match="no such model"):
        Enhancer.load(model.parent / "none.safetensors")
    with pytest.raises(ConfigError, match="unknown device"):
        Enhancer.load(model, device="gpu")


def test_a_model_from_the_web_is_kept_and_warned_of_where_it_is_not_pinned(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEED_CACHE", str(tmp_path))
    digest = sha256_of(model)
    handler = partial(SimpleHTTPRequestHandler, directory=str(model.parent))
    handler.log_message = lambda *rest: None  # type: ignore[attr-defined]
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        uri = f"http://127.0.0.1:{server.server_port}/seed.safetensors"
        with pytest.warns(SeedWarning, match=f"downloaded without a checksum.*sha256='{digest}'") as caught:
            Enhancer.load(uri)
        assert caught[0].filename == __file__
        pinned = Enhancer.load(uri, sha256=digest)
        with pytest.raises(WeightsError, match="expected 11"):
            Enhancer.load(uri, sha256="11" * 32)
        server.shutdown()
    again = Enhancer.load(uri, sha256=digest)  # from the cache
    np.testing.assert_array_equal(again.enhance(RAW), pinned.enhance(RAW))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")
def test_vectors_return_to_their_device(model: Path) -> None:
    x = torch.from_numpy(RAW[:, 0, 1].copy())
    expected = Enhancer.load(model).enhance(x)
    for device in ("cpu", "cuda"):
        out = Enhancer.load(model, device=choose_device("cuda")).enhance(x.to(device))
        assert out.device.type == device
        torch.testing.assert_close(out.cpu(), expected, atol=1e-4, rtol=1e-4)
