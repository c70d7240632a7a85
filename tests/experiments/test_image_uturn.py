"""U-turns of images: bands, classes, and what is exact about them."""

import numpy as np
import pytest

from experiments import image_uturn


def test_images_follow_their_posterior(runs, check_run):
    report, folder = runs("image_uturn")
    check_run(report, folder, "image_uturn", exact=7, controls=2)
    # a Gaussian of the same covariance is the worst prior: a bound on every band
    curves = report.curves
    bound = [np.interp(curves["times"], curves["fine_times"], b) for b in curves["bands_fine"].T]
    measured, error = curves["posterior_overlap"], curves["posterior_overlap_error"]
    assert np.all(measured > np.transpose(bound) - 4 * error)
    # features are lost from fine to coarse, the class between, the own image before all
    found = report.summary
    halves = [entry["half_time"] for entry in found["bands"].values()]
    for later, sooner in zip(halves, [*halves[1:], found["image_half_time"]]):
        assert later[0] - sooner[0] > 2 * np.hypot(later[1], sooner[1])
    assert halves[0][0] > found["class_half_time"][0] > halves[-1][0]
    # pixels change together where the own image is lost, and in the surrogate hardly at all
    chi, time = found["largest_chi"]
    assert time < found["class_half_time"][0]
    assert chi > 2 * curves["surrogate_chi"].max()


def test_bands_hold_their_shares_of_the_variance():
    rng = np.random.default_rng(1)
    images = rng.standard_normal((300, 6)) * np.array([3.0, 2, 1, 0.5, 0.3, 0.1]) + 2
    found = image_uturn.basis(images, (0.5, 0.9))
    values = np.linalg.eigvalsh(np.cov(images.T, bias=True))[::-1]
    np.testing.assert_allclose(found.variances, values, rtol=1e-10)
    np.testing.assert_array_equal(found.band, [0, 1, 2, 2, 2, 2])
    assert found.names() == ["components 1-1", "components 2-2", "components 3-6"]
    with pytest.raises(ValueError, match="shares must increase"):
        image_uturn.basis(images, (0.9, 0.5))


def test_overlap_of_unrelated_images_by_enumeration():
    rng = np.random.default_rng(2)
    images, classes = rng.standard_normal((40, 5)), rng.integers(0, 3, 40)
    found = image_uturn.basis(images, (0.6,))
    centred = (images - found.mean) @ found.vectors
    differ = classes[:, None] != classes
    products = np.einsum("ir,jr->ijr", centred, centred)[differ].mean(0)
    member = np.eye(2)[found.band]
    expected = products @ member / (found.variances @ member)
    result = image_uturn.unrelated_overlap(found, images, classes)
    np.testing.assert_allclose(result, expected, rtol=1e-10)


@pytest.mark.slow
def test_quick_preset(tmp_path, execute):
    report = execute("image_uturn", tmp_path, "quick")
    for comparison in report.comparisons:
        assert comparison.passed is not False, comparison.line()
