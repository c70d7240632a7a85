"""Real image sets, read from disk into centred points with a stated pixel convention.

Conventions (Biroli, Bonnaire, de Bortoli, Mezard 2024, arXiv 2402.18491): pixels lie in [0, 1]
(8-bit value / 255); the per-channel mean of the chosen images is subtracted, after the zero padding
if there is any; nothing is divided by a standard deviation. The largest covariance eigenvalue Λ and
with it the speciation time ½ log Λ depend on every one of these choices - [-1, 1] pixels
multiply Λ by 4, three channels instead of one by about 3 - so `ImageSet.convention` states them.

Nothing is ever unpickled, because unpickling a downloaded file runs the code inside it.

Readers by format, each of which returns the stored values: `read_idx` (MNIST, Fashion-MNIST),
`read_cifar10_binary`, `read_array` (`.npy`, `.npz`), `read_image_folder` (PNG and JPEG).
`prepare` applies the convention, and `load_images` does both, by what it finds at a path.
"""

from __future__ import annotations

import gzip
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

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

PathLike = str | os.PathLike[str]
Split = Literal["train", "test"]
Channels = Literal["all", "first"]

CIFAR10_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"
)  # fmt: skip

_IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_IDX_PREFIX = {"train": "train", "test": "t10k"}
_CIFAR_SHAPE = (3, 32, 32)  # one record: a label byte, then the red, green and blue planes
_NPZ_IMAGES = {"train": ("points", "images", "x_train", "x"), "test": ("x_test",)}
_NPZ_LABELS = {"train": ("labels", "y_train", "y"), "test": ("y_test",)}
_IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg"}
_GREY_MODES = {"1", "L", "LA"}
_COLOUR_MODES = {"RGB", "RGBA", "P", "PA", "CMYK", "YCbCr"}


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


class _Raw(NamedTuple):
    """What a reader found: stored values, labels, and names where the labels index names."""

    images: np.ndarray
    labels: np.ndarray | None
    names: tuple[str, ...] | None


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
    if split not in _IDX_PREFIX:
        raise ValueError(f"split is {split!r}, expected 'train' or 'test'")
    _check_count(n)
    # A folder may hold far more images than are wanted; given labels count all of them, though.
    limit = n if labels is None else None
    raw = _read(_existing(path), split, labels is None, limit)
    if labels is not None:
        raw = _Raw(raw.images, _given_labels(labels), None)
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


def read_idx(path: PathLike) -> np.ndarray:
    """Read one IDX file, the format of MNIST; gzip is recognised by content, not by name.

    Args:
        path: the file.

    Returns:
        The stored array, in the stored type (uint8 for images and labels) and native byte order.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not an IDX file, a damaged gzip stream, or more or fewer bytes than the header
            announces.

    References:
        LeCun, Cortes, Burges, the MNIST database of handwritten digits (file format section).
    """
    file = _existing(path)
    data = _decompressed(file)
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in _IDX_TYPES or data[3] == 0:
        raise ValueError(
            f"{file} starts with the bytes '{data[:4].hex(' ')}', expected '00 00', a type byte "
            "(08 for 8-bit) and the number of axes; this is not an IDX file"
        )
    dtype, rank, start = np.dtype(_IDX_TYPES[data[2]]), data[3], 4 + 4 * data[3]
    _check_size(file, data, start, "a header of", exact=False)
    shape = struct.unpack(f">{rank}I", data[4:start])
    _check_size(file, data, start + math.prod(shape) * dtype.itemsize, f"shape {shape} in")
    values = np.frombuffer(data, dtype, offset=start) if math.prod(shape) else np.empty(0, dtype)
    return values.reshape(shape).astype(dtype.newbyteorder("="))


def read_cifar10_binary(path: PathLike, split: Split = "train") -> tuple[np.ndarray, np.ndarray]:
    """Read the binary version of CIFAR-10.

    Args:
        path: folder with `data_batch_1.bin`, `data_batch_2.bin`, ... and `test_batch.bin`; the
            training batches are read in this order, as many as there are.
        split: "train" or "test".

    Returns:
        Images `(n, 32, 32, 3)` and labels `(n,)` in 0..9 (see `CIFAR10_CLASSES`), both uint8.

    Raises:
        FileNotFoundError: a batch is missing.
        ValueError: a batch is damaged, or only the pickled Python version is there.

    References:
        Krizhevsky 2009, Learning multiple layers of features from tiny images.
    """
    folder = _existing(path)
    files = _cifar_files(folder, split)
    batches = [_read_cifar_batch(file) for file in files]
    records = np.concatenate(batches)
    images = records[:, 1:].reshape(-1, *_CIFAR_SHAPE).transpose(0, 2, 3, 1)
    return images, records[:, 0]


def read_array(path: PathLike, names: Sequence[str] = ()) -> np.ndarray:
    """Read an array from an `.npy` or `.npz` file, never unpickling.

    Args:
        path: the file.
        names: for `.npz`, the entries to look for, in this order; an only entry needs no name.

    Returns:
        The stored array, in the stored type.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: an object array or another pickle, a damaged file, or no entry of these names.
    """
    file = _existing(path)
    with file.open("rb") as stream:  # numpy leaves a damaged archive open
        with _never_unpickled(file):
            loaded = np.load(stream, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        entry = _entry(file, loaded.files, names)
        with _never_unpickled(file):
            return loaded[entry]


def read_image_folder(
    path: PathLike, limit: int | None = None
) -> tuple[np.ndarray, np.ndarray | None, tuple[str, ...] | None]:
    """Read a folder of PNG and JPEG files, one sub-folder per class.

    Files are taken in the order of their names, class by class; other files are passed over. If all
    images are grey there is one channel, otherwise three; transparency is dropped.

    Args:
        path: the folder; if the images lie directly in it there are no labels.
        limit: at most this many images of each class.

    Returns:
        Images `(n, H, W, C)` uint8, labels `(n,)` and class names (sub-folders, sorted), the
        latter two None without sub-folders.

    Raises:
        FileNotFoundError: there is no such folder.
        ImportError: Pillow is not installed.
        ValueError: no images, an empty class, images of different sizes, more than 8 bits per
            channel, or a file that cannot be read.
    """
    folder = _existing(path)
    files, names = _image_files(folder)
    kept = [group[:limit] for group in files]
    images = _decode([file for group in kept for file in group])
    if names is None:
        return images, None, None
    return images, np.repeat(np.arange(len(kept)), [len(group) for group in kept]), names


# Reading ------------------------------------------------------------------------------------------


def _existing(path: PathLike) -> Path:
    """The path, if there is something."""
    found = Path(path).expanduser()
    if not found.exists():
        raise FileNotFoundError(f"there is no file or folder {found}; check the path")
    return found


def _read(path: Path, split: Split, with_labels: bool, limit: int | None) -> _Raw:
    """Dispatch by what is on disk."""
    if path.is_dir():
        return _read_folder(path, split, with_labels, limit)
    if zipfile.is_zipfile(path):
        return _read_npz(path, split, with_labels)
    if split != "train":
        raise ValueError(f"split is {split!r}, but {path} is one file without splits; omit split")
    if path.suffix in {".npy", ".npz"}:
        return _Raw(read_array(path), None, None)
    if "idx" in path.name:
        return _Raw(read_idx(path), None, None)
    raise ValueError(
        f"{path} is of no known format; expected an .npy, .npz or IDX file, or a folder with IDX "
        "files, CIFAR-10 binary batches, or one sub-folder of PNG or JPEG files per class"
    )


def _read_folder(path: Path, split: Split, with_labels: bool, limit: int | None) -> _Raw:
    """Dispatch by what is in the folder."""
    if any(path.glob("*idx[0-9]-ubyte*")):
        images = read_idx(_idx_file(path, split, "images", 3))
        labels = read_idx(_idx_file(path, split, "labels", 1)) if with_labels else None
        return _Raw(images, labels, None)
    if any(path.glob("*_batch*.bin")) or (path / "data_batch_1").exists():
        return _Raw(*read_cifar10_binary(path, split), CIFAR10_CLASSES)
    if split != "train":
        raise ValueError(
            f"split is {split!r}, but the image folder {path} has no splits; pass the folder that "
            "holds the class folders of that split"
        )
    return _Raw(*read_image_folder(path, limit))


def _read_npz(path: Path, split: Split, with_labels: bool) -> _Raw:
    """Images and, where there is an entry for them, labels."""
    with np.load(path, allow_pickle=False) as archive:
        found = set(archive.files)
    if split == "test" and "x_test" not in found:
        raise ValueError(f"{path} has the entries {sorted(found)}, but no x_test; omit split")
    labelled = with_labels and not found.isdisjoint(_NPZ_LABELS[split])
    images = read_array(path, _NPZ_IMAGES[split])
    return _Raw(images, read_array(path, _NPZ_LABELS[split]) if labelled else None, None)


def _given_labels(source: Any) -> np.ndarray:
    """Labels from the user: an array, or a file of any of the array formats."""
    if not isinstance(source, str | os.PathLike):
        return np.asarray(source)
    path = _existing(source)
    if path.suffix in {".npy", ".npz"}:
        return read_array(path, _NPZ_LABELS["train"])
    return read_idx(path)


def _idx_file(folder: Path, split: Split, kind: str, rank: int) -> Path:
    """The file of one split, under either of its two customary names, plain or gzip."""
    stem = f"{_IDX_PREFIX[split]}-{kind}"
    names = [f"{stem}{dash}idx{rank}-ubyte{gz}" for gz in ("", ".gz") for dash in "-."]
    for name in names:
        if (folder / name).exists():
            return folder / name
    fix = "; or pass labels=" if kind == "labels" else ""
    raise FileNotFoundError(f"{folder} has no file {names[0]} (or {names[0]}.gz); add it{fix}")


def _check_size(file: Path, data: bytes, expected: int, what: str, exact: bool = True) -> None:
    """Refuse a file that is cut off, or longer than its header says."""
    if len(data) < expected or (exact and len(data) != expected):
        raise ValueError(
            f"{file} is damaged: expected {what} {expected} bytes, found {len(data)} bytes; "
            "download it again"
        )


def _decompressed(file: Path) -> bytes:
    """The bytes of a file, plain or gzip."""
    data = file.read_bytes()
    if data[:2] != b"\x1f\x8b":
        return data
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(
            f"{file} is a damaged gzip file ({error}; {len(data)} compressed bytes); download it "
            "again"
        ) from error


def _cifar_files(folder: Path, split: Split) -> list[Path]:
    """The binary batches of one split, without a gap in their numbers."""
    if split == "test":
        files = [folder / "test_batch.bin"]
    else:
        count = max(len(list(folder.glob("data_batch_*.bin"))), 1)
        files = [folder / f"data_batch_{number}.bin" for number in range(1, count + 1)]
    missing = [file for file in files if not file.exists()]
    if missing and missing[0].with_suffix("").exists():
        raise ValueError(
            f"{missing[0].with_suffix('')} is the pickled Python version of CIFAR-10, which is "
            "not read because unpickling runs code; use the binary version "
            "(cifar-10-binary.tar.gz, with data_batch_1.bin)"
        )
    if missing:
        raise FileNotFoundError(f"{missing[0]} is missing; add it from cifar-10-binary.tar.gz")
    return files


def _read_cifar_batch(file: Path) -> np.ndarray:
    """Records `(n, 3073)` of one batch."""
    size = 1 + math.prod(_CIFAR_SHAPE)
    data = np.fromfile(file, np.uint8)
    if len(data) == 0 or len(data) % size:
        expected = max(math.ceil(len(data) / size), 1) * size
        raise ValueError(
            f"{file} is damaged: expected {expected} bytes ({expected // size} records of {size}), "
            f"found {len(data)}; download it again"
        )
    records = data.reshape(-1, size)
    if records[:, 0].max() >= len(CIFAR10_CLASSES):
        raise ValueError(
            f"{file} has the label {records[:, 0].max()}, expected 0 to 9; not CIFAR-10"
        )
    return records


@contextmanager
def _never_unpickled(file: Path) -> Iterator[None]:
    """Turn numpy's refusals into errors that name the file and what to do."""
    try:
        yield
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        if "allow_pickle" in str(error):
            raise ValueError(
                f"{file} holds an object array (dtype=object) or another pickle, which is not "
                "read because unpickling runs code; save numbers of one type and shape, "
                "np.save(path, np.stack(images).astype(np.float32))"
            ) from error
        raise ValueError(f"{file} is damaged ({error}); save it again with np.save") from error


def _entry(file: Path, found: Sequence[str], names: Sequence[str]) -> str:
    """The entry of an archive to read."""
    for name in names:
        if name in found:
            return name
    if len(found) == 1:
        return found[0]
    raise ValueError(f"{file} has the entries {list(found)}, expected one named {list(names)}")


def _image_files(folder: Path) -> tuple[list[list[Path]], tuple[str, ...] | None]:
    """Image files by class, and the class names; one nameless group without sub-folders."""
    loose = _images_in(folder)
    classes = sorted(
        child for child in folder.iterdir() if child.is_dir() and not child.name.startswith(".")
    )
    if loose and classes:
        raise ValueError(
            f"{folder} has images ({loose[0].name}) beside the class folder {classes[0].name}; "
            "move each image into the folder of its class"
        )
    if loose:
        return [loose], None
    groups = [_images_in(child) for child in classes]
    empty = [child for child, group in zip(classes, groups) if not group]
    if empty or not groups:
        raise ValueError(
            f"{empty[0] if empty else folder} has no PNG or JPEG files; expected a folder with one "
            "sub-folder of images per class"
        )
    return groups, tuple(child.name for child in classes)


def _images_in(folder: Path) -> list[Path]:
    """PNG and JPEG files of a folder in the order of their names."""
    return sorted(
        file
        for file in folder.iterdir()
        if file.suffix.lower() in _IMAGE_SUFFIXES and not file.name.startswith(".")
    )


def _decode(files: Sequence[Path]) -> np.ndarray:
    """Images `(n, H, W, C)` of one common size, with one channel if all are grey."""
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError(
            "PNG and JPEG files are read with Pillow; install it with pip install 'diffjax[images]'"
        ) from error
    decoded = [_decode_one(Image, file) for file in files]
    for file, image in zip(files, decoded):
        if image.shape[:2] != decoded[0].shape[:2]:
            (height, width), (h, w) = decoded[0].shape[:2], image.shape[:2]
            raise ValueError(
                f"{files[0]} has {height}x{width} pixels, but {file} has {h}x{w}; crop or resize "
                "all images to one size"
            )
    depth = max(image.shape[2] for image in decoded)
    return np.stack([np.broadcast_to(image, (*image.shape[:2], depth)) for image in decoded])


def _decode_one(pillow: Any, file: Path) -> np.ndarray:
    """One image `(H, W, 1)` or `(H, W, 3)`, 8-bit."""
    try:
        with pillow.open(file, formats=("PNG", "JPEG")) as image:
            mode = image.mode
            if mode in _GREY_MODES:
                return np.asarray(image.convert("L"))[:, :, None]
            if mode in _COLOUR_MODES:
                return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError) as error:  # Pillow raises SyntaxError for a broken PNG chunk
        raise ValueError(f"{file} cannot be decoded ({error}); remove or replace it") from error
    # Pillow would clip 16-bit values at 255 without a word.
    raise ValueError(f"{file} has mode {mode!r}; convert it to 8 bits per channel")


# Preparing ----------------------------------------------------------------------------------------


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
