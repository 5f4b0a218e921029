"""The synthetic speakers of the demo, and their sentences.

A voice is a variant of espeak-ng (formants and glottal wave) with an accent, a pitch, a pitch range and a rate. The
three lists in `voices.csv` share no variant, and near twins (`iven` to `iven4`, `f1` and `f4`, those that only alter
the Klatt synthesiser) are in one list, so that a test voice is a new voice. Pitches follow a golden-ratio sequence in
each list, so that similar neighbours get very different pitches.

The lists omit variants that do not sound like a person (robots, whispers, croaks, demons) and near copies of others.
"""

import csv
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Voice:
    """A synthetic speaker.

    Args:
        variant: file name in espeak-ng's `voices/!v`.
        accent: espeak-ng's name of an English accent.
        pitch: 0 to 99; 50 is the default of the variant (0 is 0.7 times, 90 is 1.5 times as high).
        range: pitch range, 0 to 99; 50 is the default of the variant.
        rate: words per minute.
    """

    variant: str
    accent: str
    pitch: int
    range: int
    rate: int

    @property
    def name(self) -> str:
        """The folder name of the voice, such as `f3_en-us`: safe in a path, unique among all voices."""
        return f"{self.variant.replace(' ', '-')}_{self.accent}"

    @property
    def espeak(self) -> str:
        """The name of the voice in espeak-ng, such as `en-us+f3`."""
        return f"{self.accent}+{self.variant}"


def _read_voices(name: str) -> tuple[Voice, ...]:
    with Path(__file__).with_name("voices.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["set"] == name]
    return tuple(
        Voice(row["variant"], row["accent"], int(row["pitch"]), int(row["range"]), int(row["rate"])) for row in rows
    )


TRAIN, TEST = _read_voices("train"), _read_voices("test")
"""Speakers to train on, and speakers of the trials."""
BABBLE = _read_voices("babble")
"""Background talkers of the test noise; they are in no trial."""
SENTENCES = tuple(Path(__file__).with_name("sentences.txt").read_text(encoding="utf-8").splitlines())


def choose_sentences(index: int, count: int) -> tuple[str, ...]:
    """Choose `count` different sentences for the voice at `index` of its list; neighbours share few.

    Args:
        index: position of the voice in its list.
        count: number of sentences, at most `len(SENTENCES)`.
    """
    # 11 and 7 share no factor with 48, so the starts cover all sentences, and no voice repeats one.
    return tuple(SENTENCES[(11 * index + 7 * turn) % len(SENTENCES)] for turn in range(count))
