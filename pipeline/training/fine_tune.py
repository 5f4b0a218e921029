"""Training that begins with an existing model."""

from typing import Any

from pipeline.config.train import WATCHING, Train
from pipeline.errors import ConfigError
from pipeline.model.model_file import check_encoder, load_model
from pipeline.model.seed_model import SeedModel
from pipeline.store.embedding_store import EmbeddingStore
from pipeline.utils.paths import Place

FREE = {
    *WATCHING,
    "loss",
    "contrast",
    "temperature",
    "strength",
    "folds",
    "noisy_views",
    "target",
    "swap",
    "batch_size",
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
"""Parameters of training that may be others than the model's; of `network`, dropout may be, too."""


def load_initial_model(model: SeedModel, path: Place, store: EmbeddingStore) -> str:
    """Give a new model the weights and the preconditioner of a file, and return the file's SHA-256.

    Args:
        model: which is to be trained on `store`.
        path: of the existing model.
        store: embeddings [N, draws, views, D].

    Raises:
        ConfigError: the settings of the new model make it another network, or let it see other inputs.
        StoreError: the embeddings are not of the encoder that the existing model was trained on.
        WeightsError: the file is missing, damaged, or no SEED model.
    """
    loaded = load_model(path)
    check_encoder(loaded, store.attributes, path, store.path)
    wanted, given = _fixed(model.settings), _fixed(loaded.model.settings)
    for name, value in given.items():
        if wanted[name] != value:
            raise ConfigError(
                f"train.{name} is {wanted[name]}, but {path} was trained with {value}. Set it to {value}, or train"
                " without --init."
            )
    model.load_state_dict(loaded.model.state_dict())
    return loaded.sha256


def _fixed(settings: Train) -> dict[str, Any]:
    """Return what must be as it was, by dotted names."""
    content = settings.model_dump(mode="json", exclude=FREE)
    network = {f"network.{name}": value for name, value in content.pop("network").items() if name != "dropout"}
    return network | content
