import csv
import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.audio.augment.corrupt import replay
from pipeline.audio.augment.recipe import Recipe
from pipeline.audio.augment.sources import Source, SourcePool
from pipeline.audio.reading import cut, read_audio
from pipeline.config.extract import Extract
from pipeline.config.recipes import condition_recipe, training_recipe
from pipeline.data.manifest import Utterance
from pipeline.encoders.encoder import Encoder
from pipeline.errors import CorpusError, ExtractionError, StoreError
from pipeline.extraction.extract import (
    ExtractionProgress,
    ExtractionSummary,
    extract,
    failures_path,
    store_attributes,
    threaded_runner,
)
from pipeline.extraction.reuse import EarlierStores
from pipeline.extraction.shard import ExtractionJob, ShardResult, ShortAudio, encode_shard
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.store.schema import FAILED
from pipeline.store.writer import StoreWriter
from pipeline.utils.atomic import sha256_of
from tests.conftest import WriteVoice, assert_same_stores, tree_bytes

CLEAN = condition_recipe("clean", 1, None)
VIEWS: dict[str, list[dict[str, object]]] = {
    "noise": [{"kind": "noise", "snr": [0, 15]}],
    "music": [{"kind": "music", "snr": [5, 15]}],
    "reverb": [{"kind": "reverb"}],
}
TRAINING = training_recipe(2, 16_240, Extract(views=VIEWS).views)


class Corpus:
    """Seven voices, a noise, a tune and a room."""

    def __init__(self, root: Path, write: WriteVoice) -> None:
        self.root = root
        self.manifest = [Utterance(f"u{n}", f"speech/u{n}.wav", f"s{n}") for n in range(7)]
        for n, row in enumerate(self.manifest):
            write(root / row.path, 90 + 30 * n, 1.2, n)
        self.sources = {
            kind: [Source(write(root / f"{kind}.wav", 300, seconds, 99))]
            for kind, seconds in (("noise", 2), ("music", 2), ("rooms", 0.02))
        }

    def run(
        self,
        encoder: Encoder,
        out: Path,
        recipe: Recipe = TRAINING,
        workers: int = 0,
        short_audio: ShortAudio = "wrap",
        batch: int = 1,
        prefetch: int = 0,
        **options: Any,
    ) -> ExtractionSummary:
        pool = SourcePool(self.sources)
        job = ExtractionJob(self.manifest, self.root, recipe, pool, encoder, 0, short_audio, batch, prefetch)
        return extract(job, out, store_attributes(job, None, None), 3, **({"run": threaded_runner(workers)} | options))


@pytest.fixture
def corpus(tmp_path: Path, write_voice: WriteVoice) -> Corpus:
    return Corpus(tmp_path / "audio", write_voice)


def test_rows_are_the_encoders_answer_to_each_utterance(corpus: Corpus, ge2e: Encoder, tmp_path: Path) -> None:
    done = corpus.run(ge2e, tmp_path / "s.zarr", CLEAN)
    assert (done.progress.rows, done.progress.resumed, done.progress.encoded, done.failures) == (7, 0, 7, [])
    assert done.progress.seconds == pytest.approx(7 * 1.2)
    values = EmbeddingStore.open(tmp_path / "s.zarr").read()
    assert values.shape == (7, 1, 1, 256)
    for row, value in zip(corpus.manifest, values, strict=True):
        with torch.inference_mode():
            (alone,) = ge2e([torch.from_numpy(read_audio(corpus.root / row.path))]).numpy()
        np.testing.assert_allclose(value[0, 0], alone, atol=1e-5)


def test_stores_are_the_same_bytes_for_any_number_of_workers(corpus: Corpus, ge2e: Encoder, tmp_path: Path) -> None:
    more = Extract(views=VIEWS | {"codec": [{"kind": "clip", "percent": [1, 5]}, {"kind": "mp3", "kbit": [16, 32]}]})
    recipe = training_recipe(2, 16_240, more.views)
    for workers, prefetch in ((0, 0), (1, 0), (2, 3), (4, 1)):
        corpus.run(ge2e, tmp_path / str(workers) / "s.zarr", recipe, workers=workers, prefetch=prefetch)
    for workers in (1, 2, 4):
        assert_same_stores(tree_bytes(tmp_path / str(workers)), tree_bytes(tmp_path / "0"))


def test_threads_compute_as_the_caller_does(corpus: Corpus, ge2e: Encoder, tmp_path: Path) -> None:
    before, seen = torch.get_num_threads(), set()
    forward = ge2e.network.features

    def watched(waves: torch.Tensor) -> torch.Tensor:
        seen.add(torch.get_num_threads())
        return forward(waves)

    other = threading.Thread(target=torch.set_num_threads, args=(before + 3,))  # what new threads begin with
    try:
        other.start()
        other.join()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ge2e.network, "features", watched)
            corpus.run(ge2e, tmp_path / "s.zarr", workers=2)
    finally:
        torch.set_num_threads(before)
    assert seen == {before}


def test_the_order_of_shards_is_all_the_same(corpus: Corpus, ge2e: Encoder, tmp_path: Path) -> None:
    def backwards(
        job: ExtractionJob,
        todo: Sequence[range],
        writer: StoreWriter,
        stores: Sequence[Path],
        done: Callable[[ShardResult], None],
    ) -> None:
        for rows in reversed(todo):
            done(encode_shard(job, rows, writer, EarlierStores(stores, writer.attributes)))

    corpus.run(ge2e, tmp_path / "forwards" / "s.zarr")
    corpus.run(ge2e, tmp_path / "backwards" / "s.zarr", run=backwards)
    assert_same_stores(tree_bytes(tmp_path / "backwards"), tree_bytes(tmp_path / "forwards"))


def test_a_trace_says_what_was_encoded(corpus: Corpus, ge2e: Encoder, tmp_path: Path) -> None:
    corpus.run(ge2e, tmp_path / "s.zarr")
    store = EmbeddingStore.open(tmp_path / "s.zarr")
    pool, values = SourcePool(corpus.sources), store.read()
    for row in (0, 6):
        speech = read_audio(corpus.root / corpus.manifest[row].path)
        for draw, views in enumerate(store.trace(row)):
            assert [[step["kind"] for step in view["steps"]] for view in views] == [
                [],
                ["noise"],
                ["music"],
                ["reverb"],
            ]
            again = [replay(cut(speech, view["start"], 16_240), view["steps"], pool) for view in views]
            with torch.inference_mode():
                vectors = ge2e([torch.from_numpy(wave) for wave in again]).numpy()
            np.testing.assert_allclose(values[row, draw], vectors, atol=1e-5)


def test_a_stopped_run_goes_on_without_encoding_a_shard_twice(corpus: Corpus, ge2e: Encoder, tmp_path: Path) -> None:
    corpus.run(ge2e, tmp_path / "whole" / "s.zarr")

    class StopError(Exception):
        pass

    done: list[int] = []

    def stop_after_two(now: ExtractionProgress) -> None:
        done.append(now.encoded)
        if len(done) == 3:  # the first call tells of what an earlier run left: nothing
            raise StopError

    with pytest.raises(StopError):
        corpus.run(ge2e, tmp_path / "cut" / "s.zarr", progress=stop_after_two)
    assert not (tmp_path / "cut" / "s.zarr").exists()
    # Dask takes the shards (of three, three and one utterances) in an order of its own.
    assert 0 < done[-1] < 7
    assert corpus.run(ge2e, tmp_path / "cut" / "s.zarr").progress.resumed == done[-1]
    assert_same_stores(tree_bytes(tmp_path / "cut"), tree_bytes(tmp_path / "whole"))


def test_a_bad_file_is_marked_listed_and_does_not_stop_the_rest(corpus: Corpus, ge2e: Encoder, tmp_path: Path) -> None:
    corpus.run(ge2e, tmp_path / "whole.zarr")
    (corpus.root / "speech/u2.wav").write_text("not audio")
    (corpus.root / "speech/u5.wav").unlink()
    out = tmp_path / "s.zarr"
    done = corpus.run(ge2e, out, max_failures=2)
    assert [name for name, _, _ in done.failures] == ["u2", "u5"]
    store = EmbeddingStore.open(out)
    assert np.flatnonzero(store.status == FAILED).tolist() == [2, 5]
    with pytest.raises(StoreError, match="no trace of u2: it failed"):
        store.trace(2)
    assert store.trace(3) == EmbeddingStore.open(tmp_path / "whole.zarr").trace(3)
    whole = EmbeddingStore.open(tmp_path / "whole.zarr").read()
    np.testing.assert_allclose(store.read()[store.ok], whole[store.ok], atol=1e-5)
    rows = list(csv.DictReader(failures_path(out).open()))
    assert [row["utterance"] for row in rows] == ["u2", "u5"]
    assert "cannot be read as audio" in rows[0]["reason"]
    assert "no such file" in rows[1]["reason"]


def test_too_many_failures_stop_the_stage_and_keep_the_work(
    corpus: Corpus, ge2e: Encoder, tmp_path: Path, write_voice: WriteVoice
) -> None:
    (corpus.root / "speech/u2.wav").unlink()
    out = tmp_path / "s.zarr"
    with pytest.raises(
        ExtractionError, match=r"1 of 7 utterances failed, more than .* = 0\. First: u2: .*no such file"
    ):
        corpus.run(ge2e, out)
    assert not out.exists()
    write_voice(corpus.root / "speech/u2.wav", 150, 1.2, 2)
    mended = corpus.run(ge2e, out).progress
    assert (mended.resumed, mended.encoded) == (6, 1)
    assert failures_path(out).read_text() == "utterance,path,reason\n"


def test_a_recipe_without_its_sources_is_refused_before_any_work(corpus: Corpus, ge2e: Encoder, tmp_path: Path) -> None:
    corpus.sources = {}
    with pytest.raises(CorpusError, match="no music, noise, rooms files"):
        corpus.run(ge2e, tmp_path / "s.zarr")
    assert list(tmp_path.iterdir()) == [corpus.root]


def test_an_encoder_that_returns_nan_fails_the_row(corpus: Corpus, ge2e: Encoder, tmp_path: Path) -> None:
    class Faulty(Encoder):
        def __call__(self, waves: Sequence[torch.Tensor]) -> torch.Tensor:
            embeddings = super().__call__(waves)
            embeddings[0, 0] = float("nan")
            return embeddings

    done = corpus.run(Faulty(ge2e.network, "ge2e", "ge2e", None), tmp_path / "s.zarr", CLEAN, max_failures=7, batch=3)
    assert [name for name, _, _ in done.failures] == ["u0", "u3", "u6"]  # the first of each batch
    assert EmbeddingStore.open(tmp_path / "s.zarr").ok.tolist() == [1, 2, 4, 5]


def test_an_extraction_without_a_single_good_row_fails(corpus: Corpus, ge2e: Encoder, tmp_path: Path) -> None:
    (tmp_path / "audio" / "speech").rename(tmp_path / "elsewhere")
    with pytest.raises(ExtractionError, match=r"7 of 7 utterances failed\. First: u0"):
        corpus.run(ge2e, tmp_path / "s.zarr", max_failures=10)
    assert not (tmp_path / "s.zarr").exists()


def test_a_file_that_is_not_the_one_in_the_manifest_fails(corpus: Corpus, ge2e: Encoder, tmp_path: Path) -> None:
    corpus.manifest = [replace(row, sha256=sha256_of(corpus.root / row.path)) for row in corpus.manifest]
    shutil.copyfile(corpus.root / "speech/u1.wav", corpus.root / "speech/u3.wav")
    done = corpus.run(ge2e, tmp_path / "s.zarr", CLEAN, max_failures=1)
    assert [name for name, _, _ in done.failures] == ["u3"]
    assert "has changed since the manifest was made" in done.failures[0][2]


def test_audio_too_short_for_the_encoder_is_repeated_or_fails(
    corpus: Corpus, campplus: Encoder, tmp_path: Path, write_voice: WriteVoice
) -> None:
    write_voice(corpus.root / "speech/u2.wav", 150, 0.04, 2)
    assert not corpus.run(campplus, tmp_path / "wrap.zarr", CLEAN).failures
    done = corpus.run(campplus, tmp_path / "fail.zarr", CLEAN, max_failures=1, short_audio="fail")
    assert [name for name, _, _ in done.failures] == ["u2"]
    assert "640 samples, encoder campplus needs 720" in done.failures[0][2]
