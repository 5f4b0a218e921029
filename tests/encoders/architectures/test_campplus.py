import pytest
import torch
from torch import nn

from pipeline.encoders.architectures.campplus import CAMPlusPlus
from pipeline.encoders.encoder import Encoder
from pipeline.encoders.features import KaldiFbank
from tests.encoders.oracles import randomised
from tests.references import reference


@pytest.mark.parametrize("dim", [192, 512])
def test_the_network_is_that_of_3d_speaker(dim: int) -> None:
    theirs = randomised(reference("speakerlab.models.campplus.DTDNN").CAMPPlus(embedding_size=dim), kaiming=True)
    ours = CAMPlusPlus(dim).eval()
    ours.load_state_dict(theirs.state_dict())
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for batch, seconds in ((2, 2.015), (1, 4.3)):  # beyond one segment of the mask
        features = ours.features(0.1 * torch.randn(batch, int(16_000 * seconds)))
        with torch.inference_mode():
            embeddings = ours.embed(features)
            torch.testing.assert_close(embeddings, theirs(features), atol=1e-4, rtol=0)
            assert embeddings.std() > 0.1  # or the tolerance would say nothing


def test_wespeakers_differs_in_its_front_end_only() -> None:
    theirs = randomised(
        reference("wespeaker.models.campplus").CAMPPlus(feat_dim=80, embed_dim=512, pooling_func="TSTP")
    )
    ours = CAMPlusPlus(512, KaldiFbank(window="hamming", scale=32_768), 1e-7).eval()
    ours.load_state_dict(theirs.state_dict())
    features = ours.features(0.1 * torch.randn(2, 24_000))
    with torch.inference_mode():
        torch.testing.assert_close(ours.embed(features), theirs(features), atol=1e-4, rtol=0)


def test_size_is_the_published_one(campplus: Encoder) -> None:
    assert campplus.dim == 192
    assert campplus.parameters == 6_848_544


def test_folding_batch_norms_changes_nothing() -> None:
    network = randomised(CAMPlusPlus(), kaiming=True)
    features = network.features(0.1 * torch.randn(2, 32_240))
    with torch.inference_mode():
        before = network.embed(features)
        for _ in range(2):
            network.fold()
            torch.testing.assert_close(network.embed(features), before, atol=1e-4, rtol=1e-5)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
