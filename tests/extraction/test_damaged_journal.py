"""An extraction that resumes from a damaged journal ends in the store of an undisturbed run."""

import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pipeline.audio.augment.recipe import Recipe
from pipeline.audio.augment.sources import Source, SourcePool
from pipeline.config.extract import Extract
from pipeline.config.recipes import training_recipe
from pipeline.data.manifest import Utterance
from pipeline.encoders.encoder import Encoder, Network
from pipeline.extraction.extract import ExtractionSummary, extract, store_attributes
from pipeline.extraction.reuse import EarlierStores
from pipeline.extraction.shard import ExtractionJob, ShardResult, encode_shard
from pipeline.store.writer import StoreWriter
from tests.conftest import WriteVoice, tree_bytes
from tests.damage import CountDamage, damage, damages
from tests.project import few_or_many

SHARD, ROWS = 3, 8


class Levels(Network):
    """Sums of squares of ten parts of a wave: a stand-in that costs nothing, because the journal is what is tested."""

    dim, min_samples = 10, 10

    def features(self, waves: Tensor) -> Tensor:
        return torch.stack([part.double().square().sum(dim=1) for part in waves.tensor_split(10, dim=1)], dim=1)

    def embed(self, features: Tensor) -> Tensor:
        return features.float()


class Corpus:
    """Eight voices and a noise."""

    def __init__(self, root: Path, write: WriteVoice) -> None:
        recipe = training_recipe(1, 1_600, Extract(views={"noise": [{"kind": "noise", "snr": [0, 15]}]}).views)
        pool = SourcePool({"noise": [Source(write(root / "noise.wav", 300, 0.5, 99))]})
        manifest = [Utterance(f"u{n}", f"u{n}.wav", f"s{n}") for n in range(ROWS)]
        for n, row in enumerate(manifest):
            write(root / row.path, 90 + 30 * n, 0.3, n)
        self.recipe: Recipe = recipe
        self.job = ExtractionJob(manifest, root, recipe, pool, Encoder(Levels(), "levels", "levels", "0"), 0, "wrap")

    def run(self, out: Path, shards: int | None = None) -> ExtractionSummary:
        """Extract, or stop as a kill would after some `shards`."""

        def some(
            job: ExtractionJob,
            todo: Sequence[range],
            writer: StoreWriter,
            stores: Sequence[Path],
            done: Callable[[ShardResult], None],
        ) -> None:
            for rows in todo[:shards]:
                done(encode_shard(job, rows, writer, EarlierStores(stores, writer.attributes)))
            if shards is not None:
                raise KeyboardInterrupt

        return extract(self.job, out, store_attributes(self.job, None, None), SHARD, run=some)


@pytest.fixture
def corpus(tmp_path: Path, write_voice: WriteVoice) -> Corpus:
    return Corpus(tmp_path / "audio", write_voice)


@pytest.mark.endurance
@pytest.mark.parametrize("shards", few_or_many([2], [2, 3]))
def test_damage_to_any_file_of_a_journal_changes_nothing(
    corpus: Corpus, tmp_path: Path, shards: int, count_damage: CountDamage
) -> None:
    corpus.run(tmp_path / "whole/s.zarr")
    whole = tree_bytes(tmp_path / "whole")
    stopped = tmp_path / "stopped"
    with pytest.raises(KeyboardInterrupt):
        corpus.run(stopped / "s.zarr", shards)
    outcomes = Counter[str]()
    for number, file in enumerate(sorted(path for path in stopped.rglob("*") if path.is_file())):
        name = file.relative_to(stopped)
        original = file.read_bytes()
        several = list(damages(original, few_or_many(1, 40), number)) if original else []
        for what, content in few_or_many(several[number % 4 :][:1], several):
            shutil.rmtree(tmp_path / "again", ignore_errors=True)
            shutil.copytree(stopped, tmp_path / "again")
            damage(tmp_path / "again" / name, content)
            done = corpus.run(tmp_path / "again/s.zarr")
            assert tree_bytes(tmp_path / "again") == whole, f"{name}, {what}"
            count_damage("noticed" if done.restarted or done.damaged else "harmless")
            outcomes["started from scratch" if done.restarted else f"{done.damaged} shards encoded again"] += 1
    assert set(outcomes) == {"started from scratch", "0 shards encoded again", "1 shards encoded again"}


def test_an_undamaged_journal_is_resumed(corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        corpus.run(tmp_path / "s.zarr", 2)
    done = corpus.run(tmp_path / "s.zarr")
    assert (done.progress.resumed, done.progress.encoded, done.damaged, done.restarted) == (6, 2, 0, False)


def test_a_damaged_shard_alone_is_encoded_again(corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        corpus.run(tmp_path / "s.zarr", 2)
    (journal,) = (tmp_path / ".s.zarr.journal").glob("*/store.zarr")
    (journal / "embeddings/c/0/0/0/0").write_bytes(b"")
    done = corpus.run(tmp_path / "s.zarr")
    assert (done.progress.resumed, done.progress.encoded, done.damaged, done.restarted) == (3, 5, 1, False)
