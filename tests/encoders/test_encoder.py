import pytest
import torch

from pipeline.encoders.encoder import Encoder, Network, repeat_to_length
from pipeline.encoders.registry import load_encoder
from tests.conftest import voice

NAMES = ("ge2e", "campplus")


@pytest.fixture(params=NAMES)
def encoder(request: pytest.FixtureRequest) -> Encoder:
    found: Encoder = request.getfixturevalue(request.param)
    return found


def waves(*seconds: float) -> list[torch.Tensor]:
    return [torch.from_numpy(voice(100 + 30 * index, length, index)) for index, length in enumerate(seconds)]


def test_a_batch_gives_what_each_wave_gives_alone(encoder: Encoder) -> None:
    batch = waves(2.015, 0.7, 2.015, 3.3, 2.015, 0.05)
    together = encoder(batch)
    assert (together.shape, together.dtype) == ((6, encoder.dim), torch.float32)
    for wave, embedding in zip(batch, together, strict=True):
        (alone,) = encoder([wave])
        torch.testing.assert_close(embedding, alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("share", [0.01, 0.5, 1.0])
def test_the_shortest_waves_give_finite_embeddings(encoder: Encoder, share: float) -> None:
    (wave,) = waves(1.0)
    short = wave[: max(1, int(encoder.min_samples * share))]
    (embedding,) = encoder([short])
    assert torch.isfinite(embedding).all()
    (repeated,) = encoder([repeat_to_length(short, encoder.min_samples)])
    assert torch.equal(embedding, repeated)


def test_silence_gives_finite_embeddings(encoder: Encoder) -> None:
    assert torch.isfinite(encoder([torch.zeros(16_000)])).all()


def test_features_stay_exact_in_half_precision(encoder: Encoder) -> None:
    seen = []
    half = Encoder(type(encoder.network)(), "half", "x", None, precision="bfloat16")
    half.network.load_state_dict(encoder.network.state_dict())
    hook = half.network.get_submodule("front_end").register_forward_hook(lambda *call: seen.append(call[-1].dtype))
    batch = waves(0.8)
    embeddings = half(batch)
    hook.remove()
    assert seen == [torch.float32]
    assert embeddings.dtype == torch.float32
    cosine = torch.nn.functional.cosine_similarity(embeddings, encoder(batch))
    assert 0.98 < cosine.item() < 1  # coarser, and so surely not float32


def test_long_waves_pass_in_parts_of_bounded_length(monkeypatch: pytest.MonkeyPatch, campplus: Encoder) -> None:
    sizes: list[int] = []

    def forward(self: Network, batch: torch.Tensor) -> torch.Tensor:
        sizes.append(len(batch))
        return torch.zeros(len(batch), self.dim)

    monkeypatch.setattr(Network, "forward", forward)
    campplus([torch.zeros(50 * 16_000)] * 5 + [torch.zeros(200 * 16_000)])
    assert sizes == [2, 2, 1, 1]


def test_wrap_repeats_from_the_start() -> None:
    assert repeat_to_length(torch.arange(3), 8).tolist() == [0, 1, 2, 0, 1, 2, 0, 1]
    assert repeat_to_length(torch.arange(3), 3).tolist() == [0, 1, 2]
    assert repeat_to_length(torch.arange(3), 2).tolist() == [0, 1, 2]


@pytest.fixture
def cuda() -> torch.device:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return torch.device("cuda")


@pytest.mark.parametrize("name", NAMES)
def test_a_gpu_gives_the_same(name: str, cuda: torch.device) -> None:
    batch = waves(2.0, 1.0, 2.0)
    torch.testing.assert_close(load_encoder(name, device=cuda)(batch), load_encoder(name)(batch), atol=1e-3, rtol=1e-3)
