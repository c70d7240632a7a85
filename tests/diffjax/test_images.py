"""Image sets: the pixel convention, the choice of images, and bad arrays."""

import numpy as np
import pytest

from diffjax.data.images import (
    prepare,
)

RNG = np.random.default_rng(7)
PIXELS = RNG.integers(0, 256, (12, 4, 5), dtype=np.uint8)
LABELS = np.array([3, 1, 1, 3, 0, 1, 3, 3, 1, 0, 1, 3], np.uint8)


# The convention -----------------------------------------------------------------------------------


def test_pixels_are_scaled_and_centred_per_channel():
    pixels = RNG.integers(0, 256, (6, 4, 5, 3), dtype=np.uint8)
    found = prepare(pixels, dtype=np.float64)
    expected = pixels / 255 - (pixels / 255).mean((0, 1, 2))
    np.testing.assert_allclose(found.points, expected.reshape(6, 60), atol=1e-15)
    np.testing.assert_allclose(found.mean, (pixels / 255).mean((0, 1, 2)), atol=1e-15)
    assert found.shape == (4, 5, 3)
    assert found.labels is None
    assert found.class_names == ()
    for part in ("[0, 1]", "8-bit", "all channels (3)", "n = 6", "not divided"):
        assert part in found.convention
    # The points keep their scale: a division by the standard deviation would give 1.
    assert abs(found.points.std() - 1) > 0.5


def test_first_channel_alone():
    pixels = RNG.integers(0, 256, (6, 4, 5, 3), dtype=np.uint8)
    found = prepare(pixels, channels="first", dtype=np.float64)
    red = pixels[..., 0] / 255
    np.testing.assert_allclose(found.points, (red - red.mean()).reshape(6, 20), atol=1e-15)
    assert found.shape == (4, 5, 1)
    assert found.mean.shape == (1,)
    assert "channel 0 only" in found.convention


def test_padding_comes_before_the_mean_and_keeps_the_image_in_the_middle():
    found = prepare(PIXELS, pad=8, dtype=np.float64)
    grid = (found.points + found.mean).reshape(12, 8, 8)
    np.testing.assert_allclose(grid[:, 2:6, 1:6], PIXELS / 255, atol=1e-15)
    assert found.mean[0] == pytest.approx(PIXELS.sum() / 255 / (12 * 64), rel=1e-14)
    assert np.abs(grid).sum() == pytest.approx(PIXELS.sum() / 255, rel=1e-12)
    assert "zero-padded from 4x5 to 8x8 before the mean" in found.convention


def test_mean_is_that_of_the_chosen_images_or_the_given_one():
    part = prepare(PIXELS, n=3, dtype=np.float64)
    assert part.mean[0] == pytest.approx((PIXELS[:3] / 255).mean(), rel=1e-14)
    other = prepare(PIXELS[3:], mean=part.mean, dtype=np.float64)
    expected = (PIXELS[3:] / 255 - part.mean[0]).reshape(9, 20)
    np.testing.assert_allclose(other.points, expected, atol=1e-15)
    assert "given mean" in other.convention


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_flat_vectors_are_used_as_they_are(dtype):
    points = RNG.normal(size=(5, 3)) + 10
    before = points.copy()
    found = prepare(points, dtype=dtype)
    assert found.points.dtype == dtype
    np.testing.assert_array_equal(found.points, points.astype(dtype))
    np.testing.assert_array_equal(points, before)
    assert found.shape == (1, 3, 1)
    assert found.mean.tolist() == [0.0]
    assert "no mean subtracted" in found.convention


def test_float_images_are_centred_but_not_scaled():
    found = prepare(16 * RNG.random((5, 3, 3)), dtype=np.float64)
    assert abs(found.points.mean()) < 1e-14
    assert found.points.max() - found.points.min() > 2
    assert "values as stored" in found.convention


def test_booleans_and_8_bit_vectors():
    assert prepare(PIXELS > 99).points.dtype == np.float32
    flat = prepare(PIXELS.reshape(12, 20), dtype=np.float64)
    np.testing.assert_array_equal(flat.points, prepare(PIXELS, dtype=np.float64).points)


def test_default_type_is_float32_and_records_are_frozen():
    found = prepare(PIXELS)
    assert found.points.dtype == np.float32
    assert found.points.flags.c_contiguous
    with pytest.raises(AttributeError):
        found.points = 0


# The choice of images -----------------------------------------------------------------------------


def test_balanced_classes_are_the_first_of_each_in_file_order():
    found = prepare(PIXELS, LABELS, classes=(3, 1), n=6, dtype=np.float64)
    rows = [0, 1, 2, 3, 5, 6]
    raw = found.points + found.mean
    np.testing.assert_allclose(raw, PIXELS[rows].reshape(6, 20) / 255, atol=1e-15)
    assert found.class_names == ("3", "1")
    assert [found.class_names[label] for label in found.labels] == [str(LABELS[r]) for r in rows]


def test_classes_without_n_keep_all_and_n_without_classes_the_first():
    assert len(prepare(PIXELS, LABELS, classes=(1, 3)).points) == 10
    found = prepare(PIXELS, LABELS, n=5)
    assert found.labels.tolist() == [2, 1, 1, 2, 0]
    assert found.class_names == ("0", "1", "3")
    single = prepare(PIXELS, LABELS, n=1)
    assert single.points.shape == (1, 20)


@pytest.mark.parametrize("labels", [LABELS.astype(float), LABELS.astype(str), LABELS.tolist()])
def test_labels_of_any_type(labels):
    found = prepare(PIXELS, labels, classes=("1", "3"), n=2)
    assert found.labels.tolist() == [1, 0]


def test_names_come_before_positions():
    named = prepare(PIXELS, LABELS % 2, class_names=("1", "cat"), classes=(1,))
    assert named.class_names == ("1",)
    by_position = prepare(PIXELS, LABELS % 2, class_names=("dog", "cat"), classes=(1,))
    assert by_position.class_names == ("cat",)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 0}, r"n is 0, expected a positive integer"),
        ({"n": 2.5}, r"n is 2.5, expected a positive integer"),
        ({"n": 13}, r"n is 13, but there are 12 images; pass n <= 12"),
        ({"classes": (1, 3), "n": 5}, r"n is 5, which is not divisible by the 2 classes"),
        ({"classes": (0, 3), "n": 6}, r"n is 6, 3 of each class, but class 0 has 2; pass n <= 4"),
        ({"classes": (1, 8)}, r"classes has 8, which is none of 0, 1, 3"),
        ({"classes": (1, 1)}, r"classes is \(1, 1\), which names a class twice"),
        ({"classes": ()}, r"classes is \(\), expected a sequence"),
        ({"classes": "13"}, r"classes is '13', expected a sequence"),
        ({"classes": 1}, r"classes is 1, expected a sequence"),
        ({"channels": "red"}, r"channels is 'red', expected 'all' or 'first'"),
        ({"pad": 4}, r"pad is 4, expected .* at least 5 for 4x5 images"),
        ({"pad": 8.0}, r"pad is 8.0, expected"),
        ({"dtype": np.int32}, r"dtype is int32, expected a floating type"),
        ({"mean": [0.1, 0.2]}, r"mean is \[0.1, 0.2\], expected 1 finite numbers"),
        ({"mean": [np.nan]}, r"mean is \[nan\], expected 1 finite numbers"),
        (
            {"class_names": ("a", "b", "c")},
            r"labels has the value 3, expected integers from 0 to 2",
        ),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        prepare(PIXELS, LABELS, **options)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (LABELS[:9], r"labels has shape \(9,\), expected \(12,\)"),
        (LABELS[:, None], r"labels has shape \(12, 1\), expected \(12,\)"),
        (LABELS + 0.5, r"labels has dtype float64, expected integers or strings"),
        (np.where(LABELS > 0, np.nan, 1.0), r"labels has dtype float64, expected integers"),
    ],
)
def test_labels_that_do_not_fit(labels, message):
    with pytest.raises(ValueError, match=message):
        prepare(PIXELS, labels)


def test_classes_need_labels():
    with pytest.raises(ValueError, match=r"there are no labels; pass labels"):
        prepare(PIXELS, classes=(1, 8))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros(3), r"shape \(3,\), expected \(n, d\).*images\[:, None\]"),
        (np.zeros((1, 2, 2, 1, 1)), r"shape \(1, 2, 2, 1, 1\), expected"),
        (np.zeros(()), r"shape \(\), expected"),
        (np.zeros((0, 4)), r"shape \(0, 4\) and so no values"),
        (np.zeros((4, 0)), r"shape \(4, 0\) and so no values"),
        (np.zeros((2, 3, 8, 8)), r"looks like \(n, C, H, W\).*moveaxis"),
        (np.zeros((2, 2), complex), r"dtype complex128, expected real numbers"),
        (np.array([[None]]), r"dtype object, expected real numbers"),
        (np.array([[1.0, np.nan]]), r"1 NaN or infinite .*\(nan\).*\(0, 0, 1, 0\)"),
        (np.full((2, 3), np.inf), r"6 NaN or infinite values, the first \(inf\)"),
        (np.array([[1e300]]), r"does not fit float32; pass dtype=np.float64"),
    ],
)
def test_bad_arrays(images, message):
    with pytest.raises(ValueError, match=message):
        prepare(images)


def test_flat_vectors_cannot_be_padded():
    with pytest.raises(ValueError, match=r"pad is 8, but the images are flat vectors"):
        prepare(np.zeros((2, 4)), pad=8)
