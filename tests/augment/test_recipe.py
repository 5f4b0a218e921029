from pathlib import Path

import numpy as np
import pytest

from pipeline.augment.recipe import (
    check_sources,
    condition_recipe,
    condition_view,
    corrupt,
    make_views,
    training_recipe,
)
from pipeline.augment.sources import Source, SourcePool
from pipeline.augment.streams import stream
from pipeline.errors import ConfigError, CorpusError
from tests.conftest import WriteVoice, voice

CROP = 8_000
TRAINING = training_recipe(draws=3, crop=CROP, noise_snr=(0, 15), music_snr=(5, 15), babble_share=0.5)


@pytest.fixture
def pool(tmp_path: Path, write_voice: WriteVoice) -> SourcePool:
    def some(kind: str, count: int, seconds: float) -> list[Source]:
        paths = [tmp_path / kind / f"{number}.wav" for number in range(count)]
        return [Source(write_voice(path, 100 + 37 * n, seconds, n)) for n, path in enumerate(paths)]

    talkers = [Source(source.path, speaker=f"s{n // 2}") for n, source in enumerate(some("babble", 8, 1.0))]
    return SourcePool(
        {
            "noise": some("noise", 4, 0.3),
            "music": some("music", 2, 2),
            "rooms": some("rooms", 3, 0.05),
            "babble": talkers,
        }
    )


def test_a_view_is_a_function_of_seed_utterance_draw_and_view_alone(pool: SourcePool) -> None:
    waves = {name: voice(150, 1.2, number) for number, name in enumerate("abc")}
    first = {name: make_views(TRAINING, wave, 7, name, pool) for name, wave in waves.items()}
    cold = SourcePool(pool.sources, cache_seconds=0)
    again = {name: make_views(TRAINING, waves[name], 7, name, cold) for name in reversed("abc")}
    for name in waves:
        np.testing.assert_array_equal(first[name], again[name])
    more = training_recipe(4, CROP, (0, 15), (5, 15), 0.5)
    np.testing.assert_array_equal(make_views(more, waves["a"], 7, "a", pool)[:3], first["a"])
    assert not np.array_equal(make_views(TRAINING, waves["a"], 8, "a", pool), first["a"])
    assert not np.array_equal(make_views(TRAINING, waves["a"], 7, "b", pool), first["a"])


def test_training_views_are_clean_noise_music_and_reverberation_of_one_crop(pool: SourcePool) -> None:
    wave = voice(150, 1.2, 0)
    draws = make_views(TRAINING, wave, 0, "u", pool)
    assert np.shape(draws) == (3, 4, CROP)
    starts = [next(s for s in range(len(wave)) if np.array_equal(wave[s : s + CROP], clean)) for clean, *_ in draws]
    assert len(set(starts)) == 3
    for clean, *noisy in draws:
        for view, (low, high) in zip(noisy[:2], ((0, 15), (5, 15)), strict=True):
            snr = 10 * np.log10(np.mean(clean**2) / np.mean((view - clean) ** 2))
            assert low - 0.1 <= snr <= high + 0.1


def test_an_evaluation_condition_corrupts_the_recording_once_and_crops_it_after(pool: SourcePool) -> None:
    wave = voice(150, 1.2, 0)
    whole = make_views(condition_recipe("reverb_noise5", 1, None), wave, 0, "u", pool)
    crops = make_views(condition_recipe("reverb_noise5", 3, CROP), wave, 0, "u", pool)
    assert [len(draw) for draw in crops] == [1, 1, 1]
    np.testing.assert_array_equal(crops[0][0], whole[0][0][:CROP])
    np.testing.assert_array_equal(crops[-1][0], whole[0][0][-CROP:])


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("clean", []),
        ("noise0", [("noise", 0)]),
        ("babble-5", [("babble", -5)]),
        ("reverb_music10", [("rooms", 0), ("music", 10)]),
    ],
)
def test_conditions_are_read_from_their_names(name: str, steps: list[tuple[str, float]]) -> None:
    assert [(step.kind, step.snr[0]) for step in condition_view(name).steps] == steps


@pytest.mark.parametrize("name", ["", "noise", "noise5dB", "echo", "clean_noise5", "noise5_"])
def test_any_other_name_is_an_error_that_says_what_there_is(name: str) -> None:
    with pytest.raises(ConfigError, match=r"unknown condition .*reverb_noise5"):
        condition_view(name)


def test_nobody_babbles_behind_their_own_speech(pool: SourcePool) -> None:
    view, wave = condition_view("babble0"), voice(150, 0.5, 0)
    only = SourcePool({"babble": [source for source in pool.sources["babble"] if source.speaker == "s0"]})
    with pytest.raises(CorpusError, match="talkers other than"):
        corrupt(wave, view, stream(0, "u", 0, "v"), only, speaker="s0")
    assert {source.speaker for group in pool.talkers("s1") for source in group} == {"s0", "s2", "s3"}
    unknown = SourcePool({"babble": [Source(Path("a.wav")), Source(Path("b.wav"))]})
    assert unknown.talkers(None, Path("a.wav")) == [[Source(Path("b.wav"))]]


def test_sources_that_a_recipe_needs_must_be_there(pool: SourcePool) -> None:
    with pytest.raises(CorpusError, match=r"list\.csv: no music, rooms files"):
        check_sources(TRAINING, {"noise": pool.sources["noise"], "babble": pool.sources["babble"]}, "list.csv")
    check_sources(condition_recipe("clean", 1, None), {}, "list.csv")


def test_a_broken_noise_file_is_named_and_no_fault_of_the_utterance(tmp_path: Path) -> None:
    bad = tmp_path / "noise.wav"
    bad.write_text("not audio")
    with pytest.raises(CorpusError, match=r"augmentation source .*noise\.wav"):
        corrupt(
            voice(150, 0.5, 0), condition_view("noise5"), stream(0, "u", 0, "v"), SourcePool({"noise": [Source(bad)]})
        )


def test_the_cache_is_bounded(pool: SourcePool) -> None:
    small = SourcePool(pool.sources, cache_seconds=2.5)
    for source in [*pool.sources["music"], *pool.sources["noise"], *pool.sources["babble"]]:
        np.testing.assert_array_equal(small.read(source), pool.read(source))
        assert small._held <= 2.5 * 16_000
