"""Data sets by name or by file: embedded digits, image folders, the user's arrays, mixtures."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diffjax.data.images import ImageSet, load_images, prepare, read_array

IMAGE_SETS = {"mnist": "mnist", "fashion-mnist": "fashion_mnist"}
IDX_FILES = ("train-images-idx3-ubyte", "train-images-idx3-ubyte.gz")


@dataclass(frozen=True)
class DataSet:
    """Points with what is known of them.

    Attributes:
        name: for titles.
        points: ``(n, d)``.
        labels: ``(n,)`` positions in ``class_names``, or None.
        class_names: names of the classes.
        convention: pixel or channel convention on which Lambda depends, one sentence.
        mean_norm: norm of the centres of a balanced mixture ``+-m``; None for other data.
        variance: variance per coordinate within the classes of that mixture.
    """

    name: str
    points: np.ndarray
    labels: np.ndarray | None
    class_names: tuple[str, ...]
    convention: str
    mean_norm: float | None = None
    variance: float | None = None


def digits(classes: tuple[str, ...] | None, n: int | None, dtype: str) -> DataSet:
    """The 8 x 8 digits that come with scikit-learn, pixels scaled to [0, 1]."""
    from sklearn.datasets import load_digits

    raw = load_digits()
    chosen = class_names(classes or ("0", "1"))
    if n is None:
        n = len(chosen) * min(int(np.sum(raw.target == int(c))) for c in chosen)
    images = prepare(raw.images / 16, raw.target, classes=chosen, n=n, dtype=np.dtype(dtype))
    return _from_images("digits " + "/".join(images.class_names), images)


def image_files(
    name: str, root: str | None, classes: tuple[str, ...] | None, n: int | None, pad: int | None,
    channels: str, dtype: str,
) -> DataSet:  # fmt: skip
    """MNIST, Fashion-MNIST, CIFAR-10 or a folder of images on disk."""
    folder = image_folder(name, root)
    images = load_images(
        folder,
        classes=None if classes is None else class_names(classes),
        n=n,
        pad=pad,
        channels=channels,
        dtype=np.dtype(dtype),
    )
    title = name if classes is None else f"{name} {'/'.join(images.class_names)}"
    return _from_images(title, images)


def image_folder(name: str, root: str | None) -> Path:
    """The folder with the files: ``root`` itself, or the subfolder of it with the set's name."""
    if root is None:
        raise ValueError(f"--data {name} reads files from disk: pass --root DIR")
    base = Path(root)
    for folder in (base, base / name, base / IMAGE_SETS.get(name, name)):
        if name not in IMAGE_SETS or any((folder / file).exists() for file in IDX_FILES):
            return folder
    raise FileNotFoundError(
        f"no {IDX_FILES[0]}[.gz] under {root} or its subfolder {IMAGE_SETS.get(name, name)}"
    )


def arrays(
    path: str, labels: str | None, classes: tuple[str, ...] | None, n: int | None, dtype: str
) -> DataSet:
    """The user's own ``.npy`` or ``.npz``; images or flat vectors, with optional labels."""
    if not os.path.exists(path):
        raise FileNotFoundError(
            f"--data {path}: no such file; give a .npy/.npz file, or one of digits, mnist, "
            "fashion-mnist, cifar10, mixture"
        )
    if np.ndim(read_array(path)) == 1:
        raise ValueError(f"{path} holds a 1-D array; for one-dimensional data save x[:, None]")
    images = load_images(
        path,
        labels=labels,
        classes=None if classes is None else class_names(classes),
        n=n,
        dtype=np.dtype(dtype),
    )
    return _from_images(Path(path).name, images)


def mixture(dim: int, n: int, mean: float, variance: float, seed: int, dtype: str) -> DataSet:
    """``n`` points of the balanced mixture ``N(+-m, variance I)`` with every ``m_i = mean``."""
    if n < 2 or dim < 1 or variance < 0:
        raise ValueError(f"need n >= 2, dim >= 1, variance >= 0; got {n}, {dim}, {variance}")
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    signs = 1.0 - 2.0 * labels
    noise = rng.standard_normal((n, dim), dtype=np.float32)
    points = signs[:, None] * mean + np.sqrt(variance) * noise
    return DataSet(
        f"mixture d={dim}",
        points.astype(dtype),
        labels,
        ("+", "-"),
        f"synthetic: centres +-{mean} in every coordinate, variance {variance} per coordinate",
        mean_norm=abs(mean) * float(np.sqrt(dim)),
        variance=variance,
    )


def class_names(classes: tuple[str, ...]) -> tuple:
    """Class names as given; digits as integers, so that they match by value too."""
    return tuple(int(c) if str(c).lstrip("-").isdigit() else c for c in classes)


def _from_images(name: str, images: ImageSet) -> DataSet:
    names = tuple(str(c) for c in images.class_names)
    return DataSet(name, images.points, images.labels, names, images.convention)
