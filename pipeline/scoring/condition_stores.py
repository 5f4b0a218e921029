"""The vectors that systems are made of: as an encoder gave them, or as a model enhanced them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigError, StoreError
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.store.schema import DENOISE, SPACE
from pipeline.utils.paths import Place

if TYPE_CHECKING:
    from pipeline.model.model_file import (
        ModelFile,  # models bring torch, which takes longer than scoring vectors that are there
    )

Values = NDArray[np.float32]
"""Embeddings [N, crops, D]; NaN where an utterance failed."""
Vectors = Mapping[str, Values]
"""By the name of their space."""


@dataclass(frozen=True)
class ConditionStores:
    """One folder of stores, `<condition>.zarr`, whose vectors can be compared with each other."""

    name: str
    stores: Mapping[str, EmbeddingStore]
    """By condition."""
    model: "ModelFile | None"
    """That made the vectors, if it was given."""

    @property
    def _first(self) -> EmbeddingStore:
        return next(iter(self.stores.values()))

    @property
    def ids(self) -> tuple[str, ...]:
        """The utterances of all stores."""
        return self._first.utterances

    @property
    def denoised(self) -> str | None:
        """What the audio was denoised by, if it was."""
        return self._first.attributes.get(DENOISE)

    @property
    def enhanced(self) -> bool:
        """Whether a model made the vectors, rather than an encoder."""
        return bool(self._first.attributes.get("enhanced_by_sha256"))

    def made_by(self) -> "ModelFile":
        """Return the model that made the vectors.

        Raises:
            ConfigError: it was not given.
        """
        if self.model is None:
            raise ConfigError(
                f"{self._first.path}: the model that made it is needed, to enhance the cohort or for an ensemble."
                " Give its file with --model."
            )
        return self.model

    def check_encoder_of(self, encoder: Mapping[str, Any], path: Place) -> None:
        """Raise StoreError unless an encoder's vectors, in the store at `path`, are what these were made from."""
        for key in ("dim", *SPACE, DENOISE):
            ours, theirs = self._first.attributes.get(key), encoder.get(key)
            if ours != theirs:
                where = f"{path}: encoder {key} is {theirs!r}, but {ours!r} in {self._first.path}"
                how = "denoised alike" if key == DENOISE else "with the same encoder"
                raise StoreError(f"{where}. Extract it {how}.")

    def of_raw(self, values: Values) -> Values:
        """Return what raw embeddings [N, crops, D] are in this space."""
        if not self.enhanced:
            return values
        from pipeline.model.apply import enhance_vectors, read_sampling

        flat = enhance_vectors(
            self.made_by().model, values.reshape(-1, values.shape[-1]), *read_sampling(self._first.attributes)
        )
        return flat.reshape(values.shape)

    def originals(self, values: Values) -> Values:
        """Return raw embeddings [N, crops, D] where enhanced ones can be added to them.

        That is as the model sees them, which is where it leaves enhanced ones, unless those are mixed with raw ones.
        """
        from pipeline.model.apply import read_sampling
        from pipeline.model.seed_model import prepare_pairs

        mixed = read_sampling(self._first.attributes)[0].strength != 1
        return values if mixed else prepare_pairs(self.made_by().model, values).cpu().numpy()


def open_condition_stores(
    folders: Mapping[str, Place], conditions: Sequence[str], models: Sequence[Place] = ()
) -> dict[str, ConditionStores]:
    """Open the stores of all conditions, all of which hold the same utterances.

    Args:
        folders: of the stores `<condition>.zarr`, by name.
        conditions: which of them are needed, each once.
        models: that made enhanced vectors, where systems need them.

    Raises:
        StoreError: a store is missing or damaged, holds other utterances than the rest, or vectors of another space
            than the other conditions; or a model was trained on another encoder.
        WeightsError: a model cannot be read.
    """
    if models:
        from pipeline.model.model_file import check_encoder, load_model

    files = {loaded.sha256: (path, loaded) for path in models for loaded in [load_model(path)]}
    spaces: dict[str, ConditionStores] = {}
    first = None
    for name, folder in folders.items():
        stores = {condition: EmbeddingStore.open(folder / f"{condition}.zarr") for condition in conditions}
        for store in stores.values():
            first = first or store
            if store.utterances != first.utterances:
                raise StoreError(
                    f"{store.path} and {first.path} hold other utterances. Extract both from one manifest."
                )
            check_comparable(next(iter(stores.values())), store)
        for condition, store in stores.items():
            _check_same_audio(next(iter(spaces.values()), None), condition, store)
        attributes = store.attributes
        path, model = files.get(str(attributes.get("enhanced_by_sha256")), (None, None))
        if path and model:
            check_encoder(model, attributes, path, store.path)
        spaces[name] = ConditionStores(name, stores, model)
    return spaces


def _check_same_audio(other: ConditionStores | None, condition: str, store: EmbeddingStore) -> None:
    """Raise StoreError if stores of one condition were made from other lists or by another recipe."""
    for key in ("manifest_sha256", "augment_sha256", "recipe") if other else ():
        one = other.stores[condition] if other else store
        if key in one.attributes and key in store.attributes and one.attributes[key] != store.attributes[key]:
            raise StoreError(
                f"{one.path} and {store.path} differ in {key.removesuffix('_sha256')}: they are not of the same audio."
                " Make both anew from one extraction."
            )


def check_comparable(enrol: EmbeddingStore, test: EmbeddingStore) -> None:
    """Raise StoreError unless the vectors of two stores live in one space."""
    for key in ("dim", *SPACE, DENOISE, "enhanced_by_sha256", "timestep", "sampling"):
        if enrol.attributes.get(key) != test.attributes.get(key):
            alike = "of audio denoised alike" if key == DENOISE else "both raw or both enhanced by one model"
            raise StoreError(
                f"{enrol.path} and {test.path} cannot be compared: {key} is {enrol.attributes.get(key)!r} and"
                f" {test.attributes.get(key)!r}. Score stores of one encoder, {alike}."
            )
