import json
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from ruamel.yaml import YAML
from safetensors import safe_open
from safetensors.torch import save_file
from scipy.spatial.distance import mahalanobis

from pipeline.errors import OutputError, WeightsError
from pipeline.model.apply import enhance_vectors
from pipeline.model.card import card, write_card
from pipeline.model.diffusion.sampler import Sampling
from pipeline.model.model_file import load_model
from pipeline.training.api import train
from pipeline.training.strength import RIDGE, measure_crop_eers
from pipeline.training.train import hold_out
from pipeline.utils.atomic import sha256_of
from tests.linear_encoder import DIM, encoded, speech

PROJECT = Path(__file__).parents[2]
SPEECH = speech(16, 4)
VALUES = encoded(SPEECH)
IDS = list(map(str, range(len(VALUES))))
SETTINGS = {"max_epochs": 3, "batch_size": 64, "validation": 0.25, "device": "cpu"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "seed.safetensors"
    encoder = {"encoder": "a|b", "family": "linear", "weights_sha256": "ab" * 32}
    train(VALUES[:, :, 0], VALUES[:, :, 1:], speakers=SPEECH.speakers, encoder=encoder, settings=SETTINGS, out=path)
    return path


def metadata(path: Path) -> dict:
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["seed"])


def held() -> np.ndarray:
    speakers = dict(zip(IDS, SPEECH.speakers, strict=True))
    return hold_out(IDS, speakers, 0.25, np.random.default_rng(0))[0]


def test_the_file_says_what_vectors_of_training_looked_like(model: Path) -> None:
    saved = metadata(model)
    seen, unseen = (VALUES[chosen].astype(np.float64) for chosen in (~held(), held()))
    for name, part in (("clean_norm", seen[:, :, 0]), ("noisy_norm", seen[:, :, 1:])):
        expected = np.percentile(np.sqrt((part**2).sum(axis=-1)), (1, 50, 99))
        np.testing.assert_allclose([saved["vectors"][name][key] for key in ("p1", "p50", "p99")], expected, rtol=1e-5)
    units, others = (each.reshape(-1, DIM) for each in (seen, unseen))
    units, others = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (units, others))
    covariance = np.cov(units.T, bias=True)
    covariance += RIDGE * np.trace(covariance) / DIM * np.eye(DIM)
    far = [mahalanobis(each, units.mean(axis=0), np.linalg.inv(covariance)) ** 2 for each in others]
    assert saved["vectors"]["atypicality"] == pytest.approx(np.percentile(far, 99.9) / np.median(far), rel=1e-3)


def test_the_file_says_what_it_was_trained_on_and_what_became_of_it(model: Path) -> None:
    saved, loaded = metadata(model), load_model(model)
    assert len(saved.pop("digest")) == 64
    training = saved["training"]
    assert saved["format"] == "seed-2"
    counts = {"utterances": 64, "speakers": 16, "draws": 2, "noisy_views": ["1", "2", "3"], "epochs": 3, "seed": 0}
    assert {key: training[key] for key in counts} == counts
    assert training["held_out"] == "4 of 16 speakers"
    assert saved["strength"] == pytest.approx(float(loaded.model.strength), abs=1e-6)
    assert (saved, loaded.metadata["vectors"]) == (loaded.metadata, saved["vectors"])
    crops, known = VALUES[held()], [name for name, out in zip(SPEECH.speakers, held(), strict=True) if out]
    ours = enhance_vectors(loaded.model, crops.reshape(-1, DIM), Sampling(50, strength=saved["strength"]))
    for name, values in (("raw", crops), ("enhanced", ours.reshape(crops.shape))):
        expected = measure_crop_eers(values, known, 0)
        found = training["held_out_eer"][name]
        assert (found["clean"], found["noisy"]) == pytest.approx(expected, abs=1e-9)
    assert set(saved) == {"format", "settings", "encoder", "training", "strength", "vectors"}


def test_the_card_says_what_the_file_does_and_always_the_same(model: Path, tmp_path: Path) -> None:
    beside = model.with_suffix(".md")
    text = beside.read_text(encoding="utf-8")
    write_card(model, tmp_path / "again.md")
    assert (tmp_path / "again.md").read_bytes() == beside.read_bytes()
    front = YAML(typ="safe").load(text.split("---\n")[1])
    assert front["library_name"] == "speaker-seed"
    assert "speaker-verification" in front["tags"]
    rows = dict(re.findall(r"^\| (.+?) \| (.+) \|$", text, re.MULTILINE))
    saved = metadata(model)
    assert rows["encoder"] == r"a\|b"
    assert rows["SHA-256 of its weights"] == "ab" * 32
    assert rows["SHA-256 of the file"] == sha256_of(model)
    assert (rows["dimension"], rows["utterances"], rows["held out for validation"]) == ("32", "64", "4 of 16 speakers")
    assert rows["validation loss"].startswith(f"{saved['training']['validation_loss']:.4f} (")
    assert rows["strength, from raw (0) to enhanced (1)"] == f"{saved['strength']:g}"
    eers = {
        name: f"{each['clean']:.2f} | {each['noisy']:.2f}" for name, each in saved["training"]["held_out_eer"].items()
    }
    assert {name: rows[name] for name in eers} == eers
    scaled = f"- network: vectors have a mean vector subtracted .* L2 norm sqrt\\({DIM}\\) = {DIM**0.5:.4f}\\."
    assert re.search(scaled, text)
    for words in ("- input: ", "- output: ", "    network.precondition: whiten", "    max_epochs: 3"):
        assert words in text


def test_the_cards_python_runs(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = re.findall(r"```python\n(.*?)```", model.with_suffix(".md").read_text(encoding="utf-8"), re.DOTALL)
    monkeypatch.chdir(model.parent)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        exec(code[0], {})
    assert capsys.readouterr().out.count("'atypical'") == 8  # random vectors belong to no speaker
    assert len(code[0].strip().splitlines()) <= 10


def test_a_file_of_before_has_a_card_as_well(model: Path, tmp_path: Path) -> None:
    content = metadata(model)
    for key in ("vectors", "strength", "digest"):
        del content[key]
    content["scale"] = {"input": "vectors as the encoder gives them"}  # which older versions wrote
    content["training"] = {"best_epoch": 2, "validation_loss": 0.25, "held_out": "4 of 16 speakers"}
    with safe_open(model, framework="pt") as file:
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    save_file(state, tmp_path / "old.safetensors", {"seed": json.dumps(content)})
    text = card(load_model(tmp_path / "old.safetensors"), "old.safetensors")
    assert "| best epoch | 2 of ? |" in text
    assert "| validation loss | 0.2500 |" in text
    assert "flagged if their atypicality (usually 1) is above 6" in text
    assert "The error rates above" in card(load_model(model), "seed.safetensors")
    assert "The error rates above" not in text  # there are none
    content["vectors"] = {"clean_norm": {"p1": 1.0, "p50": float("nan"), "p99": 1.0}}
    save_file(state, tmp_path / "bad.safetensors", {"seed": json.dumps(content)})
    with pytest.raises(WeightsError, match=r"not a SEED model; .*vectors"):
        load_model(tmp_path / "bad.safetensors")


def test_a_card_replaces_no_folder(model: Path, tmp_path: Path) -> None:
    (tmp_path / "seed.md").mkdir()
    with pytest.raises(OutputError):
        write_card(model, tmp_path / "seed.md")


def test_dvc_keeps_the_card_beside_the_model() -> None:
    outs = YAML(typ="safe").load((PROJECT / "dvc.yaml").read_text())["stages"]["train"]["outs"]
    assert [Path(out).with_suffix("") for out in outs] == [Path("models/${item.encoder}/seed")] * 2
    assert {Path(out).suffix for out in outs} == {".safetensors", ".md"}


def test_a_model_that_does_nothing_says_so(tmp_path: Path, model: Path) -> None:
    loaded = load_model(model)
    assert "**" not in card(loaded, "m").partition("## Training")[2].partition("## ")[0]
    loaded.model.strength.zero_()
    loaded.metadata["training"] |= {"best_epoch": 0, "epochs": 3}
    text = card(loaded, "m")
    assert "**The network is untrained: no epoch was better" in text
    assert "**The strength is 0: vectors are returned unchanged, because nothing was better" in text
    assert "`seed adapt`" in text
