"""Stores made out of earlier ones are the stores that are made at once, byte for byte."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.audio.augment.recipe import Recipe
from pipeline.audio.augment.sources import Source, SourcePool
from pipeline.audio.reading import read_audio
from pipeline.config.extract import Extract
from pipeline.config.recipes import training_recipe
from pipeline.data.manifest import Utterance
from pipeline.encoders.encoder import Encoder
from pipeline.errors import ExtractionError
from pipeline.extraction.extract import (
    ExtractionProgress,
    ExtractionSummary,
    extract,
    store_attributes,
    threaded_runner,
)
from pipeline.extraction.reuse import EarlierStores, row_fingerprint
from pipeline.extraction.shard import ExtractionJob
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.store.journal import journal_of
from pipeline.store.schema import OK
from pipeline.store.writer import write_store
from pipeline.utils.atomic import sha256_of
from tests.conftest import WriteVoice, tree_bytes

VIEWS: dict[str, list[dict[str, object]]] = {
    "noise": [{"kind": "noise", "snr": [0, 15]}],
    "babble": [{"kind": "babble", "snr": [5, 15], "talkers": [1, 2]}],
}
RECIPE = training_recipe(2, 16_240, Extract(views=VIEWS).views)


class Counting(Encoder):
    """An encoder that counts the waves it is given."""

    waves = 0

    def __call__(self, waves: Sequence[torch.Tensor]) -> torch.Tensor:
        self.waves += len(waves)
        return super().__call__(waves)


class Voices:
    """Eight voices, a noise and two talkers; an extraction of any of them by name."""

    def __init__(self, root: Path, write: WriteVoice, encoder: Encoder) -> None:
        self.root, self.network = root, encoder.network
        self.rows = {}
        for n in range(8):
            path = write(root / f"u{n}.wav", 90 + 20 * n, 1.2, n)
            self.rows[f"u{n}"] = Utterance(f"u{n}", f"u{n}.wav", f"s{n % 3}", 1.2, sha256_of(path))
        self.sources = {
            "noise": [Source(write(root / "noise.wav", 300, 2, 98))],
            "babble": [Source(write(root / f"t{n}.wav", 200 + n, 2, n), f"t{n}") for n in range(2)],
        }
        self.encoder = Counting(self.network, "ge2e", "ge2e", "f" * 64)

    def run(
        self, out: Path, names: Sequence[str], recipe: Recipe = RECIPE, seed: int = 0, **options: Any
    ) -> tuple[ExtractionSummary, int]:
        """Extract some utterances; return what was done, and how many were given to the encoder."""
        manifest = [self.rows[name] for name in names]
        before = self.encoder.waves
        job = ExtractionJob(manifest, self.root, recipe, SourcePool(self.sources), self.encoder, seed, "wrap")
        attributes = store_attributes(job, "-".join(names), None)
        done = extract(job, out, attributes, 3, run=threaded_runner(options.pop("workers", 0)), **options)
        return done, (self.encoder.waves - before) // (recipe.draws * len(recipe.views))


@pytest.fixture
def voices(tmp_path: Path, write_voice: WriteVoice, ge2e: Encoder) -> Voices:
    return Voices(tmp_path / "audio", write_voice, ge2e)


OLD = ["u0", "u1", "u2", "u3", "u4"]


@pytest.mark.parametrize(
    ("names", "fresh"),
    [
        (["u7", *OLD, "u6"], 2),
        (["u0", "u2", "u4"], 0),
        (["u4", "u5", "u3", "u2", "u1", "u0"], 1),
    ],
    ids=["added", "removed", "in another order"],
)
def test_only_new_utterances_are_encoded(voices: Voices, tmp_path: Path, names: list[str], fresh: int) -> None:
    voices.run(tmp_path / "grown" / "s.zarr", OLD)
    done, encoded = voices.run(tmp_path / "grown" / "s.zarr", names)
    assert (done.progress.encoded, done.progress.reused, encoded) == (fresh, len(names) - fresh, fresh)
    voices.run(tmp_path / "at once" / "s.zarr", names)
    assert tree_bytes(tmp_path / "grown") == tree_bytes(tmp_path / "at once")


def test_what_has_changed_is_encoded_again(voices: Voices, tmp_path: Path, write_voice: WriteVoice) -> None:
    out = tmp_path / "s.zarr"
    voices.run(out, OLD)
    write_voice(voices.root / "u1.wav", 140, 1.2, 77)
    voices.rows["u1"] = replace(voices.rows["u1"], sha256=sha256_of(voices.root / "u1.wav"))
    voices.rows["u2"] = replace(voices.rows["u2"], speaker="t0")  # another voice is kept out of the babble
    assert voices.run(out, OLD)[1] == 2
    voices.run(tmp_path / "at once" / "s.zarr", OLD)
    assert tree_bytes(out) == tree_bytes(tmp_path / "at once" / "s.zarr")


def test_without_checksums_in_the_manifest_the_files_tell(
    voices: Voices, tmp_path: Path, write_voice: WriteVoice
) -> None:
    voices.rows = {name: replace(row, sha256=None) for name, row in voices.rows.items()}
    voices.run(tmp_path / "s.zarr", OLD)
    write_voice(voices.root / "u3.wav", 140, 1.2, 77)
    assert voices.run(tmp_path / "s.zarr", [*OLD, "u5"])[1] == 2


def test_another_recipe_seed_or_encoder_starts_anew(voices: Voices, tmp_path: Path) -> None:
    out = tmp_path / "s.zarr"
    voices.run(out, OLD)
    assert voices.run(out, OLD, seed=1)[0].progress.reused == 0
    louder = training_recipe(2, 16_240, Extract(views=VIEWS | {"noise": [{"kind": "noise", "snr": [0, 5]}]}).views)
    assert voices.run(out, OLD, louder)[0].progress.reused == 0
    voices.encoder = Counting(voices.network, "ge2e", "ge2e", "e" * 64)
    assert voices.run(out, OLD, louder)[0].progress.reused == 0


def test_an_unfinished_run_of_another_manifest_is_made_use_of(voices: Voices, tmp_path: Path) -> None:
    class StopError(Exception):
        pass

    def stop(now: ExtractionProgress) -> None:
        if now.encoded:
            raise StopError

    out = tmp_path / "s.zarr"
    with pytest.raises(StopError):
        voices.run(out, OLD, progress=stop)
    done, encoded = voices.run(out, [*OLD, "u5"])
    assert 0 < done.progress.reused == 6 - encoded
    assert len(done.stale) == 1
    assert journal_of(out).is_dir()
    voices.run(tmp_path / "at once" / "s.zarr", [*OLD, "u5"])
    assert tree_bytes(out) == tree_bytes(tmp_path / "at once" / "s.zarr")


def test_a_damaged_earlier_store_is_no_error(voices: Voices, tmp_path: Path) -> None:
    out = tmp_path / "s.zarr"
    voices.run(out, OLD)
    shards = sorted(path for path in (out / "embeddings" / "c").rglob("*") if path.is_file())
    content = bytearray(shards[0].read_bytes())
    content[100] ^= 1
    shards[0].write_bytes(content)
    done, encoded = voices.run(out, [*OLD, "u5"])
    assert done.progress.encoded == encoded > 1
    voices.run(tmp_path / "at once" / "s.zarr", [*OLD, "u5"])
    assert tree_bytes(out) == tree_bytes(tmp_path / "at once" / "s.zarr")


def test_failed_rows_are_tried_again_and_alone(voices: Voices, tmp_path: Path) -> None:
    out = tmp_path / "s.zarr"
    kept = tmp_path / "kept.wav"
    shutil.move(voices.root / "u1.wav", kept)
    with pytest.raises(ExtractionError, match="1 of 5 utterances failed"):
        voices.run(out, OLD)
    shutil.move(kept, voices.root / "u1.wav")
    done, encoded = voices.run(out, OLD)
    assert (done.progress.resumed, encoded) == (4, 1)
    voices.run(tmp_path / "at once" / "s.zarr", OLD)
    assert tree_bytes(out) == tree_bytes(tmp_path / "at once" / "s.zarr")


def test_many_workers_reuse_as_one_does(voices: Voices, tmp_path: Path) -> None:
    for workers in (0, 3):
        out = tmp_path / str(workers) / "s.zarr"
        voices.run(out, OLD, workers=workers)
        assert voices.run(out, [*reversed(OLD), "u6"], workers=workers)[1] == 1
    assert tree_bytes(tmp_path / "0") == tree_bytes(tmp_path / "3")


def test_fingerprints_tell_rows_apart(voices: Voices) -> None:
    row = voices.rows["u0"]
    changes: list[Callable[[Utterance], Utterance]] = [
        lambda row: replace(row, utterance="other"),
        lambda row: replace(row, sha256="0" * 64),
        lambda row: replace(row, speaker="other"),
        lambda row: replace(row, speaker=None),
        lambda row: replace(row, speaker=None, path="u1.wav"),
    ]
    prints = {row_fingerprint(row, voices.root), *(row_fingerprint(change(row), voices.root) for change in changes)}
    assert len(prints) == len(changes) + 1
    assert row_fingerprint(replace(row, path="u1.wav"), voices.root) == row_fingerprint(row, voices.root)
    assert row_fingerprint(replace(row, sha256=None), voices.root) == row_fingerprint(row, voices.root)
    assert row_fingerprint(replace(row, sha256=None, path="none.wav"), voices.root) is None


def test_stores_of_vectors_have_nothing_to_offer(tmp_path: Path) -> None:
    write_store(tmp_path / "s.zarr", ["a"], np.zeros((1, 1, 1, 4), np.float32), np.array([OK], np.uint8), {"dim": 4})
    assert EmbeddingStore.open(tmp_path / "s.zarr").fingerprints() is None
    assert len(EarlierStores([tmp_path / "s.zarr", tmp_path / "none.zarr"], {"dim": 4})) == 0
    assert EarlierStores([], {}).take({0: bytes(16)}) is None


def test_the_speech_of_the_fixture_is_what_is_stored(voices: Voices, tmp_path: Path) -> None:
    voices.run(tmp_path / "s.zarr", OLD)
    voices.run(tmp_path / "s.zarr", ["u7", *OLD])
    store = EmbeddingStore.open(tmp_path / "s.zarr")
    place = store.trace(3)[1][0]["start"]
    wave = read_audio(voices.root / "u2.wav")[place : place + 16_240]
    np.testing.assert_allclose(store.read()[3, 1, 0], voices.encoder([torch.from_numpy(wave)])[0], atol=1e-5)
