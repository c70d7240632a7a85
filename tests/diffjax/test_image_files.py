"""Image files: every format on disk, damaged ones, and real data sets where they are present."""

import gzip
import os
import pickle
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from diffjax.data import images as module
from diffjax.data.images import (
    CIFAR10_CLASSES,
    load_images,
    prepare,
    read_array,
    read_cifar10_binary,
    read_idx,
    read_image_folder,
)

IDX_CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}
RNG = np.random.default_rng(7)
PIXELS = RNG.integers(0, 256, (12, 4, 5), dtype=np.uint8)
LABELS = np.array([3, 1, 1, 3, 0, 1, 3, 3, 1, 0, 1, 3], np.uint8)


def idx_bytes(array):
    """An IDX file, written straight from the definition of the format."""
    code = IDX_CODES[array.dtype.str[1:]]
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, code, array.ndim, *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


def write_idx_set(folder, pixels=PIXELS, labels=LABELS, prefix="train", dash="-", gz=False):
    for kind, rank, array in (("images", 3, pixels), ("labels", 1, labels)):
        data = idx_bytes(array)
        name = f"{prefix}-{kind}{dash}idx{rank}-ubyte" + (".gz" if gz else "")
        (folder / name).write_bytes(gzip.compress(data) if gz else data)
    return folder


def write_cifar_batch(file, pixels, labels):
    planes = pixels.transpose(0, 3, 1, 2).reshape(len(pixels), -1)
    file.write_bytes(np.concatenate([labels[:, None], planes], 1).astype(np.uint8).tobytes())


def write_png(file, array):
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    file.parent.mkdir(parents=True, exist_ok=True)
    image.fromarray(array).save(file)


def real_data(name):
    """The folder of a real data set, or a skip that says how to provide it."""
    here = Path(__file__).resolve().parents[2].parent / "shared" / "data"
    folder = Path(os.environ.get("DIFFJAX_DATA", here)) / name
    if not folder.is_dir():
        pytest.skip(f"no folder {name}: set DIFFJAX_DATA to the folder that holds it")
    return folder


# IDX ----------------------------------------------------------------------------------------------


@given(
    array=hnp.arrays(
        dtype=st.sampled_from(sorted(IDX_CODES)).map(np.dtype),
        shape=hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=5),
    ),
    gz=st.booleans(),
)
def test_idx_round_trip(array, gz):
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "array"
        data = idx_bytes(array)
        file.write_bytes(gzip.compress(data) if gz else data)
        found = read_idx(file)
    assert found.shape == array.shape
    assert found.dtype == array.dtype
    assert found.dtype.isnative
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize("gz", [False, True])
@pytest.mark.parametrize("dash", ["-", "."])
@pytest.mark.parametrize(("split", "prefix"), [("train", "train"), ("test", "t10k")])
def test_idx_folder(tmp_path, gz, dash, split, prefix):
    write_idx_set(tmp_path, prefix=prefix, dash=dash, gz=gz)
    found = load_images(tmp_path, classes=(1, 3), n=4, split=split)
    assert found.points.shape == (4, 20)
    assert found.labels.tolist() == [1, 0, 0, 1]
    assert found.shape == (4, 5, 1)
    np.testing.assert_array_equal(found.points, prepare(PIXELS, LABELS, classes=(1, 3), n=4).points)


def test_one_idx_file_with_given_labels(tmp_path):
    write_idx_set(tmp_path)
    images, labels = tmp_path / "train-images-idx3-ubyte", tmp_path / "train-labels-idx1-ubyte"
    assert load_images(images).labels is None
    assert load_images(images, labels=labels, classes=(1, 3), n=4).labels.tolist() == [1, 0, 0, 1]
    with pytest.raises(ValueError, match=r"split is 'test', but .* without splits"):
        load_images(images, split="test")


def test_missing_idx_files(tmp_path):
    write_idx_set(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(FileNotFoundError, match=r"no file train-labels-idx1-ubyte.*pass labels="):
        load_images(tmp_path)
    assert load_images(tmp_path, labels=LABELS, n=2).labels.tolist() == [2, 1]
    with pytest.raises(FileNotFoundError, match="no file t10k-images-idx3-ubyte"):
        load_images(tmp_path, split="test")


def test_label_count_mismatch(tmp_path):
    write_idx_set(tmp_path, labels=LABELS[:9])
    with pytest.raises(ValueError, match=r"labels has shape \(9,\), expected \(12,\)"):
        load_images(tmp_path)


@pytest.mark.parametrize("change", [-1, 3])
def test_idx_of_wrong_length(tmp_path, change):
    data = idx_bytes(PIXELS)
    (tmp_path / "x").write_bytes(data[:change] if change < 0 else data + b"\0" * change)
    message = rf"x is damaged: expected .* 256 bytes, found {256 + change} bytes"
    with pytest.raises(ValueError, match=message):
        read_idx(tmp_path / "x")


def test_idx_with_truncated_header_or_huge_shape(tmp_path):
    (tmp_path / "x").write_bytes(idx_bytes(PIXELS)[:9])
    with pytest.raises(ValueError, match="a header of 16 bytes, found 9"):
        read_idx(tmp_path / "x")
    (tmp_path / "x").write_bytes(struct.pack(">BBBB3I", 0, 0, 8, 3, *[2**32 - 1] * 3))
    with pytest.raises(ValueError, match="found 16 bytes"):
        read_idx(tmp_path / "x")


@pytest.mark.parametrize("start", [b"", b"\0\0\x08", b"PK\3\4", b"\0\0\x07\3", b"\0\0\x08\0"])
def test_idx_with_wrong_magic(tmp_path, start):
    (tmp_path / "x").write_bytes(start)
    with pytest.raises(ValueError, match="this is not an IDX file"):
        read_idx(tmp_path / "x")


@pytest.mark.parametrize("damage", ["cut", "flip", "header"])
def test_damaged_gzip(tmp_path, damage):
    data = bytearray(gzip.compress(idx_bytes(PIXELS)))
    if damage == "cut":
        data = data[:-20]
    data[{"cut": -1, "flip": 60, "header": 2}[damage]] ^= 0xFF
    (tmp_path / "x.gz").write_bytes(data)
    with pytest.raises(ValueError, match=r"x.gz is a damaged gzip file .* compressed bytes"):
        read_idx(tmp_path / "x.gz")


# CIFAR-10 -----------------------------------------------------------------------------------------


def test_cifar_batches_in_order(tmp_path):
    pixels = RNG.integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
    labels = np.array([1, 7, 7, 1, 0, 9], np.uint8)
    write_cifar_batch(tmp_path / "data_batch_1.bin", pixels[:2], labels[:2])
    write_cifar_batch(tmp_path / "data_batch_2.bin", pixels[2:5], labels[2:5])
    write_cifar_batch(tmp_path / "test_batch.bin", pixels[5:], labels[5:])
    images, found = read_cifar10_binary(tmp_path)
    np.testing.assert_array_equal(images, pixels[:5])
    np.testing.assert_array_equal(found, labels[:5])
    pair = load_images(tmp_path, classes=("automobile", "horse"), n=4, channels="first")
    assert pair.points.shape == (4, 1024)
    assert pair.class_names == ("automobile", "horse")
    assert pair.labels.tolist() == [0, 1, 1, 0]
    assert load_images(tmp_path, classes=(1, 7)).shape == (32, 32, 3)
    test = load_images(tmp_path, split="test")
    assert test.class_names[test.labels[0]] == "truck"
    assert test.class_names == CIFAR10_CLASSES


def test_pickled_cifar_is_refused(tmp_path):
    (tmp_path / "data_batch_1").write_bytes(pickle.dumps({b"data": 0}))
    with pytest.raises(ValueError, match=r"data_batch_1 is the pickled .*cifar-10-binary.tar.gz"):
        load_images(tmp_path)


def test_cifar_with_a_gap_or_without_batches(tmp_path):
    pixels, labels = np.zeros((1, 32, 32, 3), np.uint8), np.zeros(1, np.uint8)
    for number in (1, 3):
        write_cifar_batch(tmp_path / f"data_batch_{number}.bin", pixels, labels)
    with pytest.raises(FileNotFoundError, match=r"data_batch_2.bin is missing"):
        load_images(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"test_batch.bin is missing"):
        read_cifar10_binary(tmp_path, "test")


@pytest.mark.parametrize(("size", "expected"), [(0, 3073), (3072, 3073), (4000, 6146)])
def test_truncated_cifar(tmp_path, size, expected):
    (tmp_path / "data_batch_1.bin").write_bytes(b"\0" * size)
    message = rf"data_batch_1.bin is damaged: expected {expected} bytes .* found {size}"
    with pytest.raises(ValueError, match=message):
        read_cifar10_binary(tmp_path)


def test_cifar_label_out_of_range(tmp_path):
    (tmp_path / "data_batch_1.bin").write_bytes(b"\x0a" * 3073)
    with pytest.raises(ValueError, match="has the label 10, expected 0 to 9"):
        read_cifar10_binary(tmp_path)


# Arrays -------------------------------------------------------------------------------------------


def test_npy_with_labels_from_a_file_or_an_array(tmp_path):
    points = RNG.normal(size=(12, 3))
    np.save(tmp_path / "points.npy", points)
    np.save(tmp_path / "labels.npy", LABELS)
    np.savez(tmp_path / "labels.npz", LABELS)
    expected = prepare(points, LABELS, classes=(1, 3), n=4, dtype=np.float64)
    for labels in (LABELS, LABELS.tolist(), tmp_path / "labels.npy", str(tmp_path / "labels.npz")):
        found = load_images(
            tmp_path / "points.npy", labels=labels, classes=(1, 3), n=4, dtype=np.float64
        )
        np.testing.assert_array_equal(found.points, expected.points)
        np.testing.assert_array_equal(found.labels, expected.labels)
    assert load_images(tmp_path / "points.npy").labels is None
    with pytest.raises(ValueError, match="without splits"):
        load_images(tmp_path / "points.npy", split="test")
    with pytest.raises(ValueError, match=r"labels has shape \(5,\), expected \(12,\)"):
        load_images(tmp_path / "points.npy", labels=LABELS[:5])


def test_npz_entries(tmp_path):
    np.savez_compressed(
        tmp_path / "a.npz", x_train=PIXELS, y_train=LABELS, x_test=PIXELS[:3], y_test=LABELS[:3]
    )
    assert load_images(tmp_path / "a.npz").points.shape == (12, 20)
    assert load_images(tmp_path / "a.npz", split="test").labels.tolist() == [1, 0, 0]
    np.savez(tmp_path / "b.npz", PIXELS)
    assert load_images(tmp_path / "b.npz").labels is None
    assert load_images(tmp_path / "b.npz", labels=LABELS).labels is not None
    with pytest.raises(ValueError, match=r"entries \['arr_0'\], but no x_test; omit split"):
        load_images(tmp_path / "b.npz", split="test")
    np.savez(tmp_path / "c.npz", a=PIXELS, b=PIXELS)
    with pytest.raises(ValueError, match=r"has the entries \['a', 'b'\], expected one named"):
        load_images(tmp_path / "c.npz")


class Bomb:
    """A pickle that would leave a trace if it were loaded."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (self.trace,)


@pytest.mark.parametrize("kind", ["npy", "npz", "pickle"])
def test_pickles_are_refused_and_never_run(tmp_path, kind):
    trace, file = tmp_path / "trace", tmp_path / ("x.npz" if kind == "npz" else "x.npy")
    objects = np.array([Bomb(trace), None], dtype=object)
    if kind == "npy":
        np.save(file, objects, allow_pickle=True)
    elif kind == "npz":
        np.savez(file, points=objects, allow_pickle=True)
    else:
        file.write_bytes(pickle.dumps(Bomb(trace)))
    for read in (load_images, read_array):
        with pytest.raises(ValueError, match=r"object array \(dtype=object\).*np.save"):
            read(file) if read is load_images else read(file, ("points",))
    assert not trace.exists()


@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
def test_truncated_arrays(tmp_path, name):
    (np.save if name == "x.npy" else np.savez)(tmp_path / name, PIXELS)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=rf"{name} is damaged"):
        load_images(tmp_path / name)
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(ValueError, match=rf"{name} is damaged"):
        load_images(tmp_path / name)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_npy_that_is_not_finite(tmp_path, value):
    points = np.zeros((4, 3), np.float32)
    points[2, 1] = value
    np.save(tmp_path / "x.npy", points)
    with pytest.raises(ValueError, match=r"1 NaN or infinite values.*\(2, 0, 1, 0\)"):
        load_images(tmp_path / "x.npy")


def test_one_dimensional_npy(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros(3))
    with pytest.raises(ValueError, match=r"shape \(3,\), expected \(n, d\)"):
        load_images(tmp_path / "x.npy")


# Folders of images --------------------------------------------------------------------------------


def test_class_folders(tmp_path):
    for name, rows in {"cat": [2, 0], "dog": [1, 3, 4]}.items():
        for row in rows:
            write_png(tmp_path / name / f"{row}.png", PIXELS[row])
    (tmp_path / "dog" / "notes.txt").write_text("not an image")
    images, labels, names = read_image_folder(tmp_path)
    np.testing.assert_array_equal(images[..., 0], PIXELS[[0, 2, 1, 3, 4]])
    assert images.shape == (5, 4, 5, 1)
    assert labels.tolist() == [0, 0, 1, 1, 1]
    assert names == ("cat", "dog")
    found = load_images(tmp_path, classes=("dog", "cat"), n=4)
    assert found.class_names == ("dog", "cat")
    assert found.labels.tolist() == [1, 1, 0, 0]
    with pytest.raises(ValueError, match="class cat has 2; pass n <= 4"):
        load_images(tmp_path, classes=("dog", "cat"), n=6)
    with pytest.raises(ValueError, match="which is none of cat, dog"):
        load_images(tmp_path, classes=("cat", "fox"))
    with pytest.raises(ValueError, match=r"n is -2, expected a positive integer"):
        load_images(tmp_path, n=-2)
    with pytest.raises(ValueError, match=r"labels has shape \(4,\), expected \(5,\)"):
        load_images(tmp_path, labels=[0, 1, 0, 1], n=2)
    with pytest.raises(ValueError, match=r"the image folder .* has no splits"):
        load_images(tmp_path, split="test")


def test_first_n_of_a_folder_run_over_its_classes(tmp_path):
    for row, name in enumerate(["a", "a", "b", "b", "b"]):
        write_png(tmp_path / name / f"{row}.png", PIXELS[row])
    found = load_images(tmp_path, n=3, dtype=np.float64)
    raw = PIXELS[:3].reshape(3, 20) / 255
    np.testing.assert_allclose(found.points + found.mean, raw, atol=1e-15)


def test_folder_without_classes_mixes_grey_and_colour(tmp_path):
    colour = RNG.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    alpha = np.concatenate([colour, np.full((4, 5, 1), 9, np.uint8)], 2)
    write_png(tmp_path / "1.png", PIXELS[0])
    write_png(tmp_path / "2.png", colour)
    write_png(tmp_path / "3.png", alpha)
    images, labels, names = read_image_folder(tmp_path)
    assert labels is None
    assert names is None
    expected = np.stack([np.repeat(PIXELS[0][:, :, None], 3, 2), colour, colour])
    np.testing.assert_array_equal(images, expected)


def test_jpeg_is_read(tmp_path):
    write_png(tmp_path / "a" / "1.JPG", np.full((8, 8), 100, np.uint8))
    images, _, _ = read_image_folder(tmp_path)
    # JPEG is lossy, but a constant image survives to a grey level.
    assert np.abs(images.astype(int) - 100).max() <= 1


def test_mixed_sizes_name_two_files_and_their_sizes(tmp_path):
    write_png(tmp_path / "a" / "1.png", PIXELS[0])
    write_png(tmp_path / "b" / "2.png", PIXELS[1][:3])
    message = r"a.1\.png has 4x5 pixels, but .*b.2\.png has 3x5; crop or resize"
    with pytest.raises(ValueError, match=message):
        load_images(tmp_path)


def test_broken_and_16_bit_images(tmp_path):
    write_png(tmp_path / "a" / "1.png", RNG.integers(0, 256, (40, 40), dtype=np.uint8))
    file = tmp_path / "a" / "1.png"
    data = file.read_bytes()
    for broken in (b"", b"no image", data[: len(data) // 2]):
        file.write_bytes(broken)
        with pytest.raises(ValueError, match=r"1\.png cannot be decoded"):
            load_images(tmp_path)
    write_png(file, np.full((4, 4), 1000, np.uint16))
    with pytest.raises(ValueError, match=r"1\.png has mode 'I;16'; convert it to 8 bits"):
        load_images(tmp_path)


def test_folders_without_images(tmp_path):
    with pytest.raises(ValueError, match=r"has no PNG or JPEG files"):
        load_images(tmp_path)
    write_png(tmp_path / "a" / "1.png", PIXELS[0])
    (tmp_path / "b").mkdir()
    with pytest.raises(ValueError, match=r"b has no PNG or JPEG files"):
        load_images(tmp_path)
    write_png(tmp_path / "loose.png", PIXELS[0])
    with pytest.raises(ValueError, match=r"images \(loose\.png\) beside the class folder a"):
        load_images(tmp_path)


def test_without_pillow_the_extra_is_named(tmp_path, monkeypatch):
    (tmp_path / "1.png").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match=r"pip install 'diffjax\[images\]'"):
        load_images(tmp_path)


# Paths and imports --------------------------------------------------------------------------------


def test_paths_that_are_not_there_or_not_known(tmp_path):
    for path in (tmp_path / "nowhere", str(tmp_path / "nowhere.npy")):
        with pytest.raises(FileNotFoundError, match=r"there is no file or folder .*nowhere"):
            load_images(path)
    (tmp_path / "x.txt").write_text("1 2 3")
    with pytest.raises(ValueError, match=r"x.txt is of no known format; expected an .npy"):
        load_images(tmp_path / "x.txt")
    with pytest.raises(ValueError, match=r"split is 'valid', expected 'train' or 'test'"):
        load_images(tmp_path, split="valid")


def test_import_is_light():
    # Empty parent packages stand in for diffjax, whose own import needs jax.
    code = (
        "import importlib, sys, types\n"
        "for name in ('diffjax', 'diffjax.data'):\n"
        "    sys.modules[name] = types.ModuleType(name)\n"
        f"sys.modules['diffjax.data'].__path__ = [{str(Path(module.__file__).parent)!r}]\n"
        "importlib.import_module('diffjax.data.images').load_images\n"
        "print([name for name in ('PIL', 'sklearn', 'jax') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# Real images --------------------------------------------------------------------------------------


def test_published_mnist_eigenvalue():
    found = load_images(real_data("mnist"), classes=(1, 8), n=10_000, pad=32, dtype=np.float64)
    assert found.points.shape == (10_000, 1024)
    assert found.shape == (32, 32, 1)
    assert np.bincount(found.labels).tolist() == [5000, 5000]
    assert abs(found.points.mean()) < 1e-12
    # The printed value 7.6681 divides by n - 1; half a unit of its last digit is allowed.
    assert np.linalg.eigvalsh(np.cov(found.points.T))[-1] == pytest.approx(7.6681, abs=5e-5)


def test_fashion_mnist_loads_whole():
    found = load_images(real_data("fashion_mnist"))
    assert found.points.shape == (60_000, 784)
    assert found.points.dtype == np.float32
    assert np.bincount(found.labels).tolist() == [6000] * 10
