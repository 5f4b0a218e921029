import hashlib
import json
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

from pipeline import EmbeddingStore, Enhancer
from pipeline.errors import ConfigError, SeedWarning, VectorError, WeightsError
from pipeline.metrics import eer
from pipeline.model.adaptation import (
    NOISE_AXES,
    PRIOR_HALF,
    adapt_model,
    estimate_weight,
    find_noise_axes,
    leads_away,
    remove_adaptation,
)
from pipeline.model.adaptation_record import LIMIT, PRIOR_VECTORS, Adaptation
from pipeline.model.diffusion.sampler import Sampling
from pipeline.model.enhance_store import find_clean, find_reference
from pipeline.model.model_file import load_model, save_model
from pipeline.model.training_stats import measure_spread
from pipeline.store.schema import OK
from pipeline.store.writer import write_store
from pipeline.training.api import train
from pipeline.utils.atomic import sha256_of
from stages.cli import main
from tests.linear_encoder import DIM, encoded, speech

ENCODER = {"encoder": "toy", "family": "linear", "weights_sha256": "ab", "front_end": None, "dim": DIM}
SPEECH, OTHERS = speech(), speech(40, seed=1)
RAW = encoded(OTHERS)
"""Vectors of other speakers than those of training."""
DRIFT = 2 * np.random.default_rng(0).standard_normal(DIM).astype(np.float32)
"""What another domain adds to every vector."""
FOREIGN = RAW + DRIFT


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path, values = tmp_path_factory.mktemp("model") / "seed.safetensors", encoded(SPEECH)
    settings = {"max_epochs": 5, "batch_size": 64, "validation": 0.25, "strength": 0.6, "device": "cpu", "folds": 0}
    train(
        values[:, :, 0],
        values[:, :, 1:],
        speakers=SPEECH.speakers,
        encoder=ENCODER,
        settings=settings,
        out=path,
    )
    return path


@pytest.fixture(scope="module")
def enhancer(model: Path) -> Enhancer:
    return Enhancer.load(model)


def store_at(path: Path, values: np.ndarray, **other: Any) -> EmbeddingStore:
    write_store(
        path, [f"u{row}" for row in range(len(values))], values, np.full(len(values), OK, np.uint8), ENCODER | other
    )
    return EmbeddingStore.open(path)


def error_rate(vectors: np.ndarray) -> float:
    """Return the EER of all pairs of utterances [N, draws, D], first crops."""
    unit = vectors[:, 0] / np.linalg.norm(vectors[:, 0], axis=1, keepdims=True)
    scores, speakers = unit @ unit.T, np.array(OTHERS.speakers)
    pairs = np.triu_indices(len(unit), 1)
    return eer(scores[pairs], (speakers[:, None] == speakers)[pairs])


def test_an_adapted_model_does_in_another_domain_what_it_does_in_its_own(enhancer: Enhancer) -> None:
    adapted = enhancer.adapt(FOREIGN[:, 0, 0])
    clean = RAW[:, 0, 0]
    weight = len(clean) / (len(clean) + PRIOR_VECTORS)
    trained = enhancer.model.mean.numpy()
    shift = weight * (trained - FOREIGN[:, 0, 0].mean(axis=0, dtype=np.float64))
    np.testing.assert_allclose(adapted.model.shift, shift[None], rtol=1e-4, atol=1e-4)
    expected = enhancer.enhance(FOREIGN + shift.astype(np.float32))
    np.testing.assert_allclose(adapted.enhance(FOREIGN), expected, rtol=1e-3, atol=1e-3)
    assert adapted.strength == enhancer.strength > 0
    noisy = FOREIGN[:, :, 1]
    raw, as_is, better = (error_rate(each) for each in (noisy, enhancer.enhance(noisy), adapted.enhance(noisy)))
    assert better < as_is
    assert better < 0.9 * raw


def test_single_vectors_take_the_same_way(enhancer: Enhancer) -> None:
    adapted = enhancer.adapt(FOREIGN[:, 0, 0])
    for row in range(5):
        single = adapted.enhance(FOREIGN[row, 0, 1])
        expected = adapted.model(torch.from_numpy(FOREIGN[row, :1, 1]), Sampling(50, strength=adapted.strength)).numpy()
        np.testing.assert_array_equal(single, expected[0])


def test_at_strength_0_vectors_are_untouched(enhancer: Enhancer) -> None:
    np.testing.assert_array_equal(enhancer.adapt(FOREIGN[:, 0, 0]).enhance(FOREIGN, 0.0), FOREIGN)


def test_a_new_one_is_made_and_an_earlier_adaptation_is_replaced(enhancer: Enhancer) -> None:
    before = enhancer.enhance(RAW)
    first = enhancer.adapt(FOREIGN[:, 0, 0])
    again = first.adapt(RAW[:, 0, 0])
    np.testing.assert_array_equal(enhancer.enhance(RAW), before)
    np.testing.assert_array_equal(again.enhance(RAW), enhancer.adapt(RAW[:, 0, 0]).enhance(RAW))
    assert first.model.network is enhancer.model.network  # weights are shared
    np.testing.assert_array_equal(remove_adaptation(first.model).shift, np.zeros((1, DIM)))


def test_few_vectors_count_for_less(enhancer: Enhancer) -> None:
    stats = enhancer.model.training_stats
    rows = np.random.default_rng(0).permutation(len(RAW))[:30]
    for count in (10, 30):
        assert estimate_weight(RAW[rows[:count], 0, 0], count, stats) == pytest.approx(count / (count + PRIOR_VECTORS))
    with pytest.warns(SeedWarning, match=r"10 vectors to adapt to are few, .* weight of 0.50"):
        enhancer.adapt(FOREIGN[rows[:10], 0, 0])
    with pytest.raises(VectorError, match=r"9 vectors to adapt .*at least 10"):
        enhancer.adapt(FOREIGN[:9, 0, 0])


def test_two_means_do_for_a_mixed_pool_what_each_side_does_by_itself(enhancer: Enhancer, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    axes = find_noise_axes(enhancer.model).numpy()
    np.testing.assert_allclose(axes.T @ axes, np.eye(NOISE_AXES), atol=1e-5)
    hum = 9 * axes[:, 0]  # what a second condition adds to every vector
    clean = FOREIGN[:, 0, 0]
    pool = np.concatenate([clean, FOREIGN[:, 1, 0] + hum])[rng.permutation(2 * len(clean))]
    adapted = enhancer.adapt(pool, means=2)
    assert adapted.adaptation is not None
    assert (adapted.adaptation.means, adapted.adaptation.vectors) == (2, len(pool))
    tests = FOREIGN[:, 1, 0]
    moved = adapted.model.move(torch.from_numpy(np.concatenate([tests, tests + hum]))).numpy()
    trained, whole = enhancer.model.mean.numpy(), len(pool) / (len(pool) + PRIOR_VECTORS)
    weight = len(clean) / (len(clean) + PRIOR_HALF)
    of_all = whole * (trained - pool.mean(axis=0, dtype=np.float64))
    for half, own in (
        (moved[: len(tests)] - tests, clean),
        (moved[len(tests) :] - tests - hum, FOREIGN[:, 1, 0] + hum),
    ):
        expected = weight * (trained - own.mean(axis=0, dtype=np.float64)) + (1 - weight) * of_all
        np.testing.assert_allclose(half, np.broadcast_to(expected, half.shape), atol=1e-4)
    for row in (tests[0], tests[0] + hum):  # a single vector takes the same way
        expected = adapted.model(torch.from_numpy(row[None]), Sampling(50, strength=adapted.strength)).numpy()
        np.testing.assert_array_equal(adapted.enhance(row), expected[0])
    save_model(tmp_path / "m.safetensors", adapted.model, ENCODER, {"timestep": 50})
    np.testing.assert_array_equal(Enhancer.load(tmp_path / "m.safetensors").enhance(tests), adapted.enhance(tests))
    again = adapted.adapt(clean)
    np.testing.assert_array_equal(again.model.shift, enhancer.adapt(clean).model.shift)


def test_two_means_need_a_pool_and_a_whitening(enhancer: Enhancer) -> None:
    with pytest.raises(VectorError, match=r"99 vectors to adapt .*at least 100"):
        enhancer.adapt(FOREIGN[:99, 0, 0], means=2)
    with pytest.raises(ConfigError, match="means is 3, not 1 or 2"):
        enhancer.adapt(FOREIGN[:, 0, 0], means=3)
    model = copy(enhancer.model)
    model.settings = model.settings.model_copy(
        update={"network": model.settings.network.model_copy(update={"precondition": "center"})}
    )
    with pytest.raises(ConfigError, match="has no whitening"):
        adapt_model(model, FOREIGN[:, 0, 0], means=2)


def test_vectors_of_one_speaker_count_for_little(enhancer: Enhancer) -> None:
    one = FOREIGN[:6, :, 0].reshape(-1, DIM)
    with pytest.warns(SeedWarning, match="vary little, like those of one or two speakers"):
        adapted = enhancer.adapt(one)
    assert adapted.adaptation is not None
    assert adapted.adaptation.weight < 0.3
    with pytest.warns(SeedWarning, match="vary little"):  # however many they are, and in each half
        many = enhancer.adapt(np.repeat(one, 20, axis=0), means=2)
    assert many.adaptation is not None
    assert many.adaptation.weight < 0.35
    gap = np.linalg.norm(one.mean(axis=0) - enhancer.model.mean.numpy())
    assert np.linalg.norm(many.model.shift.numpy(), axis=1).max() < 0.6 * gap


def test_vectors_of_another_encoder_are_returned_raw(enhancer: Enhancer) -> None:
    other = encoded(OTHERS, encoder=5)
    with pytest.warns(SeedWarning, match="not of speech, or not of the model's encoder"):
        adapted = enhancer.adapt(other[:, 0, 0])
    assert adapted.strength == 0
    np.testing.assert_array_equal(adapted.enhance(other), other)


def test_zeros_do_not_count_and_vectors_without_a_number_are_refused(enhancer: Enhancer) -> None:
    zeros = np.concatenate([FOREIGN[:, 0, 0], np.zeros((50, DIM), np.float32)])
    assert enhancer.adapt(zeros).adaptation == enhancer.adapt(FOREIGN[:, 0, 0]).adaptation
    broken = FOREIGN[:, 0, 0].copy()
    broken[3, 3] = np.nan
    with pytest.raises(VectorError, match="NaN"):
        enhancer.adapt(broken)


def test_a_model_without_a_mean_cannot_be_adapted() -> None:
    values = encoded(SPEECH)
    settings = {"max_epochs": 1, "network": {"precondition": "none"}, "folds": 0}
    plain = train(values[:, :, 0], values[:, :, 1:], speakers=SPEECH.speakers, settings=settings).model
    with pytest.raises(ConfigError, match="does not know the mean of its training vectors"):
        Enhancer(plain).adapt(RAW[:, 0, 0])


def test_the_command_writes_a_model_that_does_the_same(
    model: Path, enhancer: Enhancer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clean, noisy = (
        store_at(tmp_path / "clean.zarr", FOREIGN[:, :, :1]),
        store_at(tmp_path / "n.zarr", FOREIGN[:, :, 1:2]),
    )
    main(["adapt", "--model", str(model), "--store", str(clean.path), "--out", str(tmp_path / "a.safetensors")])
    assert "adapted to 480 vectors, whose mean has a weight of 0.98" in capsys.readouterr().out
    loaded, expected = Enhancer.load(tmp_path / "a.safetensors"), enhancer.adapt(clean)
    assert loaded.adaptation == expected.adaptation
    assert loaded.base_sha256 == sha256_of(model) == enhancer.sha256
    np.testing.assert_array_equal(loaded.enhance(FOREIGN), expected.enhance(FOREIGN))
    card = (tmp_path / "a.md").read_text()
    assert "480 vectors, without labels" in card
    assert sha256_of(model) in card

    # The same by `--adapt`, by the parameter file, and by the adapted file.
    enhance = ["enhance", "--store", str(noisy.path), "--out"]
    main([*enhance, str(tmp_path / "1.zarr"), "--model", str(model), "--adapt", str(clean.path)])
    (tmp_path / "p.yaml").write_text("enhance: {adapt: clean}\n")
    main([*enhance, str(tmp_path / "2.zarr"), "--model", str(model), "--params", str(tmp_path / "p.yaml")])
    main([*enhance, str(tmp_path / "3.zarr"), "--model", str(tmp_path / "a.safetensors")])
    stores = [EmbeddingStore.open(tmp_path / f"{number}.zarr") for number in (1, 2, 3)]
    for store in stores:
        np.testing.assert_array_equal(store.read(), expected.enhance(noisy.read()))
        assert store.attributes == stores[0].attributes
    assert stores[0].attributes["enhanced_by_sha256"] == sha256_of(model)
    assert stores[0].attributes["adaptation"] == loaded.adaptation.model_dump()  # type: ignore[union-attr]
    digest = hashlib.sha256(np.array(stores[0].attributes["shift"], dtype="<f4").tobytes()).hexdigest()
    assert digest.startswith(stores[0].attributes["adaptation"]["fingerprint"])


def test_an_adaptation_to_other_speech_returns_vectors_raw(
    model: Path, enhancer: Enhancer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = np.random.default_rng(0).permutation(len(RAW))[:10]
    with pytest.warns(SeedWarning, match="are few"):
        uncertain = enhancer.adapt(RAW[few, 0, 0])
    own, wrong = enhancer.adapt(FOREIGN[:, 0, 0]), enhancer.adapt(RAW[:, 0, 0] - DRIFT)
    assert [leads_away(each.model, FOREIGN[:, 1, 0]) for each in (own, wrong)] == [False, True]
    assert not leads_away(uncertain.model, RAW[:, 1, 0])  # ten vectors of the very domain of training are enough
    stores = {"f": FOREIGN[:, :1, 1:2], "clean": FOREIGN[:, :1, :1], "w": (RAW - DRIFT)[:, :1, :1]}
    for name, values in stores.items():
        store_at(tmp_path / f"{name}.zarr", values)
    command = ["enhance", "--model", str(model), "--store", str(tmp_path / "f.zarr"), "--adapt"]
    main([*command, str(tmp_path / "w.zarr"), "--out", str(tmp_path / "raw.zarr")])
    assert "w.zarr is not adapted to speech like this" in capsys.readouterr().err
    np.testing.assert_array_equal(EmbeddingStore.open(tmp_path / "raw.zarr").read(), stores["f"])
    # Its own noisy vectors are farther from the clean ones, but suit themselves.
    main([*command, str(tmp_path / "f.zarr"), "--out", str(tmp_path / "own.zarr")])
    assert "not adapted to speech like this" not in capsys.readouterr().err
    assert EmbeddingStore.open(tmp_path / "own.zarr").attributes["sampling"]["strength"] == pytest.approx(0.6)


def test_two_sides_are_adapted_each_to_its_own_domain_and_scored(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Enrolments drifted, tests not: neither raw nor enhanced by one adaptation do they fit each other.
    sides = {"enrol": FOREIGN[:, :1, :1], "test": RAW[:, 1:2, 1:2]}
    for name, values in sides.items():
        store_at(tmp_path / f"{name}.zarr", values)
    lines = [
        f"{int(OTHERS.speakers[a] == OTHERS.speakers[b])} u{a} u{b}" for a in range(0, 240, 2) for b in range(1, 240, 3)
    ]
    (tmp_path / "trials.txt").write_text("\n".join(lines) + "\n")
    rates: dict[str, float] = {}
    for way, adapt in (("one", {"enrol": "enrol", "test": "enrol"}), ("each", {"enrol": "enrol", "test": "test"})):
        for name, to in adapt.items():
            command = ["enhance", "--model", str(model), "--store", str(tmp_path / f"{name}.zarr"), "--strength", "0.6"]
            main([*command, "--adapt", str(tmp_path / f"{to}.zarr"), "--out", str(tmp_path / f"{way}_{name}.zarr")])
        stores = ["--enrol", str(tmp_path / f"{way}_enrol.zarr"), "--test", str(tmp_path / f"{way}_test.zarr")]
        capsys.readouterr()
        main(["score", *stores, "--trials", str(tmp_path / "trials.txt"), "--out", str(tmp_path / way)])
        content = json.loads((tmp_path / way / "metrics.json").read_text())
        rates[way], described = content["results"]["eer"], content["protocol"]["stores"]
        assert ("different adaptations of one model" in capsys.readouterr().err) == (way == "each")
        assert len({store["adaptation"]["fingerprint"] for store in described}) == (2 if way == "each" else 1)
    assert rates["each"] < 0.8 * rates["one"]


def test_the_reference_of_a_set_lies_beside_the_store(tmp_path: Path) -> None:
    store_at(tmp_path / "clean.zarr", RAW[:, :, :1])
    assert find_reference("clean", tmp_path / "noise0.zarr") == tmp_path / "clean.zarr"
    assert find_reference("other", tmp_path / "noise0.zarr") is None
    assert find_reference(None, tmp_path / "noise0.zarr") is None
    assert find_reference("x/y.zarr", tmp_path / "noise0.zarr") == Path("x/y.zarr")


def test_without_a_reference_the_command_says_so(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    noisy = store_at(tmp_path / "n.zarr", RAW[:, :, 1:2])
    (tmp_path / "p.yaml").write_text("enhance: {adapt: clean}\n")
    command = ["enhance", "--store", str(noisy.path), "--model", str(model), "--params", str(tmp_path / "p.yaml")]
    main([*command, "--out", str(tmp_path / "e.zarr")])
    assert "not adapted, because there is no clean.zarr beside it" in capsys.readouterr().err


def test_implausible_vectors_make_no_model(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = store_at(tmp_path / "o.zarr", encoded(OTHERS, encoder=5)[:, :, :1])
    with pytest.raises(SystemExit):
        main(["adapt", "--model", str(model), "--store", str(other.path), "--out", str(tmp_path / "a.safetensors")])
    assert "not of speech, or not of the model's encoder" in capsys.readouterr().err
    assert not (tmp_path / "a.safetensors").exists()


def test_a_damaged_adaptation_is_refused(model: Path, tmp_path: Path) -> None:
    loaded = load_model(model)
    adapted = adapt_model(loaded.model, FOREIGN[:, 0, 0], loaded.sha256)
    adapted.shift = adapted.shift.clone()
    adapted.shift[0, 0] = float("nan")
    save_model(tmp_path / "a.safetensors", adapted, ENCODER, {})
    with pytest.raises(WeightsError, match="its adaptation is damaged"):
        load_model(tmp_path / "a.safetensors")


def test_files_of_models_that_are_not_adapted_say_nothing_of_it(model: Path) -> None:
    with safe_open(model, framework="pt") as file:
        assert "shift" not in file.keys()  # noqa: SIM118
        assert "adaptation" not in json.loads(file.metadata()["seed"])
    assert load_model(model).base_sha256 == sha256_of(model)


def test_the_spread_is_the_total_variance_of_directions() -> None:
    vectors = 7 * np.random.default_rng(0).standard_normal((500, 4, DIM)).astype(np.float32)
    unit = vectors.reshape(-1, DIM) / np.linalg.norm(vectors.reshape(-1, DIM), axis=1, keepdims=True)
    assert measure_spread(vectors) == pytest.approx(np.trace(np.cov(unit.T, bias=True)), rel=1e-4)


@pytest.mark.parametrize(("atypicality", "plausible"), [(1.0, True), (LIMIT, True), (LIMIT + 0.1, False)])
def test_the_record_says_what_is_wrong(atypicality: float, plausible: bool) -> None:
    record = Adaptation(base_sha256="", vectors=90, weight=0.9, atypicality=atypicality, fingerprint="ab")
    assert record.is_plausible == plausible
    assert (record.describe_problem() is None) == plausible


def test_only_a_suitable_store_beside_it_decides_the_strength(tmp_path: Path, model: Path) -> None:
    store = store_at(tmp_path / "n.zarr", RAW[:, :, 1:2])
    assert find_clean(store) is None
    for other, suits in (({}, True), ({"enhanced_by_sha256": "ef"}, False), ({"weights_sha256": "cd"}, False)):
        store_at(tmp_path / "clean.zarr", RAW[:, :, :1], **other)
        assert (find_clean(store) is not None) == suits
        main(["enhance", "--store", str(store.path), "--model", str(model), "--out", str(tmp_path / "e.zarr")])
