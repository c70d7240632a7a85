"""Nearest-neighbour audit of generated images: each sample over its nearest training image.

No number tells a copy from a near miss; the eye does. The distance stands below each pair, together
with the ratio to the second nearest distance, and pairs below the threshold of memorisation are
marked by a word and a frame, not by colour alone.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from diffjax.observables.memorisation import nearest_distances
from experiments.style import RED

ORDERS = ("closest", "spread", "given")


class Audit(NamedTuple):
    """Samples and their nearest training points.

    Attributes:
        index: of the sample in the set it came from, ``(K,)``.
        samples: ``(K, d)``.
        nearest: training points, ``(K, d)``.
        nearest_index: of these in the training set, ``(K,)``.
        distance: Euclidean, ``(K,)``.
        ratio: nearest over second nearest distance, ``(K,)``; 0 for an equal point, NaN where
            the training set has one point only.
    """

    index: np.ndarray
    samples: np.ndarray
    nearest: np.ndarray
    nearest_index: np.ndarray
    distance: np.ndarray
    ratio: np.ndarray


def audit(samples: Any, train: Any, *, shown: int = 16, order: str = "closest") -> Audit:
    """Choose samples and find their nearest training points.

    Args:
        samples: generated images, flat, ``(M, d)``.
        train: the training set, flat, ``(n, d)``.
        shown: how many samples; all if there are fewer.
        order: "closest" takes those nearest to the training set, the worst case; "spread" takes
            evenly spaced ranks of the distance, a fair picture; "given" takes the first ones.

    Raises:
        ValueError: for an unknown order, fewer than one sample, or sets that do not fit.
    """
    if order not in ORDERS:
        raise ValueError(f"order is {order!r}, expected one of {', '.join(ORDERS)}")
    if shown < 1:
        raise ValueError(f"shown is {shown}, expected at least 1")
    samples, train = np.asarray(samples), np.asarray(train)
    distances, indices = (np.asarray(v) for v in nearest_distances(samples, train))
    rank = np.argsort(distances[:, 0], kind="stable")
    shown = min(shown, len(samples))
    ranks = np.linspace(0, len(samples) - 1, shown).round().astype(int)
    index = {"closest": rank[:shown], "spread": rank[ranks], "given": np.arange(shown)}[order]
    first, second = distances[index].T
    safe = np.where(first > 0, second, 1)
    ratio = np.where(np.isfinite(second), np.where(first > 0, first / safe, 0), np.nan)
    near = indices[index, 0]
    return Audit(index, samples[index], train[near], near, first, ratio)


def draw(
    found: Audit,
    shape: tuple[int, ...],
    *,
    memorised_below: float | None = None,
    mean: Any = 0.0,
    limits: tuple[float, float] | None = None,
    columns: int = 8,
    figure: Any = None,
) -> Any:
    """Draw the pairs of an audit, sample above nearest training image.

    Args:
        found: from `audit`.
        shape: of an image, ``(height, width)``, or with one or three channels last.
        memorised_below: distance up to which a pair is marked as a copy; none by default.
        mean: what was subtracted from the images, a number or flat ``(d,)``.
        limits: pixel values of black and white; those of the nearest images by default. Samples
            beyond are clipped.
        columns: pairs side by side.
        figure: a matplotlib figure or subfigure; a new figure by default.

    Returns:
        The figure.

    Raises:
        ValueError: if the shape does not fit the images.
    """
    import matplotlib.pyplot as plt

    samples, nearest = (
        _images(v + np.asarray(mean), shape) for v in (found.samples, found.nearest)
    )
    low, high = (nearest.min(), nearest.max()) if limits is None else limits
    columns = min(columns, len(samples))
    rows = -(-len(samples) // columns)
    if figure is None:
        figure = plt.figure(figsize=(1.25 * columns + 0.6, 3.1 * rows), layout="constrained")
    axes = figure.subplots(2 * rows, columns, squeeze=False)
    for axis in axes.flat[2 * columns * (rows - 1) :]:
        axis.set_visible(False)  # until an image is drawn
    for k, (sample, near) in enumerate(zip(samples, nearest)):
        row, column = divmod(k, columns)
        pair = axes[2 * row : 2 * row + 2, column]
        copied = memorised_below is not None and found.distance[k] <= memorised_below
        for axis, image in zip(pair, (sample, near)):
            _tile(axis, (image - low) / max(high - low, np.finfo(float).tiny), copied)
        pair[1].set_xlabel(_label(found.distance[k], found.ratio[k], copied), fontsize=8)
    for k, axis in enumerate(axes[:, 0]):
        axis.set_ylabel("nearest" if k % 2 else "sample", fontsize=8)
    return figure


def _images(flat: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Images ``(K, height, width, channels)``."""
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] not in (1, 3)):
        raise ValueError(f"shape is {shape}, expected (height, width) with 1 or 3 channels last")
    if int(np.prod(shape)) != flat.shape[1]:
        raise ValueError(
            f"shape {shape} has {int(np.prod(shape))} pixels, but the images have {flat.shape[1]}"
        )
    return flat.reshape(len(flat), *shape[:2], -1)


def _tile(axis: Any, image: np.ndarray, copied: bool) -> None:
    image = np.clip(image, 0, 1)
    axis.imshow(
        image[..., 0] if image.shape[-1] == 1 else image,
        cmap="gray", vmin=0, vmax=1, interpolation="nearest",
    )  # fmt: skip
    axis.set(visible=True, xticks=[], yticks=[])
    for spine in axis.spines.values():
        spine.set(visible=copied, color=RED, linewidth=2.5)


def _label(distance: float, ratio: float, copied: bool) -> str:
    lines = [f"d = {distance:.3g}"]
    if np.isfinite(ratio):
        lines.append(f"ratio {ratio:.2f}")
    return "\n".join([*lines, "copy"] if copied else lines)
