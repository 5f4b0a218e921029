import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.audio.augment.corrupt import corrupt, dump_trace, replay
from pipeline.audio.augment.corruptions.clipping import Clip
from pipeline.audio.augment.corruptions.codecs import Mp3, Opus, Vorbis
from pipeline.audio.augment.corruptions.noise import Babble, Music, Noise
from pipeline.audio.augment.corruptions.reverb import Reverb
from pipeline.audio.augment.corruptions.telephone import Gsm, Phone
from pipeline.audio.augment.recipe import stream
from pipeline.audio.augment.sources import Source, SourcePool
from pipeline.audio.augment.steps import OneOf
from pipeline.audio.reading import read_audio
from pipeline.config.conditions import condition_steps
from pipeline.config.extract import Extract
from pipeline.errors import CorpusError
from tests.conftest import voice

SPEECH = voice(150, 1.2, 0)
NOISE_OR_BABBLE = Extract().views["noise"]


def rng(draw: int = 0) -> np.random.Generator:
    return stream(0, "u", draw, "v")


def test_noise_shorter_than_the_speech_is_repeated_from_its_start_on(pool: SourcePool) -> None:
    noisy, (step,) = corrupt(SPEECH, condition_steps("noise5"), rng(), pool)
    (source,) = step["sources"]
    noise = read_audio(Path(source["path"]))
    assert len(noise) < len(SPEECH) / 3
    added = (noisy - SPEECH).astype(np.float64)
    repeated = np.resize(noise, len(SPEECH)).astype(np.float64)
    assert source["start"] == 0
    assert np.dot(added, repeated) / np.linalg.norm(added) / np.linalg.norm(repeated) > 0.99999
    assert step["snr"] == 5
    assert 10 * np.log10(np.mean(SPEECH**2) / np.mean(added**2)) == pytest.approx(5, abs=0.01)


def test_longer_music_is_cut_where_the_trace_says(pool: SourcePool) -> None:
    starts = set()
    for draw in range(5):
        noisy, (step,) = corrupt(SPEECH, condition_steps("music0"), rng(draw), pool)
        (source,) = step["sources"]
        starts.add(source["start"])
        music = read_audio(Path(source["path"]))[source["start"] : source["start"] + len(SPEECH)]
        added = (noisy - SPEECH).astype(np.float64)
        assert np.dot(added, music) / np.linalg.norm(added) / np.linalg.norm(music) > 0.99999
    assert len(starts) == 5


def test_babble_is_of_as_many_different_talkers_as_asked_for(pool: SourcePool) -> None:
    step = Babble(snr=[13.0, 20.0], talkers=[2, 3])
    counts = set()
    for draw in range(20):
        _, (applied,) = corrupt(SPEECH, [step], rng(draw), pool, speaker="s1")
        talkers = {int(Path(source["path"]).stem) // 2 for source in applied["sources"]}
        assert 1 not in talkers  # the speaker's own
        assert len(talkers) == len(applied["sources"])
        assert 13 <= applied["snr"] <= 20
        counts.add(len(talkers))
    assert counts == {2, 3}


def test_a_trace_is_enough_to_do_it_again(pool: SourcePool) -> None:
    chain = [
        *condition_steps("reverb_clip5"),
        *NOISE_OR_BABBLE,
        Mp3(kbit=[16, 32]),
        Opus(kbit=[16]),
        Vorbis(quality=[0, 3]),
        Phone(),
        Gsm(),
        Music(snr=[5.0, 15.0], probability=0.5),
        Noise(snr=[0.0, 15.0], floor=1e-4),
        Reverb(response="unit"),
    ]
    for draw in range(3):
        made, steps = corrupt(SPEECH, chain, rng(draw), pool)
        text = dump_trace({"start": 0, "steps": steps})
        np.testing.assert_array_equal(replay(SPEECH, json.loads(text)["steps"], pool), made)


def test_settings_of_other_tools_are_in_traces_only_if_they_are_set(pool: SourcePool) -> None:
    for plain, other, key in (
        (Noise(snr=[5.0, 5.0]), Noise(snr=[5.0, 5.0], floor=1e-4), "floor"),
        (Reverb(), Reverb(response="unit"), "response"),
    ):
        (first, (usual,)), (second, (set_,)) = (corrupt(SPEECH, [step], rng(), pool) for step in (plain, other))
        assert set_ == usual | {key: getattr(other, key)}  # the same draws
        assert key not in usual
        assert key not in plain.model_dump(exclude_none=True)
        assert not np.array_equal(first, second)


def test_the_trace_names_files_as_they_are_listed(pool: SourcePool) -> None:
    (source, *_) = pool.sources["noise"]
    listed = SourcePool({"noise": [Source(source.path, listed="noise/0.wav")]})
    made, steps = corrupt(SPEECH, condition_steps("noise5"), rng(), listed)
    assert steps[0]["sources"] == [{"path": "noise/0.wav", "start": 0}]
    np.testing.assert_array_equal(replay(SPEECH, steps, listed), made)
    with pytest.raises(CorpusError, match="is not in the augmentation list"):
        replay(SPEECH, steps, pool)


def test_a_step_happens_as_often_as_its_probability_says(pool: SourcePool) -> None:
    step = Noise(snr=[5.0, 5.0], probability=0.25)
    done = [len(corrupt(SPEECH[:400], [step], rng(draw), pool)[1]) for draw in range(400)]
    assert np.mean(done) == pytest.approx(0.25, abs=0.07)


def test_one_of_several_happens_each_with_its_share(pool: SourcePool) -> None:
    kinds = [Reverb(probability=0.2), Clip(percent=[1, 9], probability=0.5)]
    names = []
    for draw in range(400):
        _, steps = corrupt(SPEECH[:400], [OneOf(one_of=kinds)], rng(draw), pool)
        names.append(steps[0]["kind"] if steps else "nothing")
    shares = {name: names.count(name) / 400 for name in ("reverb", "clip", "nothing")}
    assert shares == pytest.approx({"reverb": 0.2, "clip": 0.5, "nothing": 0.3}, abs=0.07)


def test_shares_that_add_up_to_one_leave_nothing_undone(pool: SourcePool) -> None:
    tenths = OneOf(one_of=[Clip(percent=[1, 1], probability=0.1)] * 10)

    class Highest:
        def random(self) -> float:
            return 1 - 2**-53

        def uniform(self, low: float, high: float) -> float:
            return low

    assert corrupt(SPEECH[:400], [tenths], Highest(), pool)[1] == [{"kind": "clip", "percent": 1}]  # type: ignore[arg-type]


def test_nobody_babbles_behind_their_own_speech(pool: SourcePool) -> None:
    steps, wave = condition_steps("babble0"), voice(150, 0.5, 0)
    only = SourcePool({"babble": [source for source in pool.sources["babble"] if source.speaker == "s0"]})
    with pytest.raises(CorpusError, match="talkers other than"):
        corrupt(wave, steps, stream(0, "u", 0, "v"), only, speaker="s0")
    assert {source.speaker for group in pool.talkers("s1") for source in group} == {"s0", "s2", "s3"}
    unknown = SourcePool({"babble": [Source(Path("a.wav")), Source(Path("b.wav"))]})
    assert unknown.talkers(None, Path("a.wav")) == [[Source(Path("b.wav"))]]


def test_a_broken_noise_file_is_named_and_no_fault_of_the_utterance(tmp_path: Path) -> None:
    bad = tmp_path / "noise.wav"
    bad.write_text("not audio")
    with pytest.raises(CorpusError, match=r"augmentation source .*noise\.wav"):
        corrupt(
            voice(150, 0.5, 0), condition_steps("noise5"), stream(0, "u", 0, "v"), SourcePool({"noise": [Source(bad)]})
        )
