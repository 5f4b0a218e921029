"""A corruption that another package brings, in one file."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.audio.augment.corruptions import all_corruptions, find_corruption
from pipeline.audio.reading import read_audio
from pipeline.config.conditions import condition_steps
from pipeline.config.params import read_params
from pipeline.encoders.encoder import Encoder
from pipeline.errors import ConfigError
from pipeline.store.embedding_store import EmbeddingStore
from tests.conftest import WriteVoice
from tests.plugins import install_plugin
from tests.stages.test_cli import run

HUM = '''
from typing import ClassVar, Literal

import numpy as np

from pipeline.audio.augment.corruption import Applied, Corruption, Range, draw_between


class Hum(Corruption):
    """Add a tone of `hertz`, a tenth of full scale."""

    kind: Literal["hum"] = "hum"
    hertz: Range

    spelling = "hum<Hz>"
    units: ClassVar = {"hertz": " Hz"}

    @classmethod
    def settings_at(cls, number):
        return {"hertz": [number, number]}

    def draw(self, speech, pool, rng) -> Applied:
        return {"hertz": draw_between(self.hertz, rng)}

    @classmethod
    def apply(cls, wave, applied, pool):
        tone = 0.1 * np.sin(2 * np.pi * applied["hertz"] * np.arange(len(wave)) / 16_000)
        return wave + tone.astype(np.float32)


PLUGIN = Hum
'''

PARAMS = """
conditions: [clean, hum50_gsm]
sets: [train, clean, hum50_gsm]
extract:
  draws: 2
  frames: 60
  workers: 0
  views:
    hum:
      - one_of:
          - {kind: hum, probability: 0.5, hertz: [50, 60]}
          - {kind: clip, probability: 0.5, percent: [1, 2]}
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_plugin(tmp_path / "plugin", monkeypatch, "corruptions", "hum", "plugin_hum", HUM)


def test_a_view_and_a_condition_use_it(
    plugin: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    write_voice: WriteVoice,
    ge2e: Encoder,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for number in range(3):
        write_voice(tmp_path / f"audio/s{number}/u.wav", 100 + 40 * number, 1.2, number)
    Path("params.yaml").write_text(PARAMS)
    assert run(capsys, "manifest", "--audio", "audio", "--pattern", "*/*.wav", "--out", "m.csv")[0] == 0
    for name in ("train", "hum50_gsm"):
        code, _, err = run(
            capsys, "extract", "--manifest", "m.csv", "--set", name, "--encoder", "ge2e", "--out", f"{name}.zarr"
        )
        assert code == 0, err
    store = EmbeddingStore.open(Path("train.zarr"))
    (step,) = store.attributes["recipe"]["views"][1]["steps"]
    assert step["one_of"][0] == {"kind": "hum", "probability": 0.5, "hertz": [50.0, 60.0]}
    kinds = {step["kind"] for row in range(3) for _, view in store.trace(row) for step in view["steps"]}
    assert kinds == {"hum", "clip"}
    store = EmbeddingStore.open(Path("hum50_gsm.zarr"))
    assert store.trace(0)[0][0]["steps"] == [{"kind": "hum", "hertz": 50.0}, {"kind": "gsm"}]
    preview = ("augment", "preview", store.utterances[0], "--manifest", "m.csv", "--set", "hum50_gsm")
    code, out, err = run(capsys, *preview, "--store", "hum50_gsm.zarr", "--out", "x.wav")
    assert code == 0, err
    assert "hum, 50 Hz\ngsm\n" in out
    assert not np.array_equal(read_audio(Path("x.wav")), read_audio(Path("audio/s0/u.wav")))


def test_messages_and_the_registry_list_it(plugin: None, tmp_path: Path) -> None:
    assert [each.spelling for each in all_corruptions()][-2:] == ["clip<%>", "hum<Hz>"]
    with pytest.raises(ConfigError, match=r"clip<%>, hum<Hz>, joined"):
        condition_steps("buzz5")
    (tmp_path / "p.yaml").write_text("extract: {views: {n: [{kind: buzz}]}}\n")
    with pytest.raises(ConfigError, match=r"n\.0\.kind: must be one of noise, .*, clip, hum, got 'buzz'"):
        read_params(tmp_path / "p.yaml")


def test_without_the_plugin_its_kind_is_unknown() -> None:
    with pytest.raises(ConfigError, match="must be one of noise, music"):
        find_corruption("hum")
    with pytest.raises(ConfigError, match="unknown condition 'hum50'"):
        condition_steps("hum50")


@pytest.mark.parametrize("source", ["PLUGIN = 5", HUM.replace('"hum"', '"buzz"')])
def test_a_plugin_that_is_no_corruption_of_its_name_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    name = f"plugin_bad{len(source)}"
    install_plugin(tmp_path, monkeypatch, "corruptions", "hum", name, source)
    with pytest.raises(ConfigError, match=r"plugin hum \(speaker_seed.corruptions\): .* is not a Corruption of kind"):
        find_corruption("hum")
