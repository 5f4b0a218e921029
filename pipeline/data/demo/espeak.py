"""Synthetic speech by espeak-ng, in a separate process.

espeak-ng is GPL-3. This module is the only code that uses it, and it runs as a separate program:
`python -m pipeline.data.demo.espeak` reads one JSON object per line from stdin,

    {"voice": "en-us+f3", "rate": 160, "pitch": 50, "range": 50, "text": "...", "out": "path.flac"}

writes one FLAC file per line, prints each finished path to stdout, and on an error exits with one line on stderr and
code 1. `synthesise` starts such processes and divides the work.

The library keeps state from one utterance to the next (flutter, echo, the random numbers of breath), so the same words
sound slightly different later in a process. Therefore every utterance is spoken by a new process: a fork of a worker
that has loaded the library with a fixed random seed but has not spoken yet. The bytes of an utterance then depend only
on its job, not on the order of jobs or the number of processes. On systems without fork, each job has its own worker.
"""

import contextlib
import ctypes
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from pipeline.errors import CorpusError, SeedError

SAMPLE_RATE = 16000
# Root mean square of every utterance. Variants differ by 20 dB in level, which is not a trait of a speaker.
LEVEL = 0.06

# Constants of speak_lib.h.
_AUDIO_OUTPUT_SYNCHRONOUS = 2
_INITIALIZE_DONT_EXIT = 0x8000
_RATE, _PITCH, _RANGE = 1, 3, 4
_POS_CHARACTER = 1
_CHARS_UTF8 = 1
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


@dataclass(frozen=True)
class SpeechJob:
    """One utterance to speak."""

    voice: str  # espeak-ng accent and variant, such as `en-us+f3`
    rate: int  # words per minute
    pitch: int  # 0 to 99; 50 is the default pitch of the variant
    range: int  # 0 to 99; 50 is the default pitch range of the variant
    text: str  # one English sentence
    out: str  # the FLAC file to write; its folder exists


def synthesise(jobs: Sequence[SpeechJob], processes: int = 2, progress: Callable[[int], None] | None = None) -> None:
    """Synthesise every job into its file, 16 kHz mono 16-bit FLAC; the bytes do not depend on `processes`.

    Existing files are overwritten. `progress` is called with the number of finished jobs after each job, never from two
    threads at once.

    Raises:
        CorpusError: a worker failed; the message is the worker's own line.
    """
    if not jobs:
        return
    # Without fork a worker can speak only once (see the module docstring), so each job is a batch.
    batches = [list(jobs[i::processes]) for i in range(processes)] if hasattr(os, "fork") else [[job] for job in jobs]
    lock = threading.Lock()
    done = 0

    def finished_one() -> None:
        nonlocal done
        with lock:
            done += 1
            if progress is not None:
                progress(done)

    with ThreadPoolExecutor(max_workers=processes) as pool:
        for outcome in [pool.submit(_run_worker, batch, finished_one) for batch in batches if batch]:
            outcome.result()


def _run_worker(jobs: Sequence[SpeechJob], finished_one: Callable[[], None]) -> None:
    """Start one worker process, feed it all jobs, and call `finished_one` for every file it reports."""
    root = str(Path(__file__).resolve().parents[3])
    # The worker forks, so it must have no threads, and no threaded BLAS.
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")])),
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
    }
    lines = "".join(json.dumps(asdict(job)) + "\n" for job in jobs)
    pipe = subprocess.PIPE
    command = [sys.executable, "-m", "pipeline.data.demo.espeak"]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=environment) as worker:
        assert worker.stdin is not None
        assert worker.stdout is not None
        assert worker.stderr is not None
        # A worker that exited early has closed its end; its line on stderr gives the reason.
        with contextlib.suppress(BrokenPipeError):
            worker.stdin.write(lines)
        with contextlib.suppress(BrokenPipeError):
            worker.stdin.close()
        for _ in worker.stdout:
            finished_one()
        errors = worker.stderr.read().strip().splitlines()
    if worker.returncode != 0:
        raise CorpusError(errors[-1] if errors else f"the espeak-ng process ended with code {worker.returncode}.")


class _Espeak:
    """The loaded library, initialised and ready to speak."""

    def __init__(self) -> None:
        try:
            import espeakng_loader
        except ImportError as error:
            raise CorpusError(
                "the demo's voices need espeak-ng, which is not installed: pip install '.[demo]' (docs/install.md)"
            ) from error
        library, data = espeakng_loader.get_library_path(), espeakng_loader.get_data_path()
        self.variants = {path.name for path in (Path(data) / "voices" / "!v").iterdir()}
        try:
            self._library = ctypes.CDLL(library)
        except OSError as error:
            raise CorpusError(
                f"cannot load the espeak-ng library {library} ({error}): reinstall with "
                "pip install --force-reinstall espeakng-loader"
            ) from error
        self._chunks: list[bytes] = []

        def receive(samples: Any, count: int, _events: Any) -> int:
            if samples and count > 0:
                self._chunks.append(ctypes.string_at(samples, 2 * count))
            return 0

        # An attribute, because ctypes would otherwise free a callback that the library still uses.
        self._receive = _CALLBACK(receive)
        self.rate = self._library.espeak_Initialize(_AUDIO_OUTPUT_SYNCHRONOUS, 0, data.encode(), _INITIALIZE_DONT_EXIT)
        if self.rate <= 0:
            raise CorpusError(f"espeak-ng finds no data in {data}: pip install --force-reinstall espeakng-loader")
        # The library seeds its breath noise from the clock.
        self._library.espeak_ng_SetRandSeed(ctypes.c_long(1))
        self._library.espeak_SetSynthCallback(self._receive)

    def speak(self, job: SpeechJob) -> bytes:
        """Return the samples [n] of one utterance, 16-bit at `self.rate` Hz, as bytes."""
        # Check the name here, because the library silently replaces an unknown variant by the plain accent.
        _, plus, variant = job.voice.partition("+")
        if (plus and variant not in self.variants) or self._library.espeak_SetVoiceByName(job.voice.encode()) != 0:
            raise CorpusError(f"espeak-ng has no voice '{job.voice}' (for {job.out}).")
        for parameter, value in ((_RATE, job.rate), (_PITCH, job.pitch), (_RANGE, job.range)):
            self._library.espeak_SetParameter(parameter, value, 0)
        text = job.text.encode() + b"\0"
        self._chunks.clear()
        size = ctypes.c_size_t(len(text))
        status = self._library.espeak_Synth(text, size, 0, _POS_CHARACTER, 0, _CHARS_UTF8, None, None)
        self._library.espeak_Synchronize()
        if status != 0 or not self._chunks:
            raise CorpusError(f"espeak-ng said nothing for '{job.text}' with voice '{job.voice}' (code {status}).")
        return b"".join(self._chunks)


def _write_flac(pcm: bytes, rate: int, out: str) -> None:
    """Trim the silence around speech, resample to 16 kHz, set the level, and write FLAC."""
    speech: NDArray[np.float64] = np.frombuffer(pcm, dtype="<i2").astype(np.float64) / 32768
    loud = np.flatnonzero(np.abs(speech) > 0.01 * np.abs(speech).max())
    margin = rate // 10
    speech = speech[max(0, loud[0] - margin) : loud[-1] + margin]
    speech = soxr.resample(speech, rate, SAMPLE_RATE, quality="VHQ")
    scale = min(LEVEL / np.sqrt(np.mean(speech**2)), 0.95 / np.abs(speech).max())
    try:
        soundfile.write(out, speech * scale, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    except (OSError, soundfile.LibsndfileError) as error:
        message = f"cannot write {out} ({error}): check that the folder exists and the disk has space."
        raise CorpusError(message) from error


def _speak_in_fork(espeak: _Espeak, job: SpeechJob) -> None:
    """Speak and write one job in a child process, so that this process never speaks."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            _write_flac(espeak.speak(job), espeak.rate, job.out)
            code = 0
        except SeedError as error:
            print(error, file=sys.stderr, flush=True)
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if status != 0:
        raise SystemExit(1)


def main() -> None:
    """Speak the jobs from stdin; on the first failure exit with one line on stderr and code 1."""
    # Read all of stdin first, so that output of this process cannot block a parent that still writes.
    try:
        jobs = [SpeechJob(**json.loads(line)) for line in sys.stdin]
    except (TypeError, ValueError) as error:
        sys.exit(f"a job is not a JSON object with voice, rate, pitch, range, text and out: {error}")
    try:
        espeak = _Espeak()
        for job in jobs:
            if len(jobs) == 1:
                _write_flac(espeak.speak(job), espeak.rate, job.out)
            else:
                _speak_in_fork(espeak, job)
            print(job.out, flush=True)
    except SeedError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
