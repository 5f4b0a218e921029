"""Logs of losses, gradient norm and learning rate by epoch, for TensorBoard and DVCLive.

A folder holds one complete training: an earlier log is removed, and a resumed training logs all epochs.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from pipeline.errors import ConfigError, one_line
from pipeline.training.progress import Epoch

Logger = Callable[[Epoch], None]


@contextmanager
def open_loggers(names: Sequence[str], folder: Path) -> Iterator[list[Logger]]:
    """Yield functions that log an epoch to `tensorboard` or `dvclive`, each in the folder of its name in `folder`.

    Raise ConfigError if a package is not installed.
    """
    with ExitStack() as stack:
        yield [stack.enter_context(LOGGERS[name](folder / name)) for name in dict.fromkeys(names)]


@contextmanager
def _tensorboard(folder: Path) -> Iterator[Logger]:
    try:
        from torch.utils.tensorboard.writer import SummaryWriter
    except ImportError:
        raise _missing_package("tensorboard") from None
    for old in folder.glob("events.out.tfevents.*"):
        old.unlink()
    writer = SummaryWriter(str(folder))

    def log(epoch: Epoch) -> None:
        for name, value in epoch.values().items():
            writer.add_scalar(name, value, epoch.epoch)
        writer.flush()

    try:
        yield log
    finally:
        writer.close()


@contextmanager
def _dvclive(folder: Path) -> Iterator[Logger]:
    try:
        from dvclive.live import Live
    except ImportError:
        raise _missing_package("dvclive") from None
    try:  # without a commit or a dvc.yaml, because DVC's own stages track the outputs
        live = Live(str(folder), resume=False, save_dvc_exp=False, dvcyaml=None)
    except Exception as error:  # any trouble with Git or DVC in the working folder
        raise ConfigError(
            f"train.log: dvclive cannot start ({one_line(error)}). Fix that (a Git repository needs a commit), or log"
            " without it."
        ) from error
    with live:

        def log(epoch: Epoch) -> None:
            for name, value in epoch.values().items():
                live.log_metric(name, value)
            live.next_step()  # type: ignore[no-untyped-call]

        yield log


LOGGERS: Mapping[str, Callable[[Path], AbstractContextManager[Logger]]] = {
    "tensorboard": _tensorboard,
    "dvclive": _dvclive,
}
"""Loggers by the names of `train.log`."""


def _missing_package(name: str) -> ConfigError:
    return ConfigError(
        f"train.log: {name} is not installed: pip install '.[{name}]' (docs/install.md), or log without it."
    )
