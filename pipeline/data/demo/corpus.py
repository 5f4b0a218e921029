"""The embedded demo corpus: synthetic voices, noise, music and rooms, generated without any download.

It proves that the pipeline works from audio to report. It is not evidence about real speech.
"""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import soundfile

from pipeline.data.demo import espeak, music, noise, rooms, voices
from pipeline.errors import CorpusError

NOISE_SECONDS = 6.0
MUSIC_SECONDS = 10.0
NOISE_FILES = {"train": 30, "test": 15}
MUSIC_FILES = {"train": 12, "test": 6}
ROOMS = {"train": 60, "test": 20}
UTTERANCES = 8
BABBLE_UTTERANCES = 6

# First seeds, one for each kind of sound in each split. Noise file i of a split has the first seed + i.
_NOISE_SEEDS = {"train": 1_000, "test": 2_000}
_MUSIC_SEEDS = {"train": 3_000, "test": 4_000}
_ROOM_SEEDS = {"train": 5, "test": 6}
_STYLES = {"train": noise.TRAIN, "test": noise.TEST}
_ROOM_RANGES = {"train": rooms.TRAIN_ROOMS, "test": rooms.TEST_ROOMS}
_NOISE_KINDS = {
    "stationary": noise.stationary_noise,
    "modulated": noise.modulated_noise,
    "machine": noise.machine_noise,
}

README = """\
Demo corpus of SEED, made by `seed fetch`
=============================================

Nothing here was recorded. The voices are synthetic, spoken by the program espeak-ng; the noise and the music are
computed from random numbers; the rooms are simulated by the image source method.

The corpus proves that the pipeline runs from audio to report and improves what it should improve. It is not speech of
real people, and no claim about real speech rests on it: numbers measured here say nothing about real recordings.

speech/train, speech/test   speakers to train on, and other speakers for the trials
speech/babble               talkers in the background of the test noise; they are in no trial
noise, music, rooms         training and test differ in kind, not only in random numbers

How it was made, and under which licence
  voices          espeak-ng (GPL-3.0-or-later), run as a separate program; the sentences are SEED's own (Apache-2.0)
  noise, music    SEED (Apache-2.0)
  rooms           pyroomacoustics (MIT)
All audio is mono at 16 kHz. The same versions of these programs make the same bytes again.
"""


def make_demo(
    folder: Path,
    progress: Callable[[int, int], None] | None = None,
    *,
    train_voices: int | None = None,
    test_voices: int | None = None,
    babble_voices: int | None = None,
    utterances: int = UTTERANCES,
    background: float = 1.0,
    processes: int = 2,
) -> None:
    """Write the demo corpus; the bytes are the same in every run and for every number of processes.

    The keyword arguments limit the numbers of voices, utterances and background files for a quick try. Each file has
    the same bytes as in the whole corpus.

    Args:
        folder: an existing empty folder.
        progress: called with (files written, files in all) after each file.
        train_voices: number of `voices.TRAIN` to use; all by default, as for the other voices.
        test_voices: number of `voices.TEST` to use.
        babble_voices: number of `voices.BABBLE` to use.
        utterances: utterances of each speaker, at most `len(voices.SENTENCES)`; babble voices have at most 6.
        background: share of noise, music and rooms to make, 0 to 1; at least three files of each.
        processes: number of espeak-ng processes at a time.

    Raises:
        CorpusError: the folder is absent or not empty, or espeak-ng or pyroomacoustics is not installed.
    """
    if not folder.is_dir():
        raise CorpusError(f"{folder} is not a folder: create it first.")
    if any(folder.iterdir()):
        raise CorpusError(f"{folder} is not empty: the demo corpus needs an empty folder.")
    # Check before anything is written, because a partly filled folder could not be used again.
    missing = [name for name in ("espeakng_loader", "pyroomacoustics") if find_spec(name) is None]
    if missing:
        raise CorpusError(
            f"the demo corpus needs {' and '.join(missing)}, which is not installed: pip install '.[demo]'"
            " (docs/install.md)"
        )
    jobs = [
        *_speech_jobs(folder / "speech" / "train", voices.TRAIN[:train_voices], utterances),
        *_speech_jobs(folder / "speech" / "test", voices.TEST[:test_voices], utterances),
        *_speech_jobs(folder / "speech" / "babble", voices.BABBLE[:babble_voices], min(utterances, BABBLE_UTTERANCES)),
    ]
    shares = {
        kind: {split: min(count, max(3, round(background * count))) for split, count in counts.items()}
        for kind, counts in (("noise", NOISE_FILES), ("music", MUSIC_FILES), ("rooms", ROOMS))
    }
    total = len(jobs) + sum(sum(counts.values()) for counts in shares.values()) + 1
    done = 0

    def wrote() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total)

    espeak.synthesise(jobs, processes, lambda _: wrote())
    for split in ("train", "test"):
        noises, tunes, responses = (folder / kind / split for kind in shares)
        for part in (noises, tunes, responses):
            part.mkdir(parents=True)
        for index in range(shares["noise"][split]):
            kind = list(_NOISE_KINDS)[index % len(_NOISE_KINDS)]
            wave = _NOISE_KINDS[kind](_NOISE_SEEDS[split] + index, NOISE_SECONDS, _STYLES[split])
            _write_flac(noises / f"{kind}{index:02d}.flac", wave, wrote)
        for index in range(shares["music"][split]):
            wave = music.make_music(_MUSIC_SEEDS[split] + index, MUSIC_SECONDS, _STYLES[split])
            _write_flac(tunes / f"music{index:02d}.flac", wave, wrote)
        rooms.write_rooms(responses, shares["rooms"][split], _ROOM_SEEDS[split], _ROOM_RANGES[split], wrote)
    (folder / "README.txt").write_text(README, encoding="utf-8", newline="\n")
    wrote()


def synthesise_speakers(folder: Path, speakers: tuple[voices.Voice, ...], utterances: int) -> list[list[Path]]:
    """Synthesise this number of utterances for each speaker, and return their files by speaker.

    Raises:
        CorpusError: espeak-ng is not installed.
    """
    if find_spec("espeakng_loader") is None:
        raise CorpusError("synthetic voices need espeakng_loader: pip install '.[demo]' (docs/install.md)")
    jobs = _speech_jobs(folder, speakers, utterances)
    espeak.synthesise(jobs)
    files = [Path(job.out) for job in jobs]
    return [files[start : start + utterances] for start in range(0, len(files), utterances)]


def _speech_jobs(folder: Path, speakers: tuple[voices.Voice, ...], utterances: int) -> list[espeak.SpeechJob]:
    """Return one job for each utterance, `folder/<voice>/<NN>.flac`, and make the folders."""
    for voice in speakers:
        (folder / voice.name).mkdir(parents=True, exist_ok=True)
    return [
        espeak.SpeechJob(
            voice=voice.espeak,
            rate=voice.rate,
            pitch=voice.pitch,
            range=voice.range,
            text=text,
            out=str(folder.resolve() / voice.name / f"{number:02d}.flac"),
        )
        for index, voice in enumerate(speakers)
        for number, text in enumerate(voices.choose_sentences(index, utterances))
    ]


def _write_flac(path: Path, wave: noise.Wave, wrote: Callable[[], None]) -> None:
    soundfile.write(path, wave, noise.SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    wrote()
