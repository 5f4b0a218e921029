"""A `seed` and a `dvc` that start in milliseconds: processes forked from one that has imported torch and DVC already.

Each is a process like any other, with its own working folder, environment and standard streams. Only the import is
shared. Run as a script, this file is the process to fork from.
"""

import atexit
import gc
import importlib
import marshal
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from pkgutil import walk_packages
from typing import NoReturn
from uuid import uuid4

OTHERS = (
    "altair",
    "dvc.cli",
    "dvc.commands.repro",
    "dvc.repo.reproduce",
    "dvc.repo.status",
    "onnxscript",
    "pyroomacoustics",
    "rich.progress",
    "rich.table",
    "ruamel.yaml",
    "scipy.signal",
    "torch._dynamo",
    "zarr",
)
"""Modules that commands import when they run."""
CLIENT = """#!{python} -IS
import marshal, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    content = marshal.dumps((sys.argv, os.getcwd(), dict(os.environ)))
    socket.send_fds(server, [len(content).to_bytes(8, "big")], [0, 1, 2])
    server.sendall(content)
    code = server.recv(4)
sys.exit(int.from_bytes(code, "big"))
"""


def made_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """Make a folder and let `make` fill it, unless another worker of the run has: wait for that one, then."""
    try:
        folder.mkdir()
    except FileExistsError:
        while not (folder / "done").exists():
            assert not (folder / "failed").exists(), f"{folder} could not be made"
            time.sleep(0.1)
        return folder
    try:
        make(folder)
    except BaseException:
        (folder / "failed").touch()
        raise
    (folder / "done").touch()
    return folder


@cache
def warm_seed() -> Path:
    """Start the process to fork from, once a run, and return the folder of executables that ask it for a fork.

    It ends when the run does.
    """
    run, parent = os.environ.get("PYTEST_XDIST_TESTRUNUID"), os.getppid()
    if run is None:  # one worker, this process
        run, parent = uuid4().hex, os.getpid()

    def make(folder: Path) -> None:
        python = sys.executable
        for name in ("dvc", "seed"):
            (folder / name).write_text(CLIENT.format(python=python, address=str(folder / "socket")))
            (folder / name).chmod(0o755)
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
        command, null = [python, "-P", __file__, str(folder), str(parent)], subprocess.DEVNULL
        server = subprocess.Popen(command, stdin=null, stdout=null, env=environment)
        while not (folder / "ready").exists():
            assert server.poll() is None, "the process to fork from did not start"
            time.sleep(0.1)

    return made_once(Path(tempfile.gettempdir()) / f"seed-{run}", make)


def serve(folder: Path, parent: int) -> None:
    """Fork a process for each client, until the process with the ID `parent` has ended."""
    import pipeline
    import stages
    from stages.cli import request_same_bits

    request_same_bits()
    ours = [name for path in (pipeline, stages) for _, name, _ in walk_packages(path.__path__, f"{path.__name__}.")]
    for name in (*ours, *OTHERS):
        if name not in ("pipeline.adapters", "pipeline.estimator"):  # no command needs them
            importlib.import_module(name)
    importlib.import_module("pipeline.report.plots").javascript()  # takes two seconds; forks find it in the cache
    gc.collect()
    gc.freeze()
    with socket.socket(socket.AF_UNIX) as listener, selectors.DefaultSelector() as selector:
        listener.bind(str(folder / "socket"))
        listener.listen()
        (folder / "ready").touch()
        run = os.pidfd_open(parent)
        clients: dict[int, tuple[socket.socket, int]] = {}
        for source in (run, listener):
            selector.register(source, selectors.EVENT_READ)
        while events := selector.select():
            for key, _ in events:
                if key.fileobj == run:
                    shutil.rmtree(folder)
                    return
                if key.fileobj is listener:
                    client = listener.accept()[0]
                    pid = fork_for(client)
                    clients[pid] = client, os.pidfd_open(pid)
                    for source in clients[pid]:
                        selector.register(source, selectors.EVENT_READ, pid)
                elif key.data in clients:
                    client, ended = clients.pop(key.data)
                    if key.fileobj is client:  # it is gone
                        with suppress(ProcessLookupError):  # it has no group of its own yet
                            os.killpg(key.data, signal.SIGKILL)
                        os.kill(key.data, signal.SIGKILL)
                    code = os.waitstatus_to_exitcode(os.waitpid(key.data, 0)[1])
                    with suppress(OSError):
                        client.sendall((code if code >= 0 else 128 - code).to_bytes(4, "big"))
                    for source in (client, ended):
                        selector.unregister(source)
                    client.close()
                    os.close(ended)


def fork_for(client: socket.socket) -> int:
    """Read a client's command and run it in a fork, whose process ID is returned."""
    size, streams, _, _ = socket.recv_fds(client, 8, 3)
    content = b""
    while part := client.recv(min(1 << 20, int.from_bytes(size, "big") - len(content))):
        content += part
    pid = os.fork()
    if pid == 0:
        try:
            command, folder, environment = marshal.loads(content)
        except (EOFError, ValueError, TypeError):  # the client was killed before it had sent its command
            os._exit(1)
        become(streams, command, folder, environment)
    for stream in streams:
        os.close(stream)
    return pid


def become(streams: list[int], command: list[str], folder: str, environment: dict[str, str]) -> NoReturn:
    """Run a command of `seed` or `dvc` in a folder, with an environment and standard streams."""
    os.setsid()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    os.closerange(3, 1000)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    places = environment.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:0] = [place for place in places if place and place not in sys.path]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = command
    main = importlib.import_module("dvc.cli" if Path(command[0]).name == "dvc" else "stages.cli").main

    code: object = 1
    try:
        code = main()
    except SystemExit as left:
        code = left.code
    except BaseException:
        traceback.print_exc()
    # To take all modules down, as an interpreter does in the end, would take longer than most commands.
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    os._exit(int(code or 0))  # type: ignore[call-overload]


if __name__ == "__main__":
    serve(Path(sys.argv[1]), int(sys.argv[2]))
