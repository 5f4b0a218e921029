"""Measure the speed of the encoders, and of their reference implementations in other packages, in one run.

    python -m benchmarks.encoders [--encoder NAME ...] [--threads 1 --threads 2] [--no-onnx]

Speeds are audio seconds per second on the CPU, medians of interleaved runs: the front-end alone, the whole encoder, and
the reference with its own front-end (Kaldi filter banks by kaldi-native-fbank, mel spectrograms by librosa). The share
is the front-end's part of the whole. The ratio is ours to the reference's. Weights that cannot be downloaded are
random, which does not change the speed. References come from published wheels; the development extra has the rest,
except librosa (pip install librosa).
"""

import statistics
import sys
import types
from collections.abc import Callable, Mapping
from time import perf_counter

import click
import numpy as np
import torch
from torch import Tensor, nn

from pipeline.encoders.encoder import Encoder, Network
from pipeline.encoders.families import FAMILIES
from pipeline.encoders.registry import load_encoder
from tests.references import reference

SHAPES = {"8 x 2.015 s": (8, 32_240), "1 x 10 s": (1, 160_000)}
LIMITS = {"ge2e": 0.15}  # maximum share of the front-end in the time of an encoder; 0.05 for the others

Embed = Callable[[Tensor], object]


def kaldi_features(waves: Tensor, window: str = "povey", scale: float = 1.0) -> Tensor:
    """Return filter bank energies [B, T, 80] of kaldi-native-fbank, with their means removed."""
    import kaldi_native_fbank

    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.dither, options.frame_opts.window_type = 0, window
    options.mel_opts.num_bins, options.mel_opts.high_freq = 80, 0
    features = []
    for wave in waves.numpy():
        fbank = kaldi_native_fbank.OnlineFbank(options)
        fbank.accept_waveform(16_000, wave * np.float32(scale))
        fbank.input_finished()
        features.append(np.stack([fbank.get_frame(index) for index in range(fbank.num_frames_ready)]))
    energies = torch.from_numpy(np.stack(features))
    return energies - energies.mean(dim=1, keepdim=True)


def reference_ge2e() -> Embed:
    import librosa

    # Its audio module needs librosa and SciPy of 2019, and a voice activity detector.
    sys.modules["resemblyzer.audio"] = types.ModuleType("resemblyzer.audio")
    network = reference("resemblyzer.voice_encoder").VoiceEncoder("cpu", verbose=False)

    def embed(waves: Tensor) -> object:
        for wave in waves.numpy():
            _, slices = network.compute_partial_slices(len(wave), 1.3, 0.75)
            padded = np.pad(wave, (0, max(0, slices[-1].stop * 160 - len(wave))))
            mel = librosa.feature.melspectrogram(y=padded, sr=16_000, n_fft=400, hop_length=160, n_mels=40)
            network(torch.from_numpy(np.stack([mel.T[part] for part in slices]).astype(np.float32))).mean(dim=0)
        return None

    return embed


def reference_ecapa(module: str, features: Embed) -> Embed:
    network = reference(module).ECAPA_TDNN(80, lin_neurons=192, channels=[1024] * 4 + [3072]).eval()
    return lambda waves: network(features(waves))


def speechbrain_features() -> Embed:
    fbank = reference("speechbrain.lobes.features").Fbank(n_mels=80)
    normalise = reference("speechbrain.processing.features").InputNormalization(norm_type="sentence", std_norm=False)
    return lambda waves: normalise(fbank(waves), torch.ones(len(waves)))


def reference_wespeaker(network: nn.Module) -> Embed:
    network.eval()
    return lambda waves: network(kaldi_features(waves, "hamming", 32_768))


def reference_campplus() -> Embed:
    network = reference("speakerlab.models.campplus.DTDNN").CAMPPlus(embedding_size=192).eval()
    return lambda waves: network(kaldi_features(waves))


def reference_xvector() -> Embed:
    from transformers import WavLMConfig, WavLMForXVector

    network = WavLMForXVector(WavLMConfig(use_weighted_layer_sum=True)).eval()
    return lambda waves: network(waves).embeddings


REFERENCES: Mapping[str, tuple[str, Callable[[], Embed]]] = {
    "ge2e": ("resemblyzer", reference_ge2e),
    "campplus": ("speakerlab", reference_campplus),
    "campplus_wespeaker": (
        "wespeaker",
        lambda: reference_wespeaker(reference("wespeaker.models.campplus").CAMPPlus(80, 512, "TSTP")),
    ),
    "resnet34_wespeaker": (
        "wespeaker",
        lambda: reference_wespeaker(
            reference("wespeaker.models.resnet").ResNet34(80, 256, pooling_func="TSTP", two_emb_layer=False)
        ),
    ),
    "ecapa_speechbrain": (
        "speechbrain",
        lambda: reference_ecapa("speechbrain.lobes.models.ECAPA_TDNN", speechbrain_features()),
    ),
    "ecapa_3dspeaker": (
        "speakerlab",
        lambda: reference_ecapa("speakerlab.models.ecapa_tdnn.ECAPA_TDNN", kaldi_features),
    ),
    "wavlm_xvector": ("transformers", reference_xvector),
}


def network_of(name: str) -> Network:
    """Return a network with its published weights, or with random weights."""
    family = FAMILIES[name]
    if family.weights and not family.weights.startswith("hf://"):
        return load_encoder(name).network
    return Encoder(family.build({}), name, name, None).network


def onnx_of(name: str) -> Embed:
    """Return an encoder with our front-end and the network in ONNX Runtime."""
    import tempfile
    from pathlib import Path

    from pipeline.config.encoder import EncoderDefinition, KaldiFbankInput
    from pipeline.encoders.export import export_onnx

    path = Path(tempfile.mkdtemp()) / f"{name}.onnx"
    export_onnx(network_of(name), path)
    definition = EncoderDefinition(family="onnx", weights=str(path), front_end=KaldiFbankInput(kind="kaldi_fbank"))
    return load_encoder(name, definition).network


def measure(candidates: Mapping[str, Embed], waves: Tensor, repeats: int) -> dict[str, float]:
    """Return the audio seconds per second of each candidate. They run in turn, so that load affects all of them."""
    times: dict[str, list[float]] = {name: [] for name in candidates}
    with torch.inference_mode():
        for run in range(repeats + 1):
            for name, embed in candidates.items():
                started = perf_counter()
                embed(waves)
                if run:  # the first run is a warm-up
                    times[name].append(perf_counter() - started)
    seconds = waves.numel() / 16_000
    return {name: seconds / statistics.median(taken) for name, taken in times.items()}


@click.command()
@click.option("--encoder", "encoders", multiple=True, help="Family to measure; repeatable.  [default: all]")
@click.option(
    "--threads", multiple=True, type=int, default=(1, 2), show_default=True, help="Number of torch threads; repeatable."
)
@click.option(
    "--repeats", type=click.IntRange(min=1), default=7, show_default=True, help="Number of runs of each candidate."
)
@click.option("--onnx/--no-onnx", default=True, show_default=True, help="Also measure CAM++ in ONNX Runtime.")
def main(encoders: tuple[str, ...], threads: tuple[int, ...], repeats: int, onnx: bool) -> None:
    """Measure the speed of the encoders and of their references."""
    generator = torch.Generator().manual_seed(0)
    print("| encoder | threads | audio | front-end | whole | share | reference | | ratio |")
    print("|---|---:|---|---:|---:|---:|---|---:|---:|")
    for name in encoders or FAMILIES:
        for count in threads:
            torch.set_num_threads(count)
            network = network_of(name)
            candidates: dict[str, Embed] = {"front-end": network.features, "whole": network}
            package = REFERENCES[name][0] if name in REFERENCES else ""
            if package:
                candidates["reference"] = REFERENCES[name][1]()
            if onnx and name == "campplus":
                candidates["onnx"] = onnx_of(name)
            for label, shape in SHAPES.items():
                speed = measure(candidates, 0.1 * torch.randn(shape, generator=generator), repeats)
                share = speed["whole"] / speed["front-end"]
                mark = "" if share <= LIMITS.get(name, 0.05) else " (!)"
                cells = [f"{speed['front-end']:.0f}", f"{speed['whole']:.1f}", f"{100 * share:.1f} %{mark}", package]
                ratio = speed["whole"] / speed["reference"] if package else None
                cells += [f"{speed['reference']:.1f}", f"{ratio:.2f}"] if ratio else ["", ""]
                print(f"| {name} | {count} | {label} | " + " | ".join(cells) + " |", flush=True)
                if "onnx" in speed:
                    against = speed["onnx"] / speed["whole"]
                    print(
                        f"| {name}, ONNX Runtime | {count} | {label} | | {speed['onnx']:.1f} | | torch | "
                        f"{speed['whole']:.1f} | {against:.2f} |",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
