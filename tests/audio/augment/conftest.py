"""Sources of every kind to corrupt speech with."""

from pathlib import Path

import pytest

from pipeline.audio.augment.sources import Source, SourcePool
from tests.conftest import WriteVoice


@pytest.fixture
def pool(tmp_path: Path, write_voice: WriteVoice) -> SourcePool:
    def some(kind: str, count: int, seconds: float) -> list[Source]:
        paths = [tmp_path / kind / f"{number}.wav" for number in range(count)]
        return [Source(write_voice(path, 100 + 37 * n, seconds, n)) for n, path in enumerate(paths)]

    talkers = [Source(source.path, speaker=f"s{n // 2}") for n, source in enumerate(some("babble", 8, 1.0))]
    return SourcePool(
        {
            "noise": some("noise", 4, 0.3),
            "music": some("music", 2, 2),
            "rooms": some("rooms", 3, 0.05),
            "babble": talkers,
        }
    )
