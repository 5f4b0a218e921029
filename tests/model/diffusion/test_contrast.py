import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss
from sklearn.metrics.pairwise import cosine_similarity

from pipeline.config.objectives import DISTANCES
from pipeline.model.diffusion.contrast import add_contrast, contrast_loss
from pipeline.model.diffusion.objective import load_distance


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_contrast_is_the_cross_entropy_of_a_softmax_over_cosines() -> None:
    clean, count = randn(7, 5), 3
    predicted = randn(21, 5, seed=1)
    cosines = cosine_similarity(predicted.numpy(), clean.numpy()) / 0.2
    odds = np.exp(cosines) / np.exp(cosines).sum(axis=1, keepdims=True)
    expected = log_loss(np.repeat(np.arange(7), count), odds, labels=np.arange(7))
    found = contrast_loss(predicted, clean.repeat_interleave(count, dim=0), count, 0.2)
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_lengths_do_not_matter_and_the_own_clean_vector_is_better_than_anothers() -> None:
    clean = randn(8, 16)
    own, other = contrast_loss(9 * clean, clean, 1, 0.1), contrast_loss(clean.roll(1, dims=0), clean, 1, 0.1)
    assert own < 0.1 < other
    torch.testing.assert_close(own, contrast_loss(clean, 3 * clean, 1, 0.1))


def test_crops_of_one_utterance_are_not_negatives() -> None:
    clean = randn(4, 16)
    predicted = randn(5, 16, seed=1)
    twice = torch.cat([clean, 2 * clean[:1]])  # the last row is of the recording of the first
    found = contrast_loss(predicted, twice, 1, 0.1)
    cosines = torch.from_numpy(cosine_similarity(predicted.numpy(), twice.numpy())) / 0.1
    own = [cosines[row][[0, 1, 2, 3]] if row in (0, 4) else cosines[row] for row in range(5)]
    losses = [each.logsumexp(dim=0) - each[row % 4] for row, each in enumerate(own)]
    torch.testing.assert_close(found, torch.stack(losses).mean())


@pytest.mark.parametrize("name", list(DISTANCES))
def test_the_contrast_is_added_to_a_distance_by_its_weight(name: str) -> None:
    clean, predicted = randn(6, 4).repeat_interleave(2, dim=0), randn(12, 4, seed=1)
    plain = load_distance(name)(predicted, clean)
    expected = plain + 0.5 * contrast_loss(predicted, clean, 2, 0.1)
    torch.testing.assert_close(add_contrast(load_distance(name), 0.5, 2, 0.1)(predicted, clean), expected)
    assert add_contrast(load_distance(name), 0, 2, 0.1) is load_distance(name)
