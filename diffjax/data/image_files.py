"""Readers of image sets on disk, by format; each returns the stored values.

`read_idx` (MNIST, Fashion-MNIST), `read_cifar10_binary`, `read_array` (`.npy`, `.npz`) and
`read_image_folder` (PNG and JPEG); `read_stored` chooses by what it finds at a path.
`diffjax.data.images` applies the pixel convention to what they return.

Nothing is ever unpickled, because unpickling a downloaded file runs the code inside it.
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
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

__all__ = [
    "CIFAR10_CLASSES",
    "PathLike",
    "Split",
    "StoredImages",
    "read_array",
    "read_cifar10_binary",
    "read_idx",
    "read_image_folder",
    "read_labels",
    "read_stored",
]

PathLike = str | os.PathLike[str]
Split = Literal["train", "test"]

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


class StoredImages(NamedTuple):
    """What a reader found: stored values, labels, and names where the labels index names."""

    images: np.ndarray
    labels: np.ndarray | None
    names: tuple[str, ...] | None


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


def _existing(path: PathLike) -> Path:
    """The path, if there is something."""
    found = Path(path).expanduser()
    if not found.exists():
        raise FileNotFoundError(f"there is no file or folder {found}; check the path")
    return found


def read_stored(
    source: PathLike, split: Split, with_labels: bool, limit: int | None
) -> StoredImages:
    """Images, and labels if asked for, in the format that is found on disk.

    Args:
        source: a file or a folder of any of the formats.
        split: "train" or "test".
        with_labels: whether to look for labels as well (folders of images have them in any case).
        limit: at most this many images of each class, for a folder of images.

    Raises:
        FileNotFoundError: there is nothing at `source`, or a file of the set is missing.
        ValueError: the file is damaged, of no known format, or has no such split.
    """
    path = _existing(source)
    if path.is_dir():
        return _read_folder(path, split, with_labels, limit)
    if zipfile.is_zipfile(path):
        return _read_npz(path, split, with_labels)
    if split != "train":
        raise ValueError(f"split is {split!r}, but {path} is one file without splits; omit split")
    if path.suffix in {".npy", ".npz"}:
        return StoredImages(read_array(path), None, None)
    if "idx" in path.name:
        return StoredImages(read_idx(path), None, None)
    raise ValueError(
        f"{path} is of no known format; expected an .npy, .npz or IDX file, or a folder with IDX "
        "files, CIFAR-10 binary batches, or one sub-folder of PNG or JPEG files per class"
    )


def _read_folder(path: Path, split: Split, with_labels: bool, limit: int | None) -> StoredImages:
    """Dispatch by what is in the folder."""
    if any(path.glob("*idx[0-9]-ubyte*")):
        images = read_idx(_idx_file(path, split, "images", 3))
        labels = read_idx(_idx_file(path, split, "labels", 1)) if with_labels else None
        return StoredImages(images, labels, None)
    if any(path.glob("*_batch*.bin")) or (path / "data_batch_1").exists():
        return StoredImages(*read_cifar10_binary(path, split), CIFAR10_CLASSES)
    if split != "train":
        raise ValueError(
            f"split is {split!r}, but the image folder {path} has no splits; pass the folder that "
            "holds the class folders of that split"
        )
    return StoredImages(*read_image_folder(path, limit))


def _read_npz(path: Path, split: Split, with_labels: bool) -> StoredImages:
    """Images and, where there is an entry for them, labels."""
    with np.load(path, allow_pickle=False) as archive:
        found = set(archive.files)
    if split == "test" and "x_test" not in found:
        raise ValueError(f"{path} has the entries {sorted(found)}, but no x_test; omit split")
    labelled = with_labels and not found.isdisjoint(_NPZ_LABELS[split])
    images = read_array(path, _NPZ_IMAGES[split])
    return StoredImages(images, read_array(path, _NPZ_LABELS[split]) if labelled else None, None)


def read_labels(source: Any) -> np.ndarray:
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
