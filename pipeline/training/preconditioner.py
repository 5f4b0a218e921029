"""Linear maps in front of the network, computed in closed form from training pairs without labels."""

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import TrainingError

Matrix = NDArray[np.float64]

SHRINKAGE = 1.0
"""Share of the mean displacement variance added to every direction, so that low-noise ones are not amplified."""
NUISANCE = 0.5
"""Share of the displacement's power in the directions that `project` removes."""
ROUNDING = 1e-12
"""Share of the embeddings' power below which their variance counts as zero."""
RIDGE = 0.1
"""Share of the mean variance that `ridge` adds to every direction."""


class Moments:
    """Running sums, in float64, from which one pass over the pairs gives a map x -> matrix (x - mean).

    With x the clean embedding, y a noisy one, d = y - x the displacement, and moments taken about the clean mean. Each
    domain counts the same in C, whatever its size and the length of its displacements:

        none      the identity
        center    subtract the clean mean
        whiten    (C + tr(C)/D I)^-1/2, C = mean of d d^T: makes the displacement equally large in all directions,
                  which shrinks those that noise affects most; of all square roots, the symmetric one rotates vectors
                  least, so the result can be interpolated with raw vectors
        project   I - U U^T, U the fewest eigenvectors of C that hold half of its trace (nuisance attribute projection;
                  Solomonoff et al., 2005)
        ridge     A (B + 0.1 tr(B)/D I)^-1, A = mean of x y^T, B = mean of y y^T, over clean inputs y = x as well:
                  the regression from noisy to clean
        wiener    S (S + C)^+, S = mean of x x^T: the same regression if the displacement were uncorrelated with x;
                  a pseudo-inverse, because an encoder that ends in a ReLU has dimensions that are always zero
    """

    def __init__(self, dim: int, kind: str) -> None:
        """Args: kind: none, center, whiten, project, ridge or wiener."""
        self.kind = kind
        self.pairs = self.shifts = 0
        self.clean = np.zeros(dim)
        self.squares: dict[int, Matrix] = {}
        """Sums of d d^T [D, D] by domain."""
        self.counts: dict[int, int] = {}
        """Numbers of displacements by domain."""
        self.shift, self.second, self.cross = np.zeros(dim), np.zeros((dim, dim)), np.zeros((dim, dim))

    def add(
        self, clean: NDArray[np.float32], noisy: NDArray[np.float32], domains: NDArray[np.int64] | None = None
    ) -> None:
        """Add clean embeddings [N, D] and noisy ones [N, K, D] of the same crops, with the number of each domain [N].

        Without numbers, they are all of one domain.
        """
        dim = clean.shape[1]
        shift = np.subtract(noisy, clean[:, None], dtype=np.float64).reshape(-1, dim)
        self.pairs, self.shifts = self.pairs + len(clean), self.shifts + len(shift)
        self.clean += clean.sum(axis=0, dtype=np.float64)
        own = np.zeros(len(clean), np.int64) if domains is None else domains
        for domain in np.unique(own).tolist():
            part = shift if (own == domain).all() else shift[np.repeat(own == domain, noisy.shape[1])]
            self.squares[domain] = self.squares.get(domain, 0.0) + part.T @ part
            self.counts[domain] = self.counts.get(domain, 0) + len(part)
        if self.kind in ("ridge", "wiener"):
            exact, moved = clean.astype(np.float64), shift.reshape(noisy.shape).sum(axis=1)
            self.second += exact.T @ exact
            self.cross += exact.T @ moved
            self.shift += moved.sum(axis=0)

    def solve(self) -> tuple[Matrix, Matrix]:
        """Return (mean [D], matrix [D, D]) of all added pairs.

        Raise TrainingError if the map needs displaced noisy embeddings or distinct clean ones, and there are none.
        """
        dim = len(self.clean)
        if self.kind == "none":
            return np.zeros(dim), np.eye(dim)
        mean = self.clean / self.pairs
        if self.kind == "center":
            return mean, np.eye(dim)
        displacement = self._average_displacement()
        if self.kind in ("whiten", "project") and not displacement.any():
            raise TrainingError(
                f"precondition {self.kind}: all noisy embeddings are equal to the clean ones. Check the store with"
                " `seed store check`, and extract it again."
            )
        if self.kind == "whiten":
            return mean, whitening_matrix(displacement)
        if self.kind == "project":
            return mean, _project(displacement)
        spread = self.second / self.pairs - np.outer(mean, mean)
        if self.kind in ("ridge", "wiener") and not np.trace(spread) > ROUNDING * np.trace(self.second / self.pairs):
            raise TrainingError(f"precondition {self.kind}: all clean embeddings are equal. Train on more utterances.")
        if self.kind == "wiener":
            inverse = np.linalg.pinv(spread + displacement, rcond=1e-10, hermitian=True)
            return mean, np.asarray(spread @ inverse, dtype=np.float64)
        # Means over noisy and clean inputs: of x y^T, and of y y^T = x x^T + x d^T + d x^T + d d^T.
        cross = (self.cross - np.outer(mean, self.shift)) / (self.pairs + self.shifts)
        joint = spread + cross
        inputs = joint + cross.T + sum(self.squares.values()) / (self.pairs + self.shifts)
        inputs += RIDGE * np.trace(inputs) / dim * np.eye(dim)
        return mean, np.asarray(np.linalg.solve(inputs.T, joint.T).T, dtype=np.float64)

    def _average_displacement(self) -> Matrix:
        """Return C [D, D]: the average over domains of those scaled to the same trace."""
        parts = [square / self.counts[domain] for domain, square in sorted(self.squares.items())]
        displaced = [(part, np.trace(part)) for part in parts if part.any()]
        if len(displaced) < 2:
            return displaced[0][0] if displaced else parts[0]
        power = np.mean([trace for _, trace in displaced])
        return np.asarray(power * np.mean([part / trace for part, trace in displaced], axis=0))


def fit_preconditioner(
    kind: str,
    clean: NDArray[np.float32],
    noisy: NDArray[np.float32],
    domains: NDArray[np.int64] | None = None,
) -> tuple[Matrix, Matrix]:
    """Return (mean [D], matrix [D, D]) for clean [N, D] and noisy embeddings [N, K, D], see `Moments`."""
    moments = Moments(clean.shape[1], kind)
    moments.add(clean, noisy, domains)
    return moments.solve()


def whitening_matrix(covariance: Matrix) -> Matrix:
    """Return (C + tr(C)/D I)^-1/2 for the covariance C of displacements [D, D]."""
    dim = len(covariance)
    values, axes = np.linalg.eigh(covariance + SHRINKAGE * np.trace(covariance) / dim * np.eye(dim))
    return np.asarray((axes / np.sqrt(values)) @ axes.T)


def displacement_of_whitening(matrix: Matrix) -> Matrix:
    """Return the covariance C of displacements that a whitening matrix was computed from.

    M^-2 = C + tr(C)/D I has the trace 2 tr(C).
    """
    shrunk = np.linalg.inv(matrix @ matrix.T)
    dim = len(matrix)
    return np.asarray(shrunk - np.trace(shrunk) * SHRINKAGE / (1 + SHRINKAGE) / dim * np.eye(dim))


def _project(covariance: Matrix) -> Matrix:
    """Return I - U U^T with U the fewest eigenvectors of C that hold half of its trace."""
    values, axes = np.linalg.eigh(covariance)
    held = np.cumsum(values[::-1])
    count = 1 + int(np.searchsorted(held, NUISANCE * held[-1]))
    nuisance = axes[:, ::-1][:, : min(count, len(values) - 1)]
    return np.asarray(np.eye(len(values)) - nuisance @ nuisance.T)
