import torch

from pipeline.encoders.architectures.ge2e import GE2E
from pipeline.encoders.check import check_encoder
from pipeline.encoders.encoder import Encoder
from tests.conftest import voice


def three() -> list[torch.Tensor]:
    """Two utterances of one voice and one of another."""
    return [torch.from_numpy(voice(pitch, 2.5, seed)) for pitch, seed in ((110, 0), (113, 1), (240, 2))]


def test_real_weights_tell_speakers_apart(ge2e: Encoder) -> None:
    result = check_encoder(ge2e, *three())
    first, again, other = (ge2e([wave])[0] for wave in three())
    cosine = torch.nn.functional.cosine_similarity
    assert abs(result.same - float(cosine(first, again, dim=0))) < 1e-5
    assert abs(result.different - float(cosine(first, other, dim=0) + cosine(again, other, dim=0)) / 2) < 1e-5
    assert result.plausible
    assert 0 < result.real_time_factor < 1


def test_random_weights_do_not() -> None:
    torch.manual_seed(0)
    assert not check_encoder(Encoder(GE2E(), "random", "ge2e", None), *three()).plausible
