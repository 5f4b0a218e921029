from pathlib import Path

import numpy as np
import pytest
import scipy.signal
import torch
from torch import Tensor

from pipeline.encoders.architectures.blocks import weighted_statistics
from pipeline.encoders.architectures.resnet_se import ResNetSE34V2
from pipeline.encoders.encoder import Encoder
from pipeline.utils.checkpoint import drop_heads, find_tensors, load_state
from tests.encoders.mel import mel_filters
from tests.encoders.plain import (
    State,
    attention_scores,
    batch_norm,
    conv,
    layout,
    linear,
    log_mel,
    prepared,
    state_of,
    waves,
    weights_of,
    within,
)

BLOCKS = (3, 4, 6, 3)


@pytest.fixture(scope="module")
def network() -> ResNetSE34V2:
    return prepared(ResNetSE34V2())


def squeeze_and_excite(x: Tensor, state: State) -> Tensor:
    gate = linear(linear(x.mean(dim=(2, 3)), state, "fc.0").relu(), state, "fc.2").sigmoid()
    return x * gate[:, :, None, None]


def block(x: Tensor, state: State, stride: int) -> Tensor:
    y = batch_norm(conv(x, state, "conv1", stride=stride, padding=1).relu(), state, "bn1")
    y = batch_norm(conv(y, state, "conv2", padding=1), state, "bn2")
    y = squeeze_and_excite(y, within(state, "se."))
    if "downsample.0.weight" in state:
        x = batch_norm(conv(x, state, "downsample.0", stride=stride), state, "downsample.1")
    return (x + y).relu()


def pool(x: Tensor, scores: Tensor) -> Tensor:
    values, weights = x.numpy(), weights_of(scores.numpy())
    mean = (weights * values).sum(axis=2)
    deviation = np.sqrt(np.maximum((weights * values**2).sum(axis=2) - mean**2, 1e-4))
    return torch.from_numpy(np.concatenate([mean, deviation], axis=1))


def whole(features: Tensor, state: State) -> Tensor:
    x = batch_norm(conv(features[:, None].double(), state, "conv1", padding=1).relu(), state, "bn1")
    for stage, blocks in enumerate(BLOCKS, start=1):
        for index in range(blocks):
            x = block(x, within(state, f"layer{stage}.{index}."), stride=2 if stage > 1 and index == 0 else 1)
    x = x.reshape(len(x), 256 * 8, -1)
    return linear(pool(x, attention_scores(x, state)), state, "fc")


def test_tensors_are_those_of_the_published_network(network: ResNetSE34V2) -> None:
    assert len(network.state_dict()) == 295
    assert layout(network) == "51febff2d70184747fbf0c8ed4ac8d47028f4e16eb6e7a8a55fea799aac7b4f0"
    assert sum(parameter.numel() for parameter in network.parameters()) == 8_028_492


def test_front_end_buffers_are_those_that_checkpoints_hold(network: ResNetSE34V2) -> None:
    state = network.state_dict()
    assert state["torchfb.0.flipped_filter"].tolist() == [[[pytest.approx(-0.97), 1.0]]]
    window = scipy.signal.get_window("hamming", 400, fftbins=True)
    np.testing.assert_allclose(state["torchfb.1.spectrogram.window"].numpy(), window, atol=1e-6)
    filters = mel_filters(512, 64, 0, 8000, htk=True)
    np.testing.assert_allclose(state["torchfb.1.mel_scale.fb"].numpy(), filters.T, atol=1e-6)


@pytest.mark.parametrize("samples", [32_240, 1280, 4001])
def test_features_are_normalised_log_mels(network: ResNetSE34V2, samples: int) -> None:
    batch = waves(2, samples)
    features = network.features(batch).numpy()
    assert features.shape == (2, 64, 1 + samples // 160)
    for wave, ours in zip(batch.numpy(), features, strict=True):
        mel = log_mel(wave, 64, 0, 8000)
        centred = mel - mel.mean(axis=1, keepdims=True)
        np.testing.assert_allclose(ours, centred / np.sqrt(mel.var(axis=1, keepdims=True) + 1e-5), atol=1e-4)


@pytest.mark.parametrize(
    ("name", "channels", "stride"), [("layer1.0", 32, 1), ("layer2.0", 32, 2), ("layer4.2", 256, 1)]
)
def test_blocks_are_two_convolutions_a_gate_and_a_shortcut(
    network: ResNetSE34V2, name: str, channels: int, stride: int
) -> None:
    ours = network.get_submodule(name)
    x = torch.randn(2, channels, 9, 7)
    torch.testing.assert_close(ours(x).double(), block(x.double(), state_of(ours), stride), atol=1e-5, rtol=1e-5)


def test_the_gate_is_squeeze_and_excitation(network: ResNetSE34V2) -> None:
    gate = network.get_submodule("layer3.1.se")
    x = 3 + torch.randn(2, 128, 5, 6)
    expected = squeeze_and_excite(x.double(), state_of(gate))
    torch.testing.assert_close((x * gate(x)).double(), expected, atol=1e-5, rtol=1e-5)


def test_pooling_weighs_mean_and_deviation() -> None:
    x, scores = torch.randn(3, 7, 20), torch.randn(3, 7, 20)
    x[0, 0] = 5.0  # the floor
    mean, square, deviation = weighted_statistics(x, scores)
    expected = pool(x.double(), scores.double())
    torch.testing.assert_close(torch.cat([mean, deviation], dim=1).double(), expected, atol=1e-5, rtol=1e-5)
    assert deviation[0, 0] == pytest.approx(0.01)
    torch.testing.assert_close(square[1:].double(), (expected[1:, :7] ** 2 + expected[1:, 7:] ** 2), atol=1e-5, rtol=0)


@pytest.mark.parametrize("samples", [32_240, 1280])
def test_the_network_is_what_its_state_dict_says(network: ResNetSE34V2, samples: int) -> None:
    features = network.features(waves(2, samples))
    embeddings = network.embed(features)
    expected = whole(features, state_of(network))
    torch.testing.assert_close(embeddings.double(), expected, atol=1e-5, rtol=1e-5)


def test_a_batch_gives_what_each_wave_gives_alone(network: ResNetSE34V2) -> None:
    batch = waves(3, 16_000)
    alone = torch.cat([network(wave[None]) for wave in batch])
    torch.testing.assert_close(network(batch), alone, atol=1e-5, rtol=1e-5)


def test_the_shortest_wave_leaves_two_frames_and_a_finite_embedding(network: ResNetSE34V2) -> None:
    frames = []
    hook = network.get_submodule("layer4").register_forward_hook(lambda *call: frames.append(call[-1].shape[-1]))
    for samples in (network.min_samples, network.min_samples - 1):
        assert torch.isfinite(network(waves(1, samples))).all()
    hook.remove()
    assert frames == [2, 1]
    assert torch.isfinite(network(torch.zeros(1, network.min_samples))).all()


def test_half_precision_is_close(network: ResNetSE34V2) -> None:
    batch = list(waves(2, 6_000))
    exact = network(torch.stack(batch))
    half = Encoder(network, "half", "resnetse34v2", None, precision="bfloat16")(batch)
    assert half.dtype == torch.float32
    assert torch.cosine_similarity(half, exact).min() > 0.99


def test_checkpoints_of_clovaais_trainer_load(network: ResNetSE34V2) -> None:
    file = {f"__S__.{name}": tensor for name, tensor in network.state_dict().items()}
    file["__L__.fc.weight"] = torch.zeros(10, 512)
    other = ResNetSE34V2().eval()
    load_state(other, drop_heads(find_tensors(file, Path("x")), other), "x")
    batch = waves(1, 16_000)
    torch.testing.assert_close(other(batch), network(batch), atol=0, rtol=0)


def test_the_length_of_embeddings_is_open() -> None:
    small = ResNetSE34V2(dim=256).eval()
    assert (small.dim, small(waves(1, 2000)).shape) == (256, (1, 256))
