"""Recognition of generated images: real ones are recognised, noise of their covariance is not."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from experiments import learned, recognition


@pytest.mark.slow
def test_a_classifier_tells_real_digits_from_gaussian_draws_of_their_covariance():
    # all ten classes: of two, a Gaussian draw mostly resembles one or the other
    data = learned.images("digits", None, None, 1000, 300)
    found = recognition.recognise(jax.random.key(0), data, data.held_out, 200)
    assert found.accuracy[0] > 0.9
    assert found.generated == found.held_out  # the same images
    difference = found.held_out[0] - found.gaussian[0]
    assert difference > 4 * np.hypot(found.held_out[1], found.gaussian[1])
    assert abs(found.classes.sum() - 1) < 1e-12


def test_images_without_labels_have_no_classifier():
    data = learned.images("digits", None, ("0", "1"), 20, 10)
    with pytest.raises(ValueError, match="digits 0/1 has no labels"):
        recognition.recognise(jax.random.key(0), replace(data, train_labels=None), data.train, 1)


def test_images_are_nested_and_their_labels_follow_them():
    small, large = (learned.images("digits", None, ("3", "8"), n, 20) for n in (30, 60))
    pixels = [v.train + v.mean for v in (small, large)]
    np.testing.assert_allclose(pixels[0], pixels[1][:30], atol=1e-6)
    np.testing.assert_array_equal(small.train_labels, large.train_labels[:30])
    np.testing.assert_allclose(large.train.mean(), 0, atol=1e-6)
    half = learned.images("digits", None, ("3", "8"))
    assert abs(len(half.train) - len(half.held_out)) <= 1
    assert set(half.held_out_labels) == {0, 1}
    with pytest.raises(ValueError, match="n is 10000, but digits has 357 images"):
        learned.images("digits", None, ("3", "8"), 10_000)
