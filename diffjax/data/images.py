"""Real image sets, read from disk into centred points with a stated pixel convention.

Conventions (Biroli, Bonnaire, de Bortoli, Mezard 2024, arXiv 2402.18491): pixels lie in [0, 1]
(8-bit value / 255); the per-channel mean of the chosen images is subtracted, after the zero padding
if there is any; nothing is divided by a standard deviation. The largest covariance eigenvalue Λ and
with it the speciation time ½ log Λ depend on every one of these choices - [-1, 1] pixels
multiply Λ by 4, three channels instead of one by about 3 - so `ImageSet.convention` states them.

`prepare` applies the convention to arrays, and `load_images` to what it finds at a path. The
readers by format are those of `diffjax.data.image_files`; nothing is ever unpickled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from diffjax.data.image_files import (
    CIFAR10_CLASSES,
    PathLike,
    Split,
    read_array,
    read_cifar10_binary,
    read_idx,
    read_image_folder,
    read_labels,
    read_stored,
)

__all__ = [
    "CIFAR10_CLASSES",
    "ImageSet",
    "load_images",
    "prepare",
    "read_array",
    "read_cifar10_binary",
    "read_idx",
    "read_image_folder",
]

Channels = Literal["all", "first"]


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images as points of a Euclidean space, with the convention that made them so.

    Attributes:
        points: `(n, d)`, d = H W C; images flattened row by row with the channel last, minus
            `mean`. In units of the pixel range that `convention` states.
        labels: `(n,)` integers that index `class_names`, or None.
        shape: `(H, W, C)` of one image; `(1, d, 1)` for data that came as flat vectors.
        mean: `(C,)` float64, the subtracted mean of each channel.
        convention: one sentence on pixel range, channels, padding, mean and scaling.
        class_names: the name of each label, in the order asked for; empty without labels.
    """

    points: np.ndarray
    labels: np.ndarray | None
    shape: tuple[int, int, int]
    mean: np.ndarray
    convention: str
    class_names: tuple[str, ...] = ()


def load_images(
    path: PathLike,
    *,
    labels: PathLike | ArrayLike | None = None,
    classes: Sequence[int | str] | None = None,
    n: int | None = None,
    channels: Channels = "all",
    pad: int | None = None,
    dtype: DTypeLike = np.float32,
    split: Split = "train",
    mean: ArrayLike | None = None,
) -> ImageSet:
    """Read an image set by what is at `path`, and prepare it in the published convention.

    `load_images(root, classes=(1, 8), n=10_000, pad=32)` is the published MNIST set: 5000 images of
    each digit, the first in file order.

    Args:
        path: a folder with the MNIST or Fashion-MNIST IDX files (plain or `.gz`), a folder with the
            CIFAR-10 binary batches, a folder of PNG or JPEG files in one sub-folder per class (or
            in none: no labels), one IDX file, or a `.npy` or `.npz` file. An `.npz` holds
            `points`, `images`, `x` or `x_train`/`x_test`, and `labels`, `y` or
            `y_train`/`y_test`.
        labels: `(number of stored images,)`, or the `.npy`, `.npz` or IDX file with them; replaces
            the labels found at `path`.
        classes, n, channels, pad, dtype, mean: see `prepare`.
        split: "train" or "test", for formats that have both.

    Returns:
        The chosen images, in file order. Without `classes` and `n` these are all.

    Raises:
        FileNotFoundError: there is nothing at `path`, or a file of the set is missing.
        ValueError: the file is damaged, of no known format, pickled, or an argument does not fit.
        ImportError: a folder of PNG or JPEG files is read without Pillow.

    References:
        LeCun, Cortes, Burges, the MNIST database of handwritten digits; Xiao, Rasul, Vollgraf 2017
        (arXiv 1708.07747); Krizhevsky 2009, Learning multiple layers of features from tiny images;
        convention and choice of images: Biroli, Bonnaire, de Bortoli, Mezard 2024 (arXiv
        2402.18491), with MNIST padded from 28x28 to 32x32.
    """
    if split not in ("train", "test"):
        raise ValueError(f"split is {split!r}, expected 'train' or 'test'")
    _check_count(n)
    # A folder may hold far more images than are wanted; given labels count all of them, though.
    limit = n if labels is None else None
    raw = read_stored(path, split, labels is None, limit)
    if labels is not None:
        raw = raw._replace(labels=read_labels(labels), names=None)
    return prepare(
        raw.images,
        raw.labels,
        class_names=raw.names,
        classes=classes,
        n=n,
        channels=channels,
        pad=pad,
        dtype=dtype,
        mean=mean,
    )


def prepare(
    images: ArrayLike,
    labels: ArrayLike | None = None,
    *,
    class_names: Sequence[str] | None = None,
    classes: Sequence[int | str] | None = None,
    n: int | None = None,
    channels: Channels = "all",
    pad: int | None = None,
    dtype: DTypeLike = np.float32,
    mean: ArrayLike | None = None,
) -> ImageSet:
    """Choose images, pad them, scale them, subtract the channel means and flatten them.

    The value of pixel i in channel c becomes `a_i = p_i / 255 - mean_c` for 8-bit images, and
    `a_i = p_i - mean_c` for any other type, whose values are used as they are. Flat vectors that
    are not 8-bit are no images: they are used as they are, without a mean.

    Args:
        images: `(n, H, W)`, `(n, H, W, C)`, or flat vectors `(n, d)` (taken as one channel).
        labels: `(n,)`, integers or strings.
        class_names: the names that integer labels index; None names each class by its label.
        classes: names of the classes to keep, or positions in `class_names` where no class has
            that name. The labels of the result number them in this order.
        n: total number of images. With K `classes`, the first n / K of each in file order;
            otherwise the first n. None keeps all.
        channels: "all", or "first" for channel 0 only, as in the published Λ.
        pad: side length H = W to which images are zero-padded, before the mean is taken.
        dtype: floating type of the points.
        mean: `(C,)` in the units of the points, to be subtracted instead of the images' own mean:
            the `mean` of the training set, for test images.

    Returns:
        The points in the order of the input. A single image is allowed.

    Raises:
        ValueError: wrong shape, NaN or infinite values, no image, labels that do not fit, an
            unknown class, too few images, or an argument out of range.

    References:
        Biroli, Bonnaire, de Bortoli, Mezard 2024 (arXiv 2402.18491), for the convention.
    """
    pixels, flat = _as_pixels(np.asarray(images))
    index, names = _index_labels(labels, class_names, len(pixels))
    rows, index, names = _select(index, names, classes, n, len(pixels))
    pixels = _one_channel(pixels[rows], channels)
    stored = pixels.shape[1:3]
    if pad is not None:
        pixels = _zero_pad(pixels, pad, flat)
    centre = mean is not None or not flat or pixels.dtype == np.uint8
    values, subtracted = _centred(pixels, np.dtype(dtype), mean, centre)
    shape = (values.shape[1], values.shape[2], values.shape[3])
    source = "given mean" if mean is not None else "mean of these images" if centre else ""
    return ImageSet(
        points=values.reshape(len(values), -1),
        labels=index,
        shape=shape,
        mean=subtracted,
        convention=_sentence(pixels, stored, channels, source),
        class_names=names,
    )


def _as_pixels(images: np.ndarray) -> tuple[np.ndarray, bool]:
    """Images as `(n, H, W, C)`, and whether they came as flat vectors."""
    if images.dtype.kind not in "buif":
        raise ValueError(f"images has dtype {images.dtype}, expected real numbers; convert it")
    if images.ndim == 1:
        raise ValueError(
            f"images has shape {images.shape}, expected (n, d), (n, H, W) or (n, H, W, C); for "
            "one-dimensional data pass images[:, None]"
        )
    if images.ndim not in (2, 3, 4):
        raise ValueError(
            f"images has shape {images.shape}, expected (n, d), (n, H, W) or (n, H, W, C)"
        )
    if images.size == 0:
        raise ValueError(
            f"images has shape {images.shape} and so no values; pass at least one image"
        )
    if images.ndim == 2:
        return images[:, None, :, None], True
    if images.ndim == 3:
        return images[..., None], False
    if images.shape[1] in (1, 3) and images.shape[3] > 4:
        raise ValueError(
            f"images has shape {images.shape}, which looks like (n, C, H, W); put the channel last "
            "with np.moveaxis(images, 1, -1)"
        )
    return images, False


def _index_labels(
    labels: ArrayLike | None, class_names: Sequence[str] | None, n: int
) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Labels as positions in a list of class names."""
    if labels is None:
        return None, ()
    values = np.asarray(labels)
    if values.shape != (n,):
        raise ValueError(
            f"labels has shape {values.shape}, expected ({n},): one label for each of {n} images"
        )
    if values.dtype.kind == "f" and np.all(np.isfinite(values)) and np.all(values % 1 == 0):
        values = values.astype(np.int64)
    if values.dtype.kind not in "buiU":
        raise ValueError(f"labels has dtype {values.dtype}, expected integers or strings")
    if class_names is None:
        found, index = np.unique(values, return_inverse=True)
        return index.astype(np.int64), tuple(str(name) for name in found)
    wrong = [value for value in np.unique(values).tolist() if value not in range(len(class_names))]
    if wrong:
        raise ValueError(
            f"labels has the value {wrong[0]!r}, expected integers from 0 to "
            f"{len(class_names) - 1}, the positions in class_names"
        )
    return values.astype(np.int64), tuple(class_names)


def _select(
    labels: np.ndarray | None,
    names: tuple[str, ...],
    classes: Sequence[int | str] | None,
    n: int | None,
    available: int,
) -> tuple[Any, np.ndarray | None, tuple[str, ...]]:
    """Rows to keep in file order, with labels and names of these."""
    _check_count(n)
    if classes is None:
        if n is not None and n > available:
            raise ValueError(f"n is {n}, but there are {available} images; pass n <= {available}")
        rows = slice(n)
        return rows, None if labels is None else labels[rows], names
    if labels is None:
        raise ValueError(f"classes is {classes!r}, but there are no labels; pass labels")
    picks = _class_positions(classes, names)
    chosen = _first_of_each(labels, [names[pick] for pick in picks], picks, n)
    renumber = np.full(len(names), -1)
    renumber[picks] = np.arange(len(picks))
    return chosen, renumber[labels[chosen]], tuple(names[pick] for pick in picks)


def _check_count(n: Any) -> None:
    """Refuse a number of images that is no positive integer."""
    if n is not None and (not isinstance(n, int | np.integer) or n < 1):
        raise ValueError(f"n is {n!r}, expected a positive integer, the total number of images")


def _class_positions(classes: Sequence[int | str], names: Sequence[str]) -> list[int]:
    """Positions of the classes, by name first and then by number."""
    if (
        isinstance(classes, str)
        or not isinstance(classes, Sequence | np.ndarray)
        or not len(classes)
    ):
        raise ValueError(f"classes is {classes!r}, expected a sequence such as (1, 8)")
    positions = {str(position): position for position in range(len(names))}
    positions |= {name: position for position, name in enumerate(names)}
    unknown = [value for value in classes if str(value) not in positions]
    if unknown:
        raise ValueError(f"classes has {unknown[0]!r}, which is none of {', '.join(names)}")
    picks = [positions[str(value)] for value in classes]
    if len(set(picks)) != len(picks):
        raise ValueError(f"classes is {classes!r}, which names a class twice; name each once")
    return picks


def _first_of_each(
    labels: np.ndarray, names: Sequence[str], picks: Sequence[int], n: int | None
) -> np.ndarray:
    """The first n / K rows of each of K classes, sorted into file order; all of them for None."""
    rows = [np.flatnonzero(labels == pick) for pick in picks]
    if n is None:
        return np.sort(np.concatenate(rows))
    share, rest = divmod(n, len(picks))
    if rest:
        raise ValueError(
            f"n is {n}, which is not divisible by the {len(picks)} classes; pass n = "
            f"{max(share, 1) * len(picks)}"
        )
    fewest = min(range(len(picks)), key=lambda k: len(rows[k]))
    if len(rows[fewest]) < share:
        raise ValueError(
            f"n is {n}, {share} of each class, but class {names[fewest]} has "
            f"{len(rows[fewest])}; pass n <= {len(rows[fewest]) * len(picks)}"
        )
    return np.sort(np.concatenate([found[:share] for found in rows]))


def _one_channel(pixels: np.ndarray, channels: str) -> np.ndarray:
    """All channels, or channel 0."""
    if channels not in ("all", "first"):
        raise ValueError(f"channels is {channels!r}, expected 'all' or 'first'")
    return pixels[..., :1] if channels == "first" else pixels


def _zero_pad(pixels: np.ndarray, side: int, flat: bool) -> np.ndarray:
    """Images in the middle of zeros; an odd remainder goes to the bottom and the right."""
    height, width = pixels.shape[1:3]
    if flat:
        raise ValueError(
            f"pad is {side}, but the images are flat vectors; pass (n, H, W) or omit pad"
        )
    if not isinstance(side, int | np.integer) or side < max(height, width):
        raise ValueError(
            f"pad is {side!r}, expected the side length after padding, an integer of at least "
            f"{max(height, width)} for {height}x{width} images"
        )
    margins = [((side - size) // 2, (side - size + 1) // 2) for size in (height, width)]
    return np.pad(pixels, [(0, 0), *margins, (0, 0)])


def _centred(
    pixels: np.ndarray, dtype: np.dtype, mean: ArrayLike | None, centre: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Scaled values minus the mean of each channel, and that mean in float64."""
    if dtype.kind != "f":
        raise ValueError(f"dtype is {dtype}, expected a floating type such as np.float32")
    depth = pixels.shape[3]
    scale = 255 if pixels.dtype == np.uint8 else 1
    _check_finite(pixels, "remove or replace such images")
    if mean is not None:
        subtracted = np.asarray(mean, np.float64)
    elif centre:
        subtracted = pixels.mean((0, 1, 2), dtype=np.float64) / scale
    else:
        subtracted = np.zeros(depth)
    if subtracted.shape != (depth,) or not np.all(np.isfinite(subtracted)):
        raise ValueError(f"mean is {mean!r}, expected {depth} finite numbers, one per channel")
    with np.errstate(over="ignore"):  # an overflow is reported below, with its place
        values = pixels.astype(dtype, order="C")
        values /= scale
        values -= subtracted.astype(dtype)
    _check_finite(values, f"the value does not fit {dtype}; pass dtype=np.float64")
    return values, subtracted


def _check_finite(values: np.ndarray, fix: str) -> None:
    """Report the first value that is not finite."""
    if values.dtype.kind != "f":
        return
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        where = np.unravel_index(bad[0], values.shape)
        place = ", ".join(str(int(index)) for index in where)
        raise ValueError(
            f"images has {len(bad)} NaN or infinite values, the first ({values[where]}) at (image, "
            f"row, column, channel) = ({place}); {fix}"
        )


def _sentence(pixels: np.ndarray, stored: tuple[int, ...], channels: str, mean: str) -> str:
    """The convention in one sentence."""
    count, height, width, depth = pixels.shape
    parts = ["pixels in [0, 1] (8-bit value / 255)"]
    if pixels.dtype != np.uint8:
        parts = [f"values as stored (from {float(pixels.min()):.6g} to {float(pixels.max()):.6g})"]
    if stored != (height, width):
        parts.append(
            f"zero-padded from {stored[0]}x{stored[1]} to {height}x{width} before the mean"
        )
    parts.append("channel 0 only" if channels == "first" else f"all channels ({depth})")
    parts.append(f"per-channel {mean} subtracted (n = {count})" if mean else "no mean subtracted")
    return ", ".join([*parts, "not divided by the standard deviation", "flattened"])
