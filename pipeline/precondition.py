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
    shift = np.subtract(noisy, clean[:, None], dtype=np.float64).reshape(-1, dim)
    return mean, _whitening(shift.T @ shift / len(shift))


class Moments:
    """The same maps from pairs that come in parts: running sums in float64, so that one pass over them will do."""

    def __init__(self, dim: int) -> None:
        self.pairs = self.shifts = 0
        self.clean, self.square = np.zeros(dim), np.zeros((dim, dim))

    def add(self, clean: NDArray[np.float32], noisy: NDArray[np.float32]) -> None:
        """Take in clean embeddings [N, D] and noisy ones [N, K, D]."""
        shift = np.subtract(noisy, clean[:, None], dtype=np.float64).reshape(-1, clean.shape[1])
        self.pairs, self.shifts = self.pairs + len(clean), self.shifts + len(shift)
        self.clean += clean.sum(axis=0, dtype=np.float64)
        self.square += shift.T @ shift

    def preconditioner(self, kind: str) -> tuple[Matrix, Matrix]:
        """Return (mean [D], matrix [D, D]), as `fit_preconditioner` does of all that was added."""
        dim = len(self.clean)
        mean = np.zeros(dim) if kind == "none" else self.clean / self.pairs
        return mean, _whitening(self.square / self.shifts) if kind == "whiten" else np.eye(dim)


def _whitening(covariance: Matrix) -> Matrix:
    """Return L^-1 with L L^T = C + 0.3 tr(C)/D I."""
    dim = len(covariance)
    covariance += SHRINKAGE * np.trace(covariance) / dim * np.eye(dim)
    return np.linalg.inv(np.linalg.cholesky(covariance))
