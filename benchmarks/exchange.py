"""Measure the time and memory of importing embeddings, against a bare copy of the bytes.

    python -m benchmarks.exchange [--rows 10000000] [--folder .] [--shuffled]

Writes a .npy of float32 vectors [rows, 192] with its ids, copies it in blocks, and imports it, in turn and in the same
run. Each is also timed until the data is on disk. The import runs in its own process, for its own peak memory. If the
disk is too small, fewer rows are used, and the time for ten million is extrapolated. With --shuffled, a noisy file in
another order is imported as well, against a copy of both files.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import click
import numpy as np

DIM, BLOCK = 192, 8192
MB, GB = 10**6, 10**9
FULL = 10_000_000
BOUND = (0.4, 250)
"""Maximum peak memory of an import: GB, and bytes per id on top."""

IMPORT = """
import resource, sys, time
from stages.cli import main
began = time.perf_counter()
try:
    main(sys.argv[1:])
finally:
    print(time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def make(path: Path, rows: int, order: np.ndarray) -> None:
    """Write `rows` vectors, with their ids in the given order."""
    header = {"descr": "<f4", "fortran_order": False, "shape": (rows, DIM)}
    block = np.random.default_rng(0).standard_normal((BLOCK, DIM), dtype=np.float32)
    with path.open("wb") as file, path.with_suffix(".ids").open("w") as ids:
        np.lib.format.write_array_header_1_0(file, header)  # type: ignore[arg-type]
        for start in range(0, rows, BLOCK):
            some = order[start : start + BLOCK]
            block[:, 0] = start
            block[: len(some)].tofile(file)
            ids.write("".join(f"id{row // 100:06d}/{row:08d}.wav\n" for row in some.tolist()))
        os.fsync(file.fileno())


def copy(source: Path, target: Path) -> None:
    with source.open("rb") as read, target.open("wb") as write:
        while block := read.read(4 * DIM * BLOCK):
            write.write(block)
        write.flush()


@click.command()
@click.option("--rows", default=FULL, show_default=True, help="Number of vectors.")
@click.option(
    "--folder", type=click.Path(path_type=Path), default=".", help="Working folder.  [default: current folder]"
)
@click.option("--shuffled", is_flag=True, help="Also import a noisy file in another order.")
def main(rows: int, folder: Path, shuffled: bool) -> None:
    """Measure the import of a .npy file."""
    files = 2 if shuffled else 1
    free = shutil.disk_usage(folder).free
    fits = int(0.8 * free / (4 * DIM * files * (4 if shuffled else 3)))  # file, copy, store; and a sorted copy
    if rows > fits:
        print(f"{free / GB:.0f} GB free: {fits:,} of {rows:,} rows")
        rows = fits
    size = 4 * DIM * rows * files
    with TemporaryDirectory(dir=folder) as name:
        work = Path(name)
        make(work / "a.npy", rows, np.arange(rows))
        arguments = ["import", "--clean", work / "a.npy", "--encoder", "x", "--out", work / "a.zarr"]
        if shuffled:
            make(work / "b.npy", rows, np.random.default_rng(1).permutation(rows))
            arguments += ["--noisy", f"noise={work / 'b.npy'}"]
        os.sync()
        began = perf_counter()
        for source in sorted(work.glob("?.npy")):
            copy(source, work / f"copy.{source.name}")
        written = perf_counter() - began
        os.sync()
        copied = perf_counter() - began
        for path in work.glob("copy.*"):
            path.unlink()
        os.sync()
        began = perf_counter()
        command = [sys.executable, "-c", IMPORT, *map(str, arguments)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        imported = perf_counter() - began
        os.sync()
        synced = perf_counter() - began
        peak = 1024 * int(done.stdout.split()[-1])
    print(f"{rows:,} rows x {DIM} float32, {files} file(s): {size / GB:.2f} GB\n")
    print("| | s | MB/s | until on disk, s | MB/s |\n|---|---|---|---|---|")
    for what, seconds, until in (("copy", written, copied), ("import", imported, synced)):
        rates = f"{seconds:.1f} | {size / MB / seconds:.0f} | {until:.1f} | {size / MB / until:.0f}"
        print(f"| {what} | {rates} |")
    print(f"\nimport / copy: {imported / written:.2f}, until on disk {synced / copied:.2f}")
    if rows < FULL:
        print(f"extrapolated to {FULL:,} rows: {synced * FULL / rows:.0f} s, a copy {copied * FULL / rows:.0f} s")
    bound = BOUND[0] * GB + BOUND[1] * rows
    print(f"peak memory {peak / GB:.2f} GB, bound {bound / GB:.2f} GB: {'kept' if peak <= bound else 'NOT KEPT'}")


if __name__ == "__main__":
    main()
