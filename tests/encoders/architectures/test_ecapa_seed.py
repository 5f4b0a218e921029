import numpy as np
import pytest
import scipy.fft
import scipy.signal
import torch
from torch import Tensor

from pipeline.encoders.architectures.ecapa_seed import SeedEcapa
from pipeline.encoders.encoder import Encoder
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


@pytest.fixture(scope="module")
def network() -> SeedEcapa:
    return prepared(SeedEcapa())


def squeeze_and_excite(x: Tensor, state: State) -> Tensor:
    hidden = batch_norm(conv(x.mean(dim=2, keepdim=True), state, "se.1").relu(), state, "se.3")
    return x * conv(hidden, state, "se.4").sigmoid()


def block(x: Tensor, state: State, dilation: int) -> Tensor:
    y = batch_norm(conv(x, state, "conv1").relu(), state, "bn1")
    width = y.shape[1] // 8
    outputs = []
    for index in range(7):
        piece = y[:, index * width : (index + 1) * width]
        if index:
            piece = piece + outputs[-1]
        piece = conv(piece, state, f"convs.{index}", padding=dilation, dilation=dilation)
        outputs.append(batch_norm(piece.relu(), state, f"bns.{index}"))
    outputs.append(y[:, 7 * width :])
    y = batch_norm(conv(torch.cat(outputs, dim=1), state, "conv3").relu(), state, "bn3")
    return x + squeeze_and_excite(y, within(state, "se."))


def scores(x: Tensor, state: State) -> Tensor:
    mean = x.mean(dim=2, keepdim=True)
    variance = ((x - mean) ** 2).sum(dim=2, keepdim=True) / (x.shape[2] - 1)
    deviation = variance.clamp(min=1e-4).sqrt()
    return attention_scores(torch.cat([x, mean.expand_as(x), deviation.expand_as(x)], dim=1), state)


def pool(x: Tensor, weighing: Tensor) -> Tensor:
    """Return the root mean square, not the mean, beside the deviation about the mean."""
    values, weights = x.numpy(), weights_of(weighing.numpy())
    mean, square = (weights * values).sum(axis=2), (weights * values**2).sum(axis=2)
    parts = [np.sqrt(np.maximum(square, 1e-4)), np.sqrt(np.maximum(square - mean**2, 1e-4))]
    return torch.from_numpy(np.concatenate(parts, axis=1))


def whole(features: Tensor, state: State) -> Tensor:
    x = batch_norm(conv(features.double(), state, "conv1", padding=2).relu(), state, "bn1")
    x1 = block(x, within(state, "layer1."), dilation=2)
    x2 = block(x + x1, within(state, "layer2."), dilation=3)
    x3 = block(x + x1 + x2, within(state, "layer3."), dilation=4)
    x = conv(torch.cat([x1, x2, x3], dim=1), state, "layer4").relu()
    pooled = batch_norm(pool(x, scores(x, state)), state, "bn5")
    return linear(pooled, state, "fc6")  # bn6 is in checkpoints, yet not in the path


def test_tensors_are_those_of_the_published_network(network: SeedEcapa) -> None:
    assert len(network.state_dict()) == 250
    assert layout(network) == "94549c8edc97d071a89f7db95dc388b501fab66a7f10e16b9c229ad00aa89d90"
    assert sum(parameter.numel() for parameter in network.parameters()) == 14_855_296


def test_front_end_buffers_are_those_that_checkpoints_hold(network: SeedEcapa) -> None:
    state = network.state_dict()
    assert state["torchmfcc.0.flipped_filter"].tolist() == [[[pytest.approx(-0.97), 1.0]]]
    window = scipy.signal.get_window("hamming", 400, fftbins=True)
    np.testing.assert_allclose(state["torchmfcc.1.MelSpectrogram.spectrogram.window"].numpy(), window, atol=1e-6)
    filters = mel_filters(512, 80, 20, 7600, htk=True)
    np.testing.assert_allclose(state["torchmfcc.1.MelSpectrogram.mel_scale.fb"].numpy(), filters.T, atol=1e-6)
    cosines = scipy.fft.dct(np.eye(80), type=2, norm="ortho", axis=1)
    np.testing.assert_allclose(state["torchmfcc.1.dct_mat"].numpy(), cosines, atol=1e-7)


@pytest.mark.filterwarnings("ignore:n_fft=512 is too large")
@pytest.mark.parametrize("samples", [32_240, 257, 4001])
def test_features_are_centred_mfccs(network: SeedEcapa, samples: int) -> None:
    batch = waves(2, samples)
    features = network.features(batch).numpy()
    assert features.shape == (2, 80, 1 + samples // 160)
    for wave, ours in zip(batch.numpy(), features, strict=True):
        mfcc = scipy.fft.dct(log_mel(wave, 80, 20, 7600), type=2, norm="ortho", axis=0) + 1e-6
        np.testing.assert_allclose(ours, mfcc - mfcc.mean(axis=1, keepdims=True), atol=1e-4)


@pytest.mark.parametrize(("name", "dilation"), [("layer1", 2), ("layer2", 3), ("layer3", 4)])
def test_blocks_are_se_res2(network: SeedEcapa, name: str, dilation: int) -> None:
    ours = network.get_submodule(name)
    x = torch.randn(2, 1024, 30)
    torch.testing.assert_close(ours(x).double(), block(x.double(), state_of(ours), dilation), atol=1e-5, rtol=1e-5)


def test_the_gate_is_squeeze_and_excitation(network: SeedEcapa) -> None:
    gate = network.get_submodule("layer1.se")
    x = 3 + torch.randn(2, 1024, 12)
    expected = squeeze_and_excite(x.double(), state_of(gate))
    torch.testing.assert_close((x * gate(x)).double(), expected, atol=1e-5, rtol=1e-5)


def test_pooling_takes_the_root_mean_square_and_the_deviation(network: SeedEcapa) -> None:
    seen: dict[str, Tensor] = {}
    hooks = [
        network.layer4.register_forward_hook(lambda *call: seen.update(x=call[-1])),
        network.bn5.register_forward_pre_hook(lambda module, inputs: seen.update(pooled=inputs[0])),
    ]
    network(waves(2, 8000))
    for hook in hooks:
        hook.remove()
    x = seen["x"].double().relu()
    expected = pool(x, scores(x, state_of(network)))
    torch.testing.assert_close(seen["pooled"].double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("samples", [32_240, 257])
def test_the_network_is_what_its_state_dict_says(network: SeedEcapa, samples: int) -> None:
    features = network.features(waves(2, samples))
    expected = whole(features, state_of(network))
    torch.testing.assert_close(network.embed(features).double(), expected, atol=1e-5, rtol=1e-5)


def test_a_batch_gives_what_each_wave_gives_alone(network: SeedEcapa) -> None:
    batch = waves(3, 16_000)
    alone = torch.cat([network(wave[None]) for wave in batch])
    torch.testing.assert_close(network(batch), alone, atol=1e-5, rtol=1e-5)


def test_the_shortest_wave_gives_a_finite_embedding_and_none_shorter_does(network: SeedEcapa) -> None:
    for wave in (waves(1, network.min_samples), torch.zeros(1, network.min_samples)):
        assert network.features(wave).shape == (1, 80, 2)
        assert torch.isfinite(network(wave)).all()
    with pytest.raises(RuntimeError, match="adding"):
        network(waves(1, network.min_samples - 1))


def test_half_precision_is_close(network: SeedEcapa) -> None:
    batch = list(waves(2, 6_000))
    exact = network(torch.stack(batch))
    half = Encoder(network, "half", "ecapa_seed", None, precision="bfloat16")(batch)
    assert half.dtype == torch.float32
    assert torch.cosine_similarity(half, exact).min() > 0.99


def test_lengths_of_embeddings_and_widths_of_blocks_are_open() -> None:
    small = SeedEcapa(dim=192, channels=512).eval()
    assert (small.dim, small(waves(1, 2000)).shape) == (192, (1, 192))
    assert small.layer1.conv1.weight.shape == (512, 512, 1)
