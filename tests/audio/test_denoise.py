"""RNNoise in front of the encoder, against its own frame interface, against clean speech, and in stores."""

import json
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
import torch

from pipeline.audio.augment.corruptions.noise import add_at_snr
from pipeline.audio.denoise import DELAY, FRAME, RATE, Rnnoise, _binding, load_denoiser
from pipeline.audio.reading import Waveform, read_audio
from pipeline.config.params import Params
from pipeline.config.train import Train
from pipeline.data.corpora import read_corpora
from pipeline.data.demo.espeak import SpeechJob as Utter
from pipeline.data.demo.espeak import synthesise
from pipeline.data.demo.voices import SENTENCES
from pipeline.data.manifest import Utterance, write_augment, write_manifest
from pipeline.encoders.encoder import Encoder
from pipeline.errors import AudioError, ConfigError, SeedError, StoreError
from pipeline.extraction.cluster import RemoteJob
from pipeline.extraction.extract import extract, store_attributes, threaded_runner
from pipeline.extraction.plan import make_plan
from pipeline.model.model_file import describe_denoiser_mismatch, load_model, save_model
from pipeline.model.seed_model import SeedModel
from pipeline.scoring.condition_stores import check_comparable, open_condition_stores
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.store.schema import OK
from pipeline.store.writer import write_store
from tests.conftest import WriteVoice, tree_bytes
from tests.stages.test_cli import run

PROJECT = Path(__file__).parents[2]
VOICES = ("en-us+m3", "en-us+f3")

needs_rnnoise = pytest.mark.skipif(find_spec("pyrnnoise") is None, reason="pyrnnoise is not installed")


@pytest.fixture
def denoiser() -> Rnnoise:
    found = load_denoiser("rnnoise")
    assert found
    return found


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> list[Waveform]:
    """A sentence of a man and of a woman."""
    pytest.importorskip("espeakng_loader")
    folder = tmp_path_factory.mktemp("speech")
    synthesise([Utter(voice, 160, 50, 50, SENTENCES[1], str(folder / f"{voice}.flac")) for voice in VOICES])
    return [read_audio(folder / f"{voice}.flac") for voice in VOICES]


def noise(length: int, seed: int = 0) -> Waveform:
    return (0.1 * np.random.default_rng(seed).standard_normal(length)).astype(np.float32)


def snr(clean: Waveform, wave: Waveform) -> float:
    """dB, scale-invariant: of what of a wave is the clean one, and the rest."""
    ours = (wave @ clean) / (clean @ clean) * clean
    return float(10 * np.log10((ours @ ours) / ((wave - ours) @ (wave - ours))))


def lag(wave: Waveform, by: Waveform) -> int:
    """Samples by which a wave is late, where the cross-correlation peaks."""
    size = 2 * max(len(wave), len(by))
    return int(np.argmax(np.fft.irfft(np.fft.rfft(wave, size) * np.conj(np.fft.rfft(by, size)))))


@needs_rnnoise
def test_speech_is_nearer_to_the_clean_one_and_in_step_with_it(denoiser: Rnnoise, speech: list[Waveform]) -> None:
    for clean in speech:
        assert lag(denoiser(clean), clean) == 0
        assert snr(clean, denoiser(clean)) > 6  # synthetic voices lose some of themselves
        noisy = add_at_snr(clean, noise(len(clean)), 5.0)
        denoised = denoiser(noisy)
        assert lag(denoised, clean) == 0
        assert snr(clean, denoised) > snr(clean, noisy) + 3
    alone = noise(48_000)
    assert np.linalg.norm(denoiser(alone)[8000:]) < 0.05 * np.linalg.norm(alone[8000:])


@needs_rnnoise
def test_it_is_what_the_packages_own_frames_give(denoiser: Rnnoise, speech: list[Waveform]) -> None:
    binding = _binding()
    noisy = add_at_snr(speech[0], noise(len(speech[0])), 5.0)[:32_107]
    fine = soxr.resample(noisy, 16_000, RATE)
    assert np.abs(fine).max() < 1
    state = binding.create()
    padded = np.pad(fine, (0, DELAY + FRAME - len(fine) % FRAME))
    # Its own interface rounds to 16 bits on the way in and out, and speaks of integers.
    frames = [binding.process_mono_frame(state, padded[at : at + FRAME])[0] for at in range(0, len(padded), FRAME)]
    binding.destroy(state)
    by_hand = np.concatenate(frames).astype(np.float32)
    assert abs(lag(by_hand, fine) - DELAY) <= 1
    expected = soxr.resample(by_hand[DELAY : DELAY + len(fine)] / 32_768, RATE, 16_000)
    assert snr(expected, denoiser(noisy)) > 40


@needs_rnnoise
@pytest.mark.parametrize("length", [1, 2, 159, 160, 161, 479, 480, 16_001, 32_240])
def test_any_length_stays_as_it_is(denoiser: Rnnoise, length: int) -> None:
    wave = noise(length)
    before = wave.copy()
    denoised = denoiser(wave)
    assert (denoised.shape, denoised.dtype) == ((length,), np.float32)
    assert np.isfinite(denoised).all()
    np.testing.assert_array_equal(wave, before)


@needs_rnnoise
def test_silence_stays_and_what_is_no_number_is_refused(denoiser: Rnnoise) -> None:
    np.testing.assert_array_equal(denoiser(np.zeros(16_000, np.float32)), 0)
    assert len(denoiser(np.zeros(0, np.float32))) == 0
    for value in (np.nan, np.inf):
        wave = noise(16_000)
        wave[700] = value
        with pytest.raises(AudioError, match="NaN or infinite samples cannot be denoised"):
            denoiser(wave)


@needs_rnnoise
def test_a_wave_gives_the_same_whatever_came_before_or_beside_it(denoiser: Rnnoise) -> None:
    waves = [noise(16_000 + 100 * seed, seed) * (1 + seed) for seed in range(3)]
    alone = [denoiser(wave) for wave in waves]
    backwards = [denoiser(wave) for wave in waves[::-1]][::-1]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(denoiser, waves))
    for one, two, three in zip(alone, backwards, together, strict=True):
        np.testing.assert_array_equal(one, two)
        np.testing.assert_array_equal(one, three)


@needs_rnnoise
def test_the_package_itself_is_not_imported(denoiser: Rnnoise) -> None:
    assert denoiser.name.startswith("rnnoise (pyrnnoise ")
    assert not {"pyrnnoise", "audiolab", "av"} & set(sys.modules)
    assert load_denoiser("none") is None


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_voice: WriteVoice) -> Path:
    """A working folder with three voices, a noise, and lists of them."""
    monkeypatch.chdir(tmp_path)
    rows = [Utterance(f"u{n}", f"audio/u{n}.wav", f"s{n}") for n in range(3)]
    for n, row in enumerate(rows):
        write_voice(tmp_path / row.path, 90 + 20 * n, 1.2, n)
    write_manifest(tmp_path / "m.csv", rows)
    soundfile.write(tmp_path / "audio/noise.wav", noise(20_000), 16_000)
    write_augment(tmp_path / "a.csv", [{"kind": "noise", "path": "audio/noise.wav"}])
    return tmp_path


VIEWS = {"noise": [{"kind": "noise", "snr": [0, 5]}]}
SETTINGS: dict[str, Any] = {"extract": {"draws": 2, "frames": 60, "shard": 2, "views": VIEWS}}


def spec(place: Path, entry: Mapping[str, Any] | None = None, denoise: Any = None) -> RemoteJob:
    settings = SETTINGS | ({"encoder": {"ge2e": {"family": "ge2e"} | dict(entry)}} if entry else {})
    params = Params.model_validate(settings).model_dump_json()
    return RemoteJob(place / "m.csv", place / "a.csv", place, "train", "ge2e", None, params, denoise)


def made(spec: RemoteJob, out: Path, workers: int = 0) -> tuple[EmbeddingStore, int]:
    """Extract; return the store, and how many rows were encoded."""
    job = spec.load()
    done = extract(job, out, store_attributes(job, None, None), 2, run=threaded_runner(workers))
    return EmbeddingStore.open(out), done.progress.encoded


@needs_rnnoise
def test_the_encoder_hears_every_crop_denoised_whatever_the_workers(place: Path, ge2e: Encoder) -> None:
    denoised, _ = made(spec(place, {"denoise": "rnnoise"}), place / "one/s.zarr")
    made(spec(place, denoise="rnnoise"), place / "many/s.zarr", 3)
    assert tree_bytes(place / "one") == tree_bytes(place / "many")
    plain, _ = made(spec(place, {"denoise": "rnnoise"}, "none"), place / "plain/s.zarr")
    found = load_denoiser("rnnoise")
    assert found
    assert (denoised.attributes["denoise"], plain.attributes.get("denoise", "no")) == (found.name, "no")
    for draw in range(2):
        assert denoised.trace(2) == plain.trace(2)
        start = denoised.trace(2)[draw][0]["start"]
        crop = read_audio(place / "audio/u2.wav")[start : start + 9_840]
        for store, wave in ((plain, crop), (denoised, found(crop))):
            expected = ge2e([torch.from_numpy(wave)])[0].numpy()
            np.testing.assert_allclose(store.read()[2, draw, 0], expected, atol=1e-5)
    assert np.abs(denoised.read() - plain.read()).max(axis=(0, 1, 3)).min() > 0.02


@needs_rnnoise
def test_rows_are_never_reused_across_denoisers(place: Path) -> None:
    out = place / "s.zarr"
    for denoise, encoded in (("none", 3), ("none", 0), ("rnnoise", 3), ("rnnoise", 0), ("none", 3)):
        assert made(spec(place, denoise=denoise), out)[1] == encoded


def test_a_crop_that_cannot_be_denoised_fails_its_row(place: Path) -> None:
    def refuse(wave: Waveform) -> Waveform:
        raise AudioError("cannot be denoised.")

    job = replace(spec(place).load(), denoiser=Rnnoise("none of it", refuse))
    with pytest.raises(SeedError, match=r"3 of 3 utterances failed.* u0: .*audio/u0.wav: cannot be denoised\."):
        extract(job, place / "s.zarr", store_attributes(job, None, None))


def stored(path: Path, denoise: str | None, **more: Any) -> EmbeddingStore:
    """Write two vectors of each of six speakers as of a toy encoder; denoised ones are others than plain ones."""
    rng = np.random.default_rng(1 if denoise else 0)
    values = np.repeat(rng.standard_normal((6, 1, 1, 8)), 2, axis=0) + rng.standard_normal((12, 1, 1, 8))
    of = {"encoder": "toy", "family": "toy", "dim": 8, **({"denoise": denoise} if denoise else {}), **more}
    write_store(
        path,
        [f"{speaker}/{n}" for speaker in "abcdef" for n in range(2)],
        values.astype(np.float32),
        np.full(12, OK, np.uint8),
        of,
    )
    return EmbeddingStore.open(path)


def test_denoised_and_plain_vectors_do_not_meet_unnoticed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain, denoised = (
        stored(tmp_path / f"{name}/clean.zarr", by) for name, by in (("raw", None), ("rnnoise", "rnnoise (0)"))
    )
    assert "denoise" not in plain.encoder()
    check_comparable(denoised, denoised)
    with pytest.raises(StoreError, match=r"denoise is None and 'rnnoise \(0\)'.* with the same denoise setting"):
        check_comparable(plain, denoised)
    sources = open_condition_stores(
        {"raw": tmp_path / "raw", "rnnoise": tmp_path / "rnnoise"}, ["clean"]
    )  # each a system
    sources["rnnoise"].check_same_encoder(denoised.encoder(), denoised.path)
    with pytest.raises(
        StoreError, match=r"encoder denoise is None, but 'rnnoise \(0\)'.* with the same denoise setting"
    ):
        sources["rnnoise"].check_same_encoder(plain.encoder(), plain.path)

    model = SeedModel(8, Train.model_validate({"network": {"precondition": "none"}}))
    model.domain_matrix.copy_(1e-3 * torch.eye(8))  # it knows a kind of speech; without, a line would say so
    save_model(tmp_path / "m.safetensors", model, plain.encoder(), {})
    loaded = load_model(tmp_path / "m.safetensors")
    assert describe_denoiser_mismatch(loaded.encoder, plain.attributes) is None
    for store, note in (
        (plain, ""),
        (denoised, "trained on vectors of no denoiser, applied to vectors of rnnoise (0)"),
    ):
        out = store.path.parent.with_name(f"seed_{store.path.parent.name}") / "clean.zarr"
        code, _, err = run(
            capsys, "enhance", "--store", store.path, "--model", tmp_path / "m.safetensors", "--out", out
        )
        assert (code, err) == (0, f"{tmp_path / 'm.safetensors'}: {note}\n" if note else "")
        assert EmbeddingStore.open(out).attributes.get("denoise") == store.attributes.get("denoise")


def test_an_ensemble_takes_the_raw_vectors_of_the_same_audio(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.yaml").write_text(
        "conditions: [clean]\nsets: [train, clean]\nscore: {bootstrap: 0, systems: {sum: {of: seed, ensemble: 1.0}}}\n"
    )
    (tmp_path / "m.csv").write_text(
        "utterance,path,speaker\n" + "".join(f"{s}/{n},x,{s}\n" for s in "abcdef" for n in "01")
    )
    stored(tmp_path / "raw/clean.zarr", None)
    denoised = stored(tmp_path / "rnnoise/clean.zarr", "rnnoise (0)")
    model = SeedModel(8, Train.model_validate({"network": {"precondition": "none"}}))
    save_model(tmp_path / "m.safetensors", model, denoised.encoder(), {})
    enhance = ("enhance", "--store", "rnnoise/clean.zarr", "--model", "m.safetensors", "--out", "seed/clean.zarr")
    assert run(capsys, *enhance)[0] == 0
    folders = {name: ("--system", f"{name}={name}") for name in ("raw", "rnnoise", "seed")}
    rest = (
        "--model",
        "m.safetensors",
        "--manifest",
        "m.csv",
        "--params",
        "p.yaml",
        "--out",
        "r",
    )
    code, _, err = run(capsys, "score", *folders["raw"], *folders["seed"], *rest)
    assert (code, "raw ones of audio denoised by rnnoise (0) with --system" in err) == (1, True)
    code, _, err = run(capsys, "score", *folders["raw"], *folders["seed"], *folders["rnnoise"], *rest)
    assert (code, err) == (0, "")
    written = json.loads((tmp_path / "r/metrics.json").read_text())
    table = written["results"]["clean"]
    # All of the original, none of the enhanced, in the space of a model that only scales.
    assert table["sum"]["eer"] == table["rnnoise"]["eer"] != table["raw"]["eer"]
    assert {each["role"]: each.get("denoise") for each in written["protocol"]["stores"]} == {
        "raw/clean": None,
        "seed/clean": "rnnoise (0)",
        "rnnoise/clean": "rnnoise (0)",
    }


@needs_rnnoise
def test_what_the_encoder_heard_can_be_heard(place: Path, capsys: pytest.CaptureFixture[str], ge2e: Encoder) -> None:
    (place / "params.yaml").write_text(json.dumps(SETTINGS))
    store, _ = made(spec(place, denoise="rnnoise"), place / "s.zarr")
    view = (
        "augment",
        "preview",
        "u1",
        "--manifest",
        "m.csv",
        "--augment",
        "a.csv",
        "--view",
        "noise",
        "--store",
        "s.zarr",
    )
    code, _, err = run(capsys, *view, "--out", "x.wav")
    assert code == 1
    assert "s.zarr: its audio was denoised by rnnoise" in err
    assert not (place / "x.wav").exists()
    code, out, err = run(capsys, *view, "--denoise", "rnnoise", "--out", "x.wav")
    assert (code, err) == (0, "")
    assert "\ndenoised by rnnoise (pyrnnoise " in out
    heard = ge2e([torch.from_numpy(read_audio(place / "x.wav"))])[0].numpy()
    np.testing.assert_allclose(heard, store.read()[1, 0, 1], atol=1e-5)


@pytest.mark.parametrize("how", ["option", "parameter", "preview"])
def test_without_the_package_it_is_one_clear_line(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    monkeypatch.setitem(sys.modules, "pyrnnoise", None)  # as if it were not installed
    load_denoiser.cache_clear()
    entry = {"encoder": {"ge2e": {"family": "ge2e", "denoise": "rnnoise" if how == "parameter" else "none"}}}
    (place / "params.yaml").write_text(json.dumps(SETTINGS | entry))
    command = (
        ("augment", "preview", "u1", "--view", "clean", "--out", "x.wav")
        if how == "preview"
        else ("extract", "--set", "train", "--encoder", "ge2e", "--out", "s.zarr")
    )
    option = () if how == "parameter" else ("--denoise", "rnnoise")
    code, _, err = run(capsys, *command, *option, "--manifest", "m.csv", "--augment", "a.csv")
    assert code == 1
    assert err.startswith(
        "seed: error: denoise rnnoise needs the package pyrnnoise: pip install '.[rnnoise]' (docs/install.md)"
    )
    assert err.count("\n") == 1
    assert sorted(path.name for path in place.iterdir()) == ["a.csv", "audio", "m.csv", "params.yaml"]


@needs_rnnoise
def test_a_package_that_does_not_work_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pyrnnoise").mkdir()
    (tmp_path / "pyrnnoise/__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    load_denoiser.cache_clear()
    for content, why in (
        ("raise OSError('RnNoise library not found: librnnoise.so')", r"library not found: librnnoise\.so"),
        ("FRAME_SIZE, SAMPLE_RATE = 160, 16000", "frames of 160 samples at 16000 Hz"),
    ):
        (tmp_path / "pyrnnoise/rnnoise.py").write_text(content)
        with pytest.raises(ConfigError, match=rf"pyrnnoise [\d.]+ does not work here \(.*{why}.*\)"):
            load_denoiser("rnnoise")


def test_the_advice_is_the_pinned_version() -> None:
    from pipeline.audio.denoise import ADVICE

    assert ADVICE.rpartition(" ")[2] in (PROJECT / "constraints.txt").read_text().splitlines()


def test_a_plan_counts_the_denoiser_in(tmp_path: Path) -> None:
    hours = []
    for denoise in ("none", "rnnoise"):
        entry = {"ge2e": {"family": "ge2e", "denoise": denoise}}
        params = Params.model_validate({"encoder": entry, "sets": ["train", "clean"], "conditions": ["clean"]})
        steps = make_plan(params, read_corpora(PROJECT / "data/corpora.yaml"), tmp_path)
        hours.append(next(step.hours for step in steps if step.name == "ge2e train") or 0)
    assert hours[1] > 10 * hours[0] > 0
