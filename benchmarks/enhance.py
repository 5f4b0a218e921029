"""Measure the speed of enhancement against a bare forward pass of the same layers, in one run on one core.

    python -m benchmarks.enhance [--dim 192 --dim 256] [--repeats 41]

Candidates, for the default network and the paper's: a plain module with the same weights, written for this one model;
`SeedModel`; `enhance_vectors`, from NumPy to NumPy, which enhances stores; `Enhancer`, with its guards; and ONNX
Runtime on the exported file. All of them precondition and scale raw vectors, take one noise-free step from t = 50, and
interpolate. Times are CPU times, which other processes disturb less than wall time. Vectors per second are for batches
of 1,024. The ratios compare the time of the bare pass with theirs: medians over repeats, in which all candidates take
turns. The limits, yes or NO, are 0.95 of the bare pass for `enhance_vectors` and `Enhancer`, and a millisecond for one
vector with `Enhancer`, which depends on the memory traffic of other processes. Pin the process to one core, for example
with `taskset`.
"""

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")  # before NumPy is imported

import statistics  # noqa: E402
import tempfile  # noqa: E402
from collections.abc import Callable, Mapping  # noqa: E402
from pathlib import Path  # noqa: E402
from time import process_time  # noqa: E402

import click  # noqa: E402
import numpy as np  # noqa: E402
import onnxruntime  # noqa: E402
import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.nn.functional import normalize  # noqa: E402

from pipeline.config.train import NetworkSettings, Train  # noqa: E402
from pipeline.model.apply import enhance_vectors  # noqa: E402
from pipeline.model.diffusion.sampler import Sampling  # noqa: E402
from pipeline.model.enhancer import Enhancer  # noqa: E402
from pipeline.model.export import export_model  # noqa: E402
from pipeline.model.model_file import load_model, save_model  # noqa: E402
from pipeline.model.seed_model import SeedModel  # noqa: E402

BATCH, CALLS = 1024, 20
TIMESTEP, STRENGTH = 50, 0.6
NETWORKS = {
    "default": NetworkSettings(),
    "paper": NetworkSettings(predict="sample", precondition="none", blocks=3, width=2),
}

Enhance = Callable[[np.ndarray], np.ndarray]


class Bare(nn.Module):
    """The same computation without settings: one layer after another."""

    def __init__(self, model: SeedModel) -> None:
        super().__init__()
        network, self.dim = model.network, model.dim
        self.mean, self.matrix = model.mean, model.matrix
        half = network.time_channels // 2
        angles = TIMESTEP * 10_000 ** (-torch.arange(half) / half)
        self.time = torch.cat([angles.cos(), angles.sin()])[None]
        self.time_embed, self.first, self.out = network.time_embed, network.input_proj, network.out
        self.inner = nn.ModuleList(block.in_layers for block in network.res_blocks)
        self.embed_time = nn.ModuleList(block.emb_layers for block in network.res_blocks)
        self.outer = nn.ModuleList(block.out_layers for block in network.res_blocks)
        self.shrink, self.added = float(model.abar[TIMESTEP].sqrt()), network.predict == "correction"

    def forward(self, raw: Tensor) -> Tensor:
        x = self.shrink * self.dim**0.5 * normalize((raw - self.mean) @ self.matrix.T, dim=1)
        h, time = self.first(x), self.time_embed(self.time)
        for inner, embed_time, outer in zip(self.inner, self.embed_time, self.outer, strict=True):
            h = h + outer(inner(h) + embed_time(time))
        y = x + self.out(h) if self.added else self.out(h)
        length = raw.norm(dim=1, keepdim=True)
        a, b = raw / length, y / y.norm(dim=1, keepdim=True)
        angle = (a * b).sum(dim=1, keepdim=True).clamp(-1, 1).acos()
        mixed = ((1 - STRENGTH) * angle).sin() * a + (STRENGTH * angle).sin() * b
        return length / angle.sin() * mixed


def model_of(dim: int, network: NetworkSettings, path: Path) -> SeedModel:
    """Write a model with random weights, and read it back."""
    model = SeedModel(dim, Train(network=network))
    with torch.no_grad():
        for parameter in model.network.parameters():
            nn.init.normal_(parameter, std=dim**-0.5)
        if network.precondition != "none":
            model.mean.normal_()
            model.matrix.copy_(torch.eye(dim) + 0.3 * torch.randn(dim, dim) * dim**-0.5)
        model.strength.fill_(STRENGTH)
    save_model(path, model, {"encoder": "random", "dim": dim}, {})
    return load_model(path).model


def candidates(dim: int, network: NetworkSettings, folder: Path) -> dict[str, Enhance]:
    """Return the candidates for enhancing vectors [B, D] with the same model."""
    model, how = model_of(dim, network, folder / "m.safetensors"), Sampling(TIMESTEP, strength=STRENGTH)
    bare, enhancer = Bare(model).eval(), Enhancer(model, timestep=TIMESTEP)
    export_model(folder / "m.safetensors", folder / "m.onnx", None, how)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(folder / "m.onnx", options, providers=["CPUExecutionProvider"])
    return {
        "bare torch": lambda raw: bare(torch.from_numpy(raw)).numpy(),
        "`SeedModel`": lambda raw: model(torch.from_numpy(raw), how).numpy(),
        "`enhance_vectors`": lambda raw: enhance_vectors(model, raw, how),
        "`Enhancer`": lambda raw: enhancer.enhance(raw, STRENGTH),
        "ONNX Runtime": lambda raw: session.run(None, {"embeddings": raw})[0],
    }


def seconds(work: Callable[[], object], calls: int) -> float:
    started = process_time()
    for _ in range(calls):
        work()
    return (process_time() - started) / calls


@torch.inference_mode()
def measure(ways: Mapping[str, Enhance], raw: np.ndarray, calls: int, repeats: int) -> dict[str, list[float]]:
    """Return the seconds per call of each candidate in every repeat, without the first one, a warm-up."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats + 1):
        for name, way in ways.items():
            times[name].append(seconds(lambda way=way: way(raw), calls))
    return {name: taken[1:] for name, taken in times.items()}


def compared(bare: list[float], ours: list[float]) -> float:
    return statistics.median(one / other for one, other in zip(bare, ours, strict=True))


@click.command()
@click.option("--dim", "dims", type=int, multiple=True, default=(192, 256), show_default=True)
@click.option("--repeats", type=click.IntRange(min=1), default=41, show_default=True)
def main(dims: tuple[int, ...], repeats: int) -> None:
    """Measure enhancement, and print a Markdown table."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rng, found = np.random.default_rng(0), list[tuple[float, float, str]]()
    print("| network | D | | vectors/s | to the bare pass | one vector, µs | to the bare pass |")
    print("|---|---:|---|---:|---:|---:|---:|")
    for name, network in NETWORKS.items():
        for dim in dims:
            raw = rng.standard_normal((BATCH, dim), dtype=np.float32)
            with tempfile.TemporaryDirectory() as folder:
                ways = candidates(dim, network, Path(folder))
            with torch.inference_mode():
                expected = ways["bare torch"](raw)
                for way in ways.values():
                    np.testing.assert_allclose(way(raw), expected, atol=1e-5 * np.abs(expected).max(), rtol=0)
            many, one = measure(ways, raw, 1, repeats), measure(ways, raw[:1], CALLS, repeats)
            for way, taken in many.items():
                ratio, lonely = (compared(times["bare torch"], times[way]) for times in (many, one))
                alone = 1e6 * statistics.median(one[way])
                rate = BATCH / statistics.median(taken)
                print(
                    f"| {name} | {dim} | {way} | {rate:,.0f} | {ratio:.2f} | {alone:,.0f} | {lonely:.2f} |", flush=True
                )
                if way != "bare torch":
                    found.append((ratio, alone, f"{way}, {name} network, D = {dim}"))
    least = min(row for row in found if row[2].startswith(("`enhance_vectors`", "`Enhancer`")))
    most = max((row for row in found if row[2].startswith("`Enhancer`")), key=lambda row: row[1])
    print(f"\nat least 0.95 of the bare pass: {'yes' if least[0] >= 0.95 else 'NO'}, {least[0]:.2f} ({least[2]})")
    print(f"one vector under 1 ms: {'yes' if most[1] < 1000 else 'NO'}, {most[1]:,.0f} µs ({most[2]})")


if __name__ == "__main__":
    main()
