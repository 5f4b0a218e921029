"""The vectors that systems score: raw from an encoder, or enhanced by a model."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.errors import ConfigError, StoreError
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.store.schema import DENOISE, SPACE
from pipeline.utils.array_types import Float32Array
from pipeline.utils.paths import Place

if TYPE_CHECKING:  # importing torch takes longer than scoring existing vectors
    from pipeline.model.model_file import ModelFile
    from pipeline.model.seed_model import SeedModel


@dataclass(frozen=True)
class ConditionStores:
    """A folder of stores, `<condition>.zarr`, whose vectors can be compared with each other."""

    name: str
    stores: Mapping[str, EmbeddingStore]
    """The stores by condition."""
    model: "ModelFile | None"
    """The model that made the vectors, if it was given."""

    @property
    def _first(self) -> EmbeddingStore:
        return next(iter(self.stores.values()))

    @property
    def ids(self) -> tuple[str, ...]:
        """The utterances of all stores."""
        return self._first.utterances

    @property
    def denoised(self) -> str | None:
        """The denoiser of the audio, or None."""
        return self._first.attributes.get(DENOISE)

    @property
    def enhanced(self) -> bool:
        """True if a model made the vectors, False if an encoder did."""
        return self._first.is_enhanced

    def require_model(self) -> "ModelFile":
        """Return the model that made the vectors.

        Raises:
            ConfigError: the model was not given.
        """
        if self.model is None:
            raise ConfigError(
                f"{self._first.path}: the model that made it is needed, to enhance the cohort or for an ensemble."
                " Give its file with --model."
            )
        return self.model

    def check_same_encoder(self, encoder: Mapping[str, Any], path: Place) -> None:
        """Raise StoreError unless these vectors were made from vectors of this encoder, like the store at `path`."""
        for key in ("dim", *SPACE, DENOISE):
            expected, actual = self._first.attributes.get(key), encoder.get(key)
            if expected != actual:
                remedy = "with the same denoise setting" if key == DENOISE else "with the same encoder"
                raise StoreError(
                    f"{path}: encoder {key} is {actual!r}, but {expected!r} in {self._first.path}. Extract it {remedy}."
                )

    def convert_raw(self, values: Float32Array, adapted: bool = True) -> Float32Array:
        """Return raw embeddings [N, crops, D] enhanced like these vectors; unchanged if these are raw.

        With `adapted`, they are of the domain that the model was adapted to; otherwise of that of its training.
        """
        if not self.enhanced:
            return values
        from pipeline.model.adaptation import remove_adaptation
        from pipeline.model.apply import enhance_vectors, read_sampling

        model = self._adapted_model() if adapted else remove_adaptation(self.require_model().model)
        flat = values.reshape(-1, values.shape[-1])
        return enhance_vectors(model, flat, *read_sampling(self._first.attributes)).reshape(values.shape)

    def prepare_originals(self, values: Float32Array, own_lengths: bool = False) -> Float32Array:
        """Return raw embeddings [N, crops, D] in the vector space of the enhanced ones, so that they can be added.

        This is the model's preconditioned space, unless the enhanced vectors are interpolated with raw ones. There,
        with `own_lengths`, they keep the lengths that the network was trained on.
        """
        import torch

        from pipeline.model.apply import read_sampling
        from pipeline.model.seed_model import prepare_pairs

        model = self._adapted_model()
        if read_sampling(self._first.attributes)[0].strength == 1:
            return prepare_pairs(model, values, to_train=own_lengths).cpu().numpy()
        flat = torch.from_numpy(values.reshape(-1, values.shape[-1])).to(model.mean.device)
        return model.move(flat).cpu().numpy().reshape(values.shape)

    def _adapted_model(self) -> "SeedModel":
        """Return the model with the shifts that its adaptation added to raw embeddings; zeros without adaptation.

        Raises:
            ConfigError: the conditions were adapted differently.
        """
        import torch

        from pipeline.model.adaptation import remove_adaptation, set_shift

        model = remove_adaptation(self.require_model().model)
        shifts = {json.dumps(store.attributes.get("shift")) for store in self.stores.values()}
        if len(shifts) > 1:
            raise ConfigError(
                f"{self.name}: its conditions were enhanced by different adaptations, so raw vectors cannot be enhanced"
                " like them. Adapt all conditions to one store."
            )
        shift = self._first.attributes.get("shift")
        return model if shift is None else set_shift(model, torch.tensor(shift).reshape(-1, model.dim))


def open_condition_stores(
    folders: Mapping[str, Place], conditions: Sequence[str], models: Sequence[Place] = ()
) -> dict[str, ConditionStores]:
    """Open the stores of all conditions, which must hold the same utterances.

    Args:
        folders: folders of the stores `<condition>.zarr`, by name.
        conditions: conditions to open, each once.
        models: models that made the enhanced vectors, if systems need them.

    Raises:
        StoreError: a store is missing or damaged, or differs from the others in its utterances or vector space; or a
            model was trained on another encoder.
        WeightsError: a model cannot be read.
    """
    if models:
        from pipeline.model.model_file import check_encoder, load_model

    files = {loaded.base_sha256: (path, loaded) for path in models for loaded in [load_model(path)]}
    sources: dict[str, ConditionStores] = {}
    opened: list[EmbeddingStore] = []
    for name, folder in folders.items():
        stores = {condition: EmbeddingStore.open(folder / f"{condition}.zarr") for condition in conditions}
        opened += stores.values()
        check_same_utterances(opened)
        for condition, store in stores.items():
            check_comparable(next(iter(stores.values())), store)
            if sources:
                _check_same_audio(next(iter(sources.values())).stores[condition], store)
        attributes = store.attributes
        path, model = files.get(str(attributes.get("enhanced_by_sha256")), (None, None))
        if path and model:
            check_encoder(model, attributes, path, store.path)
        sources[name] = ConditionStores(name, stores, model)
    return sources


def check_same_utterances(stores: Sequence[EmbeddingStore]) -> None:
    """Raise StoreError unless all stores hold the same utterances."""
    for store in stores:
        if store.utterances != stores[0].utterances:
            raise StoreError(
                f"{store.path} and {stores[0].path} hold different utterances. Extract both from one manifest."
            )


def _check_same_audio(one: EmbeddingStore, other: EmbeddingStore) -> None:
    """Raise StoreError if two stores of a condition were made from different lists or recipes."""
    for key in ("manifest_sha256", "augment_sha256", "recipe"):
        if key in one.attributes and key in other.attributes and one.attributes[key] != other.attributes[key]:
            raise StoreError(
                f"{one.path} and {other.path} differ in {key.removesuffix('_sha256')}: they are not of the same audio."
                " Make both again from one extraction."
            )


def describe_adaptations(stores: Mapping[str, EmbeddingStore]) -> str | None:
    """Return a note if stores, by name, were enhanced by different adaptations of one model, else None."""
    adapted = {name: store.attributes.get("adaptation") for name, store in stores.items()}
    kinds = {None if each is None else each["fingerprint"] for each in adapted.values()}
    if len(kinds) < 2:
        return None
    each = [f"{name} ({record['fingerprint'] if record else 'none'})" for name, record in adapted.items()]
    return f"enhanced by different adaptations of one model, which can be compared: {', '.join(each)}"


def check_comparable(enrol: EmbeddingStore, test: EmbeddingStore) -> None:
    """Raise StoreError unless the vectors of two stores lie in one vector space.

    Different adaptations of one model map to one space, see `describe_adaptations`.
    """
    for key in ("dim", *SPACE, DENOISE, "enhanced_by_sha256", "timestep", "sampling"):
        if enrol.attributes.get(key) != test.attributes.get(key):
            alike = "with the same denoise setting" if key == DENOISE else "both raw or both enhanced by one model"
            raise StoreError(
                f"{enrol.path} and {test.path} cannot be compared: {key} is {enrol.attributes.get(key)!r} and"
                f" {test.attributes.get(key)!r}. Score stores of one encoder, {alike}."
            )
