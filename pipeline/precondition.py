"""Linear maps in front of the network, in closed form from the training pairs."""

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]

SHRINKAGE = 0.3
"""Share of the mean displacement variance added to every direction, so that quiet directions are not blown up."""


def fit_preconditioner(kind: str, clean: NDArray[np.float32], noisy: NDArray[np.float32]) -> tuple[Matrix, Matrix]:
    """Return (mean [D], matrix [D, D]) of x -> matrix (x - mean).

    `none` is the identity; `center` takes the clean mean off; `whiten` also makes the displacement by noise equally
    large in all directions: matrix = L^-1 with L L^T = C + 0.3 tr(C)/D I, C = mean of (y - x0)(y - x0)^T. Directions in
    which noise moves vectors far are shrunk against those it leaves alone. No labels are needed.

    Args:
        kind: none, center or whiten.
        clean: embeddings [N, D].
        noisy: embeddings [N, K, D] of the same crops under K corruptions.
    """
    dim = clean.shape[1]
    if kind == "none":
        return np.zeros(dim), np.eye(dim)
    mean = clean.mean(axis=0, dtype=np.float64)
    if kind == "center":
        return mean, np.eye(dim)
    shift = (noisy.astype(np.float64) - clean[:, None]).reshape(-1, dim)
    covariance = shift.T @ shift / len(shift)
    covariance += SHRINKAGE * np.trace(covariance) / dim * np.eye(dim)
    return mean, np.linalg.inv(np.linalg.cholesky(covariance))
