import re
from itertools import combinations

import pytest

from pipeline.data.demo.voices import BABBLE, SENTENCES, TEST, TRAIN, choose_sentences

EVERYONE = TRAIN + TEST + BABBLE


def test_counts() -> None:
    assert (len(TRAIN), len(TEST), len(BABBLE)) == (56, 24, 8)


def test_no_variant_stands_in_two_lists_or_twice_in_one() -> None:
    assert len({voice.variant for voice in EVERYONE}) == len(EVERYONE)


def test_near_twins_stand_in_one_list() -> None:
    def families(voices) -> set[str]:
        return {re.sub(r"\d+$", "", voice.variant) for voice in voices if not re.fullmatch(r"[fm]\d", voice.variant)}

    for one, other in combinations((TRAIN, TEST, BABBLE), 2):
        assert not families(one) & families(other)


def test_names_are_safe_in_paths_even_where_case_is_ignored() -> None:
    assert all(re.fullmatch(r"[A-Za-z0-9_-]+", voice.name) for voice in EVERYONE)
    assert len({voice.name.lower() for voice in EVERYONE}) == len(EVERYONE)


def test_settings_differ_and_are_in_range() -> None:
    assert len({(v.accent, v.pitch, v.range, v.rate) for v in EVERYONE}) == len(EVERYONE)
    assert all(0 <= v.pitch < 100 and 0 <= v.range < 100 and 130 <= v.rate <= 190 for v in EVERYONE)


@pytest.mark.parametrize("name", ["whisper", "whisperf", "croak", "Demonic", "UniRobot", "anikaRobot", "robosoft"])
def test_what_is_no_human_voice_is_left_out(name: str) -> None:
    assert not any(voice.variant.startswith(name) for voice in EVERYONE)


def test_sentences_are_plain_and_different() -> None:
    assert len(set(SENTENCES)) == len(SENTENCES) >= 40
    assert all(8 <= len(sentence.split()) <= 14 for sentence in SENTENCES)


def test_a_voice_never_says_a_sentence_twice() -> None:
    for index in range(len(TRAIN)):
        said = choose_sentences(index, 8)
        assert len(set(said)) == 8
        assert said == choose_sentences(index, 8)
        assert said[:4] == choose_sentences(index, 4)
