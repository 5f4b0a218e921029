"""What length vectors have on their way through a model, and where they end, in words for whoever is given its file."""

from collections.abc import Mapping

from pipeline.train_settings import Train

_MAPS: Mapping[str, str] = {
    "none": "taken as they are",
    "center": "less a mean vector",
    "whiten": "less a mean vector, and multiplied by a matrix in which noise is about equally large in all directions",
    "project": "less a mean vector, and without the directions in which noise moves them most",
    "ridge": "less a mean vector, and multiplied by the matrix of a regression from noisy to clean vectors",
    "wiener": "less a mean vector, and multiplied by the matrix of a Wiener filter from noisy to clean vectors",
}
"""What `train.network.precondition` does to vectors."""


def scale_policy(dim: int, settings: Train) -> dict[str, str]:
    """Return what `input`, `network` and `output` of a model are, a sentence each."""
    trained = " (in training they kept their length)" if settings.scale == "sampling" else ""
    return {
        "input": "vectors as the encoder gives them, at the length that it gives them: neither normalised, scaled nor"
        " centred by the caller.",
        "network": f"vectors are {_MAPS[settings.network.precondition]}, then scaled to L2 norm sqrt({dim}) ="
        f" {dim**0.5:.4f}{trained}.",
        "output": "with strength 0 the raw vectors; with strength 1 the network's output, of L2 norm about"
        f" sqrt({dim}), in the space of that map; in between, a point on the great circle from the raw to the network's"
        " direction, at the raw vector's length. Compare enhanced vectors by cosine with vectors enhanced by the same"
        " model at the same strength, never with raw ones.",
    }
