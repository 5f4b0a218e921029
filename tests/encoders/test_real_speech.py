"""The encoders with published weights, on real speech: error rates that a wrong front-end could not reach."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.audio.reading import cut, read_audio
from pipeline.data.trials.table import make_all_pairs
from pipeline.encoders.encoder import Encoder
from pipeline.metrics import eer, roc_of

MOST = {"ge2e": 7.0, "campplus": 3.0}
"""EER in percent; 4.7 and 1.5 were measured."""


@pytest.mark.corpora
@pytest.mark.parametrize("name", MOST)
def test_error_rate_on_clean_crops_of_test_speakers(
    name: str, real_corpora: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder: Encoder = request.getfixturevalue(name)
    speakers = sorted((real_corpora / "speechocean762/test").iterdir())[::8]
    files = [(speaker.name, path) for speaker in speakers for path in sorted(speaker.iterdir())[:4]]
    crops = [torch.from_numpy(cut(read_audio(path), 0, 48_240)) for _, path in files]
    vectors = torch.nn.functional.normalize(encoder(crops), dim=1).numpy()
    trials = make_all_pairs([speaker for speaker, _ in files], 10**6, 0)
    scores = np.einsum("md,md->m", vectors[trials.enrol], vectors[trials.test])
    error = 100 * eer(roc_of(scores, trials.target))
    with capsys.disabled():
        print(
            f"\n{name}: EER {error:.2f} % ({len(speakers)} speakers, {len(files)} crops of 3 s, {len(trials)} trials)"
        )
    assert error < MOST[name]
