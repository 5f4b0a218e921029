import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from pipeline.encoders.architectures.resnet_wespeaker import WeSpeakerResNet34
from pipeline.encoders.encoder import Encoder
from pipeline.encoders.features import KaldiFbank
from tests.conftest import voice
from tests.encoders.oracles import randomised, signature
from tests.references import reference


@pytest.fixture(scope="module")
def network() -> WeSpeakerResNet34:
    network = WeSpeakerResNet34()
    randomised(network)
    return network


def waves(*seconds: float) -> Tensor:
    return torch.stack([torch.from_numpy(voice(100 + 30 * seed, length, seed)) for seed, length in enumerate(seconds)])


@pytest.mark.parametrize("dim", [256, 128])
def test_the_network_is_wespeakers(dim: int) -> None:
    theirs = reference("wespeaker.models.resnet").ResNet34(80, dim, pooling_func="TSTP", two_emb_layer=False)
    randomised(theirs)
    ours = WeSpeakerResNet34(dim).eval()
    ours.load_state_dict(theirs.state_dict())
    assert list(ours.state_dict()) == list(theirs.state_dict())
    inputs = torch.randn(2, 61, 80), torch.randn(3, 9, 80), ours.features(waves(2.015, 2.015))
    with torch.inference_mode():
        for features in inputs:
            _, expected = theirs(features)
            embeddings = ours.embed(features)
            torch.testing.assert_close(embeddings, expected, atol=1e-5, rtol=0)
            assert embeddings.std(dim=0).mean() > 1e-3  # far from the same for all inputs


def test_features_are_of_the_16_bit_range_in_a_hamming_window(network: WeSpeakerResNet34) -> None:
    batch = waves(1.0, 1.0)
    expected = KaldiFbank(window="hamming")(batch * 32_768)
    torch.testing.assert_close(network.features(batch), expected)


def test_names_shapes_and_size_are_the_published_ones(network: WeSpeakerResNet34) -> None:
    assert len(network.state_dict()) == 218
    assert signature(network) == "0a80832c0104347dfb7a651d450be91f998959fd63e7f9cce3a86eaa61d5841c"
    assert sum(parameter.numel() for parameter in network.parameters()) == 6_634_336


def test_nine_frames_are_enough(network: WeSpeakerResNet34) -> None:
    (wave,) = waves(1.0)
    with torch.inference_mode():
        assert network.features(wave[None, : network.min_samples]).shape == (1, 9, 80)
        assert torch.isfinite(network(wave[None, : network.min_samples])).all()
        with pytest.warns(UserWarning, match="degrees of freedom"):
            assert network(wave[None, : network.min_samples - 1]).isnan().all()


def test_a_batch_gives_what_each_wave_gives_alone(network: WeSpeakerResNet34) -> None:
    batch = waves(1.2, 1.2, 1.2)
    with torch.inference_mode():
        alone = torch.cat([network(wave[None]) for wave in batch])
        torch.testing.assert_close(network(batch), alone, atol=1e-5, rtol=0)


def test_half_precision_comes_near(network: WeSpeakerResNet34) -> None:
    (wave,) = waves(1.0)
    half = Encoder(network, "half", "resnet34_wespeaker", None, precision="bfloat16")([wave])
    full = Encoder(network, "full", "resnet34_wespeaker", None)([wave])
    assert 0.99 < cosine_similarity(half, full).item() < 1
