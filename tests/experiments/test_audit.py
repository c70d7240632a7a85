"""The audit figure on the 8 x 8 digits: right neighbours, right pixels, readable marks."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from sklearn.datasets import load_digits

from experiments.audit import audit, draw

DIGITS = load_digits().data / 16
TRAIN, HELD_OUT = DIGITS[:300], DIGITS[300:340]
RNG = np.random.default_rng(0)
SAMPLES = np.concatenate([HELD_OUT, TRAIN[:10] + 0.02 * RNG.normal(size=(10, 64)), TRAIN[20:22]])


@pytest.fixture
def figure():
    yield plt.figure(figsize=(8, 6), layout="constrained")
    plt.close("all")


def test_neighbours_and_orders():
    distances = np.sqrt(((SAMPLES[:, None] - TRAIN) ** 2).sum(-1))
    ordered = np.sort(distances, 1)
    for order in ("closest", "spread", "given"):
        found = audit(SAMPLES, TRAIN, shown=12, order=order)
        np.testing.assert_allclose(found.distance, ordered[found.index, 0], atol=1e-14)
        np.testing.assert_array_equal(found.nearest_index, distances[found.index].argmin(1))
        np.testing.assert_array_equal(found.nearest, TRAIN[found.nearest_index])
        np.testing.assert_array_equal(found.samples, SAMPLES[found.index])
        want = ordered[found.index, 0] / ordered[found.index, 1]
        np.testing.assert_allclose(found.ratio, want, atol=1e-13)
    # all twelve copies come first, exact ones before noisy ones
    closest = audit(SAMPLES, TRAIN, shown=12)
    assert set(closest.index) == set(range(40, 52))
    assert set(closest.index[:2]) == {50, 51}
    spread = audit(SAMPLES, TRAIN, shown=12, order="spread")
    assert spread.distance[0] == 0
    assert spread.distance[-1] == ordered[:, 0].max()
    np.testing.assert_array_equal(audit(SAMPLES, TRAIN, order="given").index, np.arange(16))
    assert len(audit(SAMPLES[:3], TRAIN).index) == 3
    assert np.isnan(audit(SAMPLES[:3], TRAIN[:1]).ratio).all()


def tiles(figure):
    """Images of the drawn pairs, with the words below them."""
    return [axis for axis in figure.axes if axis.images]


def test_figure_shows_samples_over_neighbours(figure):
    found = audit(SAMPLES, TRAIN, shown=14)
    mean = TRAIN.mean(0)
    centred = found._replace(samples=found.samples - mean, nearest=found.nearest - mean)
    drawn = draw(centred, (8, 8), memorised_below=0.4, mean=mean, columns=5, figure=figure)
    assert drawn is figure
    shown = tiles(figure)
    assert len(shown) == 28
    below = [axis for axis in shown if axis.get_xlabel()]
    assert len(below) == 14
    words = [axis.get_xlabel() for axis in below]
    copies = found.distance <= 0.4
    assert [("copy" in text) for text in words] == list(copies)
    assert copies.sum() == 12
    assert words[-1].startswith(f"d = {found.distance[-1]:.3g}\nratio {found.ratio[-1]:.2f}")
    # pixels: rows of five samples, each over its neighbour, on one scale from 0 to 1
    grid = np.array([axis.images[0].get_array() for axis in shown])
    np.testing.assert_allclose(grid[0], np.clip(found.samples[0], 0, 1).reshape(8, 8), atol=1e-12)
    np.testing.assert_allclose(grid[5], found.nearest[0].reshape(8, 8), atol=1e-12)
    np.testing.assert_allclose(grid[10], np.clip(found.samples[5], 0, 1).reshape(8, 8), atol=1e-12)
    # marks are drawn as frames, and on copies only
    framed = [axis.spines["left"].get_visible() for axis in shown]
    assert sum(framed) == 2 * copies.sum()


def test_no_words_overlap(figure):
    """Every label stays clear of every image and of every other label."""
    half = figure.subfigures(1, 2)[0]
    draw(audit(SAMPLES, TRAIN, shown=10), (8, 8), memorised_below=0.4, columns=5, figure=half)
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    images = [axis.get_window_extent(renderer) for axis in tiles(figure)]
    labels = [
        axis.xaxis.label.get_window_extent(renderer) for axis in tiles(figure) if axis.get_xlabel()
    ]
    for k, label in enumerate(labels):
        assert not any(label.overlaps(image) for image in images), k
        assert not any(label.overlaps(other) for other in labels[k + 1 :]), k


def test_colour_images_and_limits():
    rng = np.random.default_rng(1)
    train, samples = rng.random((20, 48)), rng.random((3, 48)) * 3 - 1
    found = audit(samples, train, order="given")
    figure = draw(found, (4, 4, 3), limits=(-1.0, 2.0))
    image = tiles(figure)[0].images[0].get_array()
    np.testing.assert_allclose(image, ((samples[0] + 1) / 3).reshape(4, 4, 3), atol=1e-12)
    assert all("copy" not in axis.get_xlabel() for axis in tiles(figure))
    plt.close(figure)


BAD = [
    (lambda: audit(SAMPLES, TRAIN, order="best"), "order is 'best', expected one of closest"),
    (lambda: audit(SAMPLES, TRAIN, shown=0), "shown is 0"),
    (lambda: audit(SAMPLES[:, :5], TRAIN), "samples has dimension 5 and train 64"),
    (lambda: draw(audit(SAMPLES, TRAIN), (8, 9)), "shape .* has 72 pixels, but the images have 64"),
    (lambda: draw(audit(SAMPLES, TRAIN), (4, 8, 2)), "1 or 3 channels"),
]


@pytest.mark.parametrize("place", range(len(BAD)))
def test_bad_input_is_refused(place):
    call, message = BAD[place]
    with pytest.raises(ValueError, match=message):
        call()
