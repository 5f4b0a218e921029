"""Which numbers of a text were float32."""

import numpy as np
import pytest

from pipeline.store.formats.decimals import parse_decimals

BITS = np.random.default_rng(0).integers(0, 2**32, 20000, dtype=np.uint64).astype(np.uint32).view(np.float32)
SINGLES = BITS[np.isfinite(BITS) & (np.abs(BITS) > 1e-37)]  # those below have fewer digits


@pytest.mark.parametrize("form", [".3g", ".6g", ".7g", ".8g", ".9g", ".12g", ".17g", ".6e", ".8E", "r"])
def test_whatever_float32_is_written_as_is_float32(form: str) -> None:
    words = [str(value) if form == "r" else format(float(value), form) for value in SINGLES]
    found = parse_decimals(words)
    assert found.dtype == np.float32
    if form not in (".3g", ".6g", ".7g", ".8g", ".6e"):
        np.testing.assert_array_equal(found, SINGLES)


@pytest.mark.parametrize("form", [".9g", ".12g", ".17g", ".10e"])
def test_float64_of_more_digits_is_float64(form: str) -> None:
    values = np.random.default_rng(1).standard_normal(100)
    words = [format(value, form) for value in values]
    assert parse_decimals(words).dtype == np.float64


@pytest.mark.parametrize(
    "word", ["0", "-0.0", "1e-05", "inf", "-nan", "100000", "00.10", "+1.50", "0.1", "7119782000", "16777217"]
)
def test_numbers_of_few_digits_or_none(word: str) -> None:
    assert parse_decimals([word]).dtype == (np.float64 if word == "16777217" else np.float32)


def test_what_is_beyond_float32_is_float64_and_words_are_refused() -> None:
    assert parse_decimals(["1e300"]).dtype == np.float64
    with pytest.raises(ValueError, match="two"):
        parse_decimals(["1", "two"])
