"""Hints for ids that are nearly those of a store."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.utils.similar_ids import suggest_fix

NFC, NFD = (unicodedata.normalize(form, "josé/é1.wav") for form in ("NFC", "NFD"))


def test_no_hint_where_nothing_is_alike() -> None:
    assert suggest_fix(["id1/x.wav"], ["id11/x.wav", "id1/xx.wav", "1/x.wav2", "id1/x y.wav", "id1.x.wav"]) is None


@pytest.mark.parametrize(
    ("name", "held", "says"),
    [
        ("id1/x.wav", "wav/id1/x.wav", "the store's ids begin with 'wav/'"),
        ("id1/x.wav", "id1/x.flac", "the list has the extension '.wav', the store '.flac'"),
        (NFC, NFD, "they differ in Unicode normalisation (NFC, NFD)"),
        (NFD, NFC, "they differ in Unicode normalisation (NFC, NFD)"),
        ("ID1/X.wav", "id1/x.wav", "they differ in case"),
        ("id1\\x.wav", "id1/x.wav", "they differ in separators (\\ and /, _ and -)"),
        ("id_1/x-y.wav", "id-1/x_y.wav", "they differ in separators (\\ and /, _ and -)"),
        ("id1/x.wav", "id1/x.wav ", "they differ in blanks at an end"),
        ("id1/x.wav", "id1/x.wav\u00a0", "they differ in blanks at an end"),
        ("Id1-x", " id1_X", "they differ in blanks at an end and in separators (\\ and /, _ and -) and in case"),
        (
            "C:\\My_Data\\id1\\x.WAV",
            "id1/x.wav",
            "the list's ids begin with 'C:\\\\My_Data\\\\', and they differ in separators (\\ and /, _ and -)",
        ),
        (
            "id1/X.wav",
            "Wav/id1/x.flac",
            "the store's ids begin with 'Wav/', and the list has the extension '.wav', the store '.flac', and they"
            " differ in case",
        ),
    ],
)
def test_the_difference_is_named(name: str, held: str, says: str) -> None:
    assert suggest_fix([name], ["other", held]) == f"The store holds {held!r}: {says}. Make both ids match."


def test_an_id_that_is_spelt_alike_comes_first() -> None:
    assert str(suggest_fix(["q", "a/x.wav"], ["A/X.wav", "wav/a/x.wav"])).startswith("The store holds 'wav/a/x.wav'")
    assert (
        suggest_fix(["b", "a"], ["A"], "s.csv", "m.csv") == "m.csv holds 'A': they differ in case. Make both ids match."
    )


@given(st.text(min_size=1), st.text(min_size=1))
def test_any_hint_names_a_difference(name: str, other: str) -> None:
    hint = suggest_fix([name], [other])
    assert hint is None or name == other or "begin with" in hint or "differ in" in hint or "extension" in hint
