"""Training that starts from an existing model."""

from typing import Any

from pipeline.config.train import WATCHING, Train
from pipeline.errors import ConfigError
from pipeline.model.model_file import check_encoder, load_model
from pipeline.model.seed_model import SeedModel
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.utils.paths import Place

CHANGEABLE = {
    *WATCHING,
    "loss",
    "contrast",
    "temperature",
    "strength",
    "folds",
    "noisy_views",
    "target",
    "swap",
    "noise_per",
    "batch_size",
    "drop_last",
    "epoch_crops",
    "learning_rate",
    "weight_decay",
    "clip",
    "warmup",
    "schedule",
    "ema",
    "max_epochs",
    "patience",
    "validation",
    "memory",
    "threads",
    "device",
}
"""Parameters of training that may differ from the model's; so may `network.dropout`."""


def load_initial_model(model: SeedModel, path: Place, store: EmbeddingStore) -> str:
    """Copy the weights and the preconditioner of a model file into a new model, and return the file's SHA-256.

    Raises:
        ConfigError: the settings of the new model give it another network or other inputs.
        StoreError: the existing model was trained on another encoder.
        WeightsError: the file is missing, damaged, or not a SEED model.
    """
    loaded = load_model(path)
    check_encoder(loaded, store.attributes, path, store.path)
    if loaded.model.only_timestep is not None:
        raise ConfigError(f"{path}: is a compact model, which cannot be trained further. Adapt it (`seed adapt`).")
    wanted, given = _fixed_settings(model.settings), _fixed_settings(loaded.model.settings)
    for name, value in given.items():
        if wanted[name] != value:
            remedy = f"Set it to {value}, or train without --init."
            raise ConfigError(f"train.{name} is {wanted[name]}, but {path} was trained with {value}. {remedy}")
    model.load_state_dict(loaded.model.state_dict())
    return loaded.sha256


def _fixed_settings(settings: Train) -> dict[str, Any]:
    """Return the settings that must not change, by dotted names."""
    content = settings.model_dump(mode="json", exclude=CHANGEABLE)
    network = {f"network.{name}": value for name, value in content.pop("network").items() if name != "dropout"}
    return network | content
