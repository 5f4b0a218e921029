"""Training followed in TensorBoard and DVCLive: train_loss, validation_loss, gradient_norm, learning_rate by epoch.

A folder holds one training, whole: what an earlier one left is removed, and a training that goes on tells all epochs.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from pipeline.errors import ConfigError, one_line
from pipeline.training.progress import Epoch

Logger = Callable[[Epoch], None]


@contextmanager
def loggers(names: Sequence[str], folder: Path) -> Iterator[list[Logger]]:
    """Yield functions that are told of every epoch in turn.

    Args:
        names: of `tensorboard` and `dvclive`.
        folder: each writes to a folder of its own name in it.

    Raises:
        ConfigError: a package is not installed.
    """
    with ExitStack() as stack:
        yield [stack.enter_context(LOGGERS[name](folder / name)) for name in dict.fromkeys(names)]


@contextmanager
def _tensorboard(folder: Path) -> Iterator[Logger]:
    try:
        from torch.utils.tensorboard.writer import SummaryWriter
    except ImportError:
        raise _missing("tensorboard") from None
    for old in folder.glob("events.out.tfevents.*"):
        old.unlink()
    writer = SummaryWriter(str(folder))

    def tell(epoch: Epoch) -> None:
        for name, value in epoch.values().items():
            writer.add_scalar(name, value, epoch.epoch)
        writer.flush()

    try:
        yield tell
    finally:
        writer.close()


@contextmanager
def _dvclive(folder: Path) -> Iterator[Logger]:
    try:
        from dvclive.live import Live
    except ImportError:
        raise _missing("dvclive") from None
    try:  # neither a commit, nor a dvc.yaml beside ours: DVC's own stages say what is tracked
        live = Live(str(folder), resume=False, save_dvc_exp=False, dvcyaml=None)
    except Exception as error:  # whatever it finds of Git and DVC in the working folder
        raise ConfigError(
            f"train.log: dvclive cannot begin ({one_line(error)}). Mend that (it wants a commit where there is a Git"
            " repository), or log without it."
        ) from error
    with live:

        def tell(epoch: Epoch) -> None:
            for name, value in epoch.values().items():
                live.log_metric(name, value)
            live.next_step()  # type: ignore[no-untyped-call]

        yield tell


LOGGERS: Mapping[str, Callable[[Path], AbstractContextManager[Logger]]] = {
    "tensorboard": _tensorboard,
    "dvclive": _dvclive,
}
"""By the names of `train.log`."""


def _missing(name: str) -> ConfigError:
    return ConfigError(f"train.log: {name} is not installed: pip install 'speaker-seed[{name}]', or log without it.")
