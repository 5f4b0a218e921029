"""`seed`: one command a stage. Commands are imported when they are called, so that `--help` is instant."""

import errno
import importlib
import keyword
import logging
import os
import platform
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

import click

GRACE = 3.0
"""Seconds that a command has to tidy up after Ctrl-C."""

_leaving = threading.Lock()

COMMANDS = {
    "plan": "Say what a run would take: utterances, trials, bytes, hours.",
    "corpus": "List the corpora, or check what of one is there.",
    "fetch": "Bring a corpus here: generate, download or link it.",
    "manifest": "List the utterances of a corpus, and what may be mixed into them.",
    "extract": "Encode clean and corrupted utterances into an embedding store.",
    "import": "Make a store of embeddings from elsewhere.",
    "augment": "Re-create a corrupted view of an utterance as a WAV.",
    "train": "Train SEED on a store of clean and noisy embeddings.",
    "convert": "Make a model of a network from the SEED paper's own code.",
    "sweep": "Compare trainings with other parameters on the same stores.",
    "enhance": "Enhance a store of embeddings with a trained model.",
    "trials": "Build a trial list out of others.",
    "score": "Score trials, and measure error rates.",
    "metrics": "Measure scores from elsewhere.",
    "compare": "Compare two systems by their scores of the same trials.",
    "report": "Put the error rates of all encoders into one table.",
    "analyze": "Find where enhancement stops to help, and why.",
    "store": "Check an embedding store.",
    "export": "Write a store's vectors to a file for other tools.",
    "export-model": "Write a trained model as an ONNX or TorchScript file.",
    "clean": "Remove what stopped extractions have left.",
    "encoder": "List the speaker encoders, or check one.",
}


class Stages(click.Group):
    """A group that imports a command's module only to run it or to print its own help."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order data flows through them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Import the command's module, which is named as its function is, and return the command."""
        if name not in COMMANDS:
            return None
        own = name.replace("-", "_") + ("_" if keyword.iskeyword(name) else "")
        command: click.Command = getattr(importlib.import_module(f"stages.{own}"), own)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=Stages, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="speaker-seed")
def seed() -> None:
    """Speaker Embedding Enhancement Diffusion.

    Encode speech once, clean and corrupted; then train, enhance, score and report on the stored vectors alone.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; what a user can mend is one line on stderr and exit code 1 (2 for usage)."""
    from pipeline.errors import SeedError

    ask_for_same_bits()
    # Where several of Zarr's writes fail at once, one is raised and asyncio would print the others as well.
    logging.getLogger("asyncio").disabled = True
    try:
        with _interruptible():
            seed.main(args=arguments, prog_name="seed", standalone_mode=False)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        with suppress(OSError):
            sys.stdout.flush()
        _leave()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader of our output has left
        sys.exit(1)
    except SeedError as error:
        click.echo(f"seed: error: {error}", err=True)
        sys.exit(1)
    except OSError as error:
        if error.errno is None:
            raise
        hint = (
            " Free some space and run the command again; finished work is kept." if error.errno == errno.ENOSPC else ""
        )
        where = f": {error.filename}" if error.filename else ""
        click.echo(f"seed: error: {error.strerror or error}{where}.{hint}", err=True)
        sys.exit(1)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let the first Ctrl-C unwind the command, and end the process where that takes longer than `GRACE`.

    It does while the main thread is in one long computation, or waits for others; and an interrupt that comes in a
    destructor is lost. So a thread watches as well, which hears of signals even if Python does not get to its handlers.
    """
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:  # we were started not to be interrupted
        yield
        return

    def unwind(number: int, frame: object) -> NoReturn:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second one would break off the tidying up
        sys.unraisablehook = lambda lost: None
        raise KeyboardInterrupt

    def watch() -> None:
        while heard := os.read(ear, 1):
            if heard[0] == signal.SIGINT:
                time.sleep(GRACE)
                _leave()
        os.close(ear)

    ear, mouth = os.pipe()
    os.set_blocking(mouth, False)
    signal.set_wakeup_fd(mouth, warn_on_full_buffer=False)
    signal.signal(signal.SIGINT, unwind)
    threading.Thread(target=watch, name="interrupts", daemon=True).start()
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is unwind:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.set_wakeup_fd(-1)
            os.close(mouth)


def _leave() -> NoReturn:
    """End the process at once: threads and worker processes would finish their shards first.

    Nothing is lost, whatever they are at: a shard counts when it is whole, and files get their names when they are.
    """
    _leaving.acquire()  # for good: whoever comes second says nothing
    os.write(
        2, b"seed: stopped. Run the same command again; an extraction goes on where it was, a training with --resume.\n"
    )
    if "multiprocessing" in sys.modules:
        for worker in sys.modules["multiprocessing"].active_children():
            worker.kill()
    os._exit(130)


def is_amd() -> bool:
    """Return whether this is a processor of AMD."""
    try:
        return "AuthenticAMD" in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "AMD" in platform.processor()


def ask_for_same_bits() -> None:
    """Ask MKL, which computes for torch, for the same bits in every run, unless MKL_CBWR asks for something already.

    MKL reads it once, when it is first called. On Intel's processors it gives them unasked, as far as has been seen,
    and asking costs speed; on AMD's it did not always.
    """
    if is_amd():
        os.environ.setdefault("MKL_CBWR", "AUTO")


if __name__ == "__main__":
    main()
