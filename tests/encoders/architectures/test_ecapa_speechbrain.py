import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from pipeline.encoders.architectures.ecapa_speechbrain import SpeechBrainEcapa, SpeechBrainFbank
from pipeline.encoders.encoder import Encoder
from pipeline.encoders.features import KaldiFbank
from tests.conftest import voice
from tests.encoders.oracles import randomised, signature
from tests.references import reference

REFERENCES = ("speechbrain.lobes.models.ECAPA_TDNN", "speakerlab.models.ecapa_tdnn.ECAPA_TDNN")


@pytest.fixture(scope="module")
def network() -> SpeechBrainEcapa:
    network = SpeechBrainEcapa()
    randomised(network)
    return network


def waves(*seconds: float) -> Tensor:
    return torch.stack([torch.from_numpy(voice(100 + 30 * seed, length, seed)) for seed, length in enumerate(seconds)])


def their_network(module: str, dim: int = 192, channels: int = 1024) -> nn.Module:
    widths = [channels] * 4 + [3 * channels]
    return randomised(reference(module).ECAPA_TDNN(80, lin_neurons=dim, channels=widths))


@pytest.mark.parametrize("module", REFERENCES)
@pytest.mark.parametrize(("dim", "channels"), [(192, 1024), (256, 512)])
def test_the_network_is_the_published_one(module: str, dim: int, channels: int) -> None:
    theirs = their_network(module, dim, channels)
    ours = SpeechBrainEcapa(dim, channels, KaldiFbank() if "speakerlab" in module else None).eval()
    ours.load_state_dict(theirs.state_dict())
    assert list(ours.state_dict()) == list(theirs.state_dict())
    inputs = 10 * torch.randn(2, 61, 80), 10 * torch.randn(3, 5, 80), ours.features(waves(2.015, 2.015))
    with torch.inference_mode():
        for features in inputs:
            embeddings = ours.embed(features)
            torch.testing.assert_close(embeddings, theirs(features).reshape(-1, dim), atol=1e-5, rtol=0)
            assert embeddings.std(dim=0).mean() > 1e-3  # far from the same for all inputs


def test_features_are_speechbrains() -> None:
    theirs = reference("speechbrain.lobes.features").Fbank(n_mels=80)
    normalise = reference("speechbrain.processing.features").InputNormalization(norm_type="sentence", std_norm=False)
    ours = SpeechBrainFbank()
    quiet = 1e-4 * waves(1.01, 1.01)
    burst = quiet.clone()
    burst[:, 4000:4800] += 0.9 * torch.randn(2, 800).clamp(-1, 1)  # the rest is more than 80 dB below
    for batch in (waves(2.015, 2.015), 0.1 * torch.randn(2, 9_999), quiet, burst, torch.zeros(1, 8_000)):
        expected = normalise(theirs(batch), torch.ones(len(batch)))
        torch.testing.assert_close(ours(batch), expected, atol=1e-3, rtol=0)


def test_the_loudest_of_a_batch_does_not_clip_the_others() -> None:
    batch = torch.cat([waves(1.0), 1e-4 * waves(1.0)])
    features = SpeechBrainFbank()(batch)
    torch.testing.assert_close(features[1:], SpeechBrainFbank()(batch[1:]), atol=1e-5, rtol=0)


def test_names_shapes_and_size_are_the_published_ones(network: SpeechBrainEcapa) -> None:
    assert len(network.state_dict()) == 231
    assert signature(network) == "84f66264cbcc96c40dc7346ee98759e89b0fc99e163188d24d5b19b0f43e56f8"
    assert sum(parameter.numel() for parameter in network.parameters()) == 20_767_552


@pytest.mark.parametrize("front_end", [SpeechBrainFbank(), KaldiFbank()])
def test_five_frames_are_enough(network: SpeechBrainEcapa, front_end: SpeechBrainFbank | KaldiFbank) -> None:
    ours = SpeechBrainEcapa(front_end=front_end).eval()
    ours.load_state_dict(network.state_dict())
    (wave,) = waves(1.0)
    with torch.inference_mode():
        assert ours.features(wave[None, : ours.min_samples]).shape == (1, 5, 80)
        assert torch.isfinite(ours(wave[None, : ours.min_samples])).all()
        with pytest.raises(RuntimeError):
            ours(wave[None, : ours.min_samples - 1])


def test_a_batch_gives_what_each_wave_gives_alone(network: SpeechBrainEcapa) -> None:
    batch = waves(1.2, 1.2, 1.2)
    with torch.inference_mode():
        alone = torch.cat([network(wave[None]) for wave in batch])
        torch.testing.assert_close(network(batch), alone, atol=1e-5, rtol=0)


def test_half_precision_comes_near(network: SpeechBrainEcapa) -> None:
    (wave,) = waves(0.4)
    half = Encoder(network, "half", "ecapa_speechbrain", None, precision="bfloat16")([wave])
    full = Encoder(network, "full", "ecapa_speechbrain", None)([wave])
    assert 0.99 < cosine_similarity(half, full).item() < 1
