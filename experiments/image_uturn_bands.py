"""Principal components of a set of images, in bands from coarse to fine."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

KEPT = 1e-5  # components of less variance than this part of the largest are left out


@dataclass(frozen=True)
class Basis:
    """Principal components of the images of the score.

    Attributes:
        mean: ``(d,)``.
        vectors: ``(d, r)``, descending in variance.
        variances: ``(r,)``, with denominator n: those of the empirical measure.
        band: ``(r,)`` number of the band of every component, from coarse to fine.
    """

    mean: np.ndarray
    vectors: np.ndarray
    variances: np.ndarray
    band: np.ndarray

    def names(self) -> list[str]:
        """Ranges of components of the bands."""
        last = np.cumsum(np.bincount(self.band))
        first = np.concatenate([[1], last[:-1] + 1])
        return [f"components {i}-{j}" for i, j in zip(first, last)]


def basis(images: np.ndarray, shares: tuple[float, ...]) -> Basis:
    """Components of a set of images, in bands that hold the given shares of its variance."""
    if any(np.diff((0.0, *shares, 1.0)) <= 0):
        raise ValueError(f"shares must increase between 0 and 1, got {shares}")
    wide = images.astype(np.float64)
    mean = wide.mean(0)
    values, vectors = np.linalg.eigh((wide - mean).T @ (wide - mean) / len(wide))
    values, vectors = values[::-1], vectors[:, ::-1]
    kept = values > KEPT * values[0]
    values, vectors = values[kept], vectors[:, kept]
    below = np.cumsum(values) - values  # variance of the components before
    band = np.searchsorted(np.asarray(shares) * values.sum(), below, side="right")
    if len(np.unique(band)) != len(shares) + 1:
        raise ValueError(f"a band between the shares {shares} has no component; take fewer shares")
    return Basis(mean, vectors, values, band)


def unrelated_overlap(found: Basis, images: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Mean overlap of two unrelated images of different classes, per band, ``(bands,)``."""
    member = np.eye(classes.max() + 1)[classes] / len(classes)
    centred = (images - found.mean) @ found.vectors
    # the mean over all pairs is zero, so that pairs of one class decide
    same = np.sum((member.T @ centred) ** 2, axis=0)
    return -in_bands(found, same) / (1 - np.sum(member.sum(0) ** 2))


def in_bands(found: Basis, values: np.ndarray) -> np.ndarray:
    """Sums over the components of every band, over its variance, ``(..., bands)``."""
    member = np.eye(found.band.max() + 1)[found.band]
    return values @ member / (found.variances @ member)
