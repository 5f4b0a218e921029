"""`seed`: one command per stage. Commands are imported when they are called, so that `--help` is instant."""

import importlib
import keyword
import logging
import os
import platform
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

import click

GRACE = 3.0
"""Seconds that a command has to clean up after Ctrl-C."""

_exiting = threading.Lock()

COMMANDS = {
    "plan": "Estimate what a run takes: utterances, trials, bytes, hours.",
    "corpus": "List the corpora, or check which files of one are present.",
    "fetch": "Fetch a corpus: generate, download or link it.",
    "manifest": "List the utterances of a corpus, and the noise to mix into them.",
    "extract": "Encode clean and corrupted utterances into an embedding store.",
    "import": "Import embeddings from other tools into a store.",
    "augment": "Re-create a corrupted view of an utterance as a WAV file.",
    "train": "Train SEED on a store of clean and noisy embeddings.",
    "try": "Try a model on recordings without labels, and print a verdict.",
    "adapt": "Adapt a model to other speech, with unlabelled embeddings of it.",
    "convert": "Convert a network trained with the SEED paper's code.",
    "sweep": "Compare trainings with different parameters on the same stores.",
    "enhance": "Enhance a store of embeddings with a trained model.",
    "trials": "Build a trial list from other lists.",
    "score": "Score trials and measure error rates.",
    "metrics": "Measure the error rates of a score file.",
    "compare": "Compare two systems by their scores on the same trials.",
    "report": "Collect the error rates of all encoders in one report.",
    "analyze": "Find where enhancement stops helping, and why.",
    "store": "Check an embedding store.",
    "export": "Export the vectors of a store to a file for other tools.",
    "export-model": "Export a trained model as ONNX or TorchScript.",
    "clean": "Remove what interrupted extractions and trainings left behind.",
    "encoder": "List the speaker encoders, or check one.",
}


class Stages(click.Group):
    """A group that imports the module of a command only to run the command or print its help."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order in which data flows through them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Import the module of a command, which has the name of its function, and return the command."""
        if name not in COMMANDS:
            return None
        function = name.replace("-", "_") + ("_" if keyword.iskeyword(name) else "")
        command: click.Command = getattr(importlib.import_module(f"stages.{function}"), function)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=Stages, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(package_name="speaker-seed")
def seed() -> None:
    """Speaker Embedding Enhancement Diffusion.

    Encode speech once, clean and corrupted. Then train, enhance, score and report on the stored vectors alone.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command. An error that the user can fix is one line on stderr, with exit code 1 (2 for wrong usage)."""
    from pipeline.errors import SeedError
    from pipeline.utils.shortage import describe_shortage, find_shortage

    request_same_bits()
    # If several writes of Zarr fail at once, one is raised, and asyncio would print the others.
    logging.getLogger("asyncio").disabled = True
    try:
        with _interruptible(), _plain_warnings():
            seed.main(args=arguments, prog_name="seed", standalone_mode=False)
    except click.exceptions.Exit as exit_request:
        sys.exit(exit_request.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        with suppress(OSError):
            sys.stdout.flush()
        _exit_now()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader of our output is gone
        sys.exit(1)
    except SeedError as error:
        click.echo(f"seed: error: {error}", err=True)
        sys.exit(1)
    except Exception as error:
        code = find_shortage(error)
        if isinstance(error, OSError) and error.errno is not None:
            where = f": {error.filename}" if error.filename else ""
            remedy = f" {describe_shortage(code).partition('. ')[2]}" if code is not None else ""
            click.echo(f"seed: error: {error.strerror or error}{where}.{remedy}", err=True)
        elif code is not None:
            click.echo(f"seed: error: {describe_shortage(code)}", err=True)
        else:
            raise
        sys.exit(1)


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Print each `SeedWarning` on a line of stderr, without the place in the code."""
    from pipeline.errors import SeedWarning

    usual = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
        if issubclass(category, SeedWarning):
            click.echo(f"seed: warning: {message}", err=True)
        else:
            usual(message, category, *place, **more)

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = usual


@contextmanager
def _interruptible() -> Iterator[None]:
    """Unwind the command at the first Ctrl-C, and end the process if that takes longer than `GRACE`.

    Python runs its signal handlers late if the main thread is in a long computation or waits for other threads, and an
    interrupt within a destructor is lost. So a thread also watches for signals, which it receives in any case.
    """
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:  # our parent process ignores Ctrl-C
        yield
        return

    def unwind(number: int, frame: object) -> NoReturn:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second one would stop the clean-up
        sys.unraisablehook = lambda error: None
        raise KeyboardInterrupt

    def watch() -> None:
        while received := os.read(read_end, 1):
            if received[0] == signal.SIGINT:
                time.sleep(GRACE)
                _exit_now()
        os.close(read_end)

    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    signal.signal(signal.SIGINT, unwind)
    threading.Thread(target=watch, name="interrupts", daemon=True).start()
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is unwind:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.set_wakeup_fd(-1)
            os.close(write_end)


def _exit_now() -> NoReturn:
    """End the process at once. Threads and worker processes would finish their shards first.

    No work is lost: a shard counts only when it is complete, and a file gets its name only when it is complete.
    """
    _exiting.acquire()  # never released, so that a second call prints nothing
    os.write(
        2, b"seed: stopped. Run the same command again: extractions resume by themselves, trainings with --resume.\n"
    )
    if "multiprocessing" in sys.modules:
        for worker in sys.modules["multiprocessing"].active_children():
            worker.kill()
    os._exit(130)


def is_amd() -> bool:
    """Return whether this is an AMD processor."""
    try:
        return "AuthenticAMD" in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "AMD" in platform.processor()


def request_same_bits() -> None:
    """Make MKL, which computes for torch, return the same bits in every run, unless MKL_CBWR is already set.

    MKL reads the variable at its first call. Intel processors have given the same bits without it, and it costs speed
    there; AMD processors have not always.
    """
    if is_amd():
        os.environ.setdefault("MKL_CBWR", "AUTO")


if __name__ == "__main__":
    main()
