"""The published figures: test presets end to end, comparisons, controls, resumed runs."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from diffjax import schedules
from experiments import (
    collapse,
    collapse_times,
    curie_weiss,
    image_collapse,
    image_speciation,
    images,
    infer_times,
    kernel_density,
    memorisation_vs_n,
    potts,
    published,
    random_energy,
    registry,
    speciation,
    train,
    two_level,
)

MODULES = {
    "speciation": speciation,
    "collapse": collapse,
    "collapse_times": collapse_times,
    "images": images,
    "curie_weiss": curie_weiss,
    "potts": potts,
    "infer_times": infer_times,
    "two_level": two_level,
    "random_energy": random_energy,
    "kernel_density": kernel_density,
    "image_speciation": image_speciation,
    "image_collapse": image_collapse,
    "train": train,
    "memorisation_vs_n": memorisation_vs_n,
}
CONTROLS = {
    "speciation": 3,
    "collapse": 3,
    "collapse_times": 3,
    "images": 2,
    "curie_weiss": 3,
    "potts": 3,
    "infer_times": 3,
    "two_level": 2,
    "random_energy": 4,
    "kernel_density": 2,
    "image_speciation": 1,
    "image_collapse": 1,
    "train": 1,
    "memorisation_vs_n": 1,
}
EXACT = {
    "speciation": 3,
    "collapse": 2,
    "collapse_times": 2,
    "images": 2,
    "curie_weiss": 4,
    "potts": 4,
    "infer_times": 4,
    "two_level": 2,
    "random_energy": 5,
    "kernel_density": 4,
    "image_speciation": 1,
    "image_collapse": 1,
    "train": 1,
    "memorisation_vs_n": 1,
}


def mnist():
    """The folder of the real images, or a skip that says how to provide it."""
    here = Path(__file__).resolve().parents[2].parent / "shared" / "data"
    folder = Path(os.environ.get("DIFFJAX_DATA", here)) / "mnist"
    if not folder.is_dir():
        pytest.skip("no folder mnist: set DIFFJAX_DATA to the folder that holds it")
    return folder


def test_every_experiment_is_run_by_a_test():
    own_file = {path.stem.removeprefix("test_") for path in Path(__file__).parent.glob("test_*.py")}
    assert set(registry.EXPERIMENTS) <= {*MODULES, *own_file}


@pytest.mark.parametrize("name", MODULES)
def test_test_preset(runs, name, check_run):
    check_run(*runs(name), name, exact=EXACT[name], controls=CONTROLS[name])


@pytest.mark.parametrize("name", ["speciation", pytest.param("two_level", marks=pytest.mark.slow)])
def test_resumed_run_gives_the_same_numbers(runs, name, execute):
    _, folder = runs(name)
    before = dict(np.load(folder / "curves.npz"))
    parts = sorted((folder / "parts").iterdir())
    for path in parts[::2]:
        path.unlink()
    kept = {path: path.stat().st_mtime_ns for path in parts[1::2]}
    execute(name, folder, resume=True)
    assert sorted((folder / "parts").iterdir()) == parts
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in kept.items())
    after = dict(np.load(folder / "curves.npz"))
    assert after.keys() == before.keys()
    for key, value in before.items():
        np.testing.assert_array_equal(after[key], value, err_msg=key)


# Speciation ---------------------------------------------------------------------------------------


def test_clone_agreement_does_not_depend_on_the_number_of_threads(monkeypatch):
    diffusion = speciation.mixture(32, 1.0, 1.0, 0.5, "float32")
    times, counts = np.array([1.5, 2.0]), []
    for threads in (1, 3):
        monkeypatch.setattr(os, "cpu_count", lambda threads=threads: threads)
        counts.append(speciation.agreement(diffusion, times, 20_000, (5,))["phi"])
    np.testing.assert_array_equal(*counts)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_normals_from_bits(dtype):
    from scipy import stats

    size = np.dtype(dtype).itemsize
    bits = np.random.SFC64(3).random_raw(2**17).view(f"u{size}")
    z = speciation._normals(bits, np.dtype(dtype))
    assert z.dtype == dtype
    z = np.asarray(z, np.float64)
    assert np.all(np.isfinite(z))
    # mean, variance and fourth moment within 4 of their standard errors; shape by its p-value
    n = len(z)
    assert abs(z.mean()) < 4 / np.sqrt(n)
    assert abs(z.var() - 1) < 4 * np.sqrt(2 / n)
    assert abs(np.mean(z**4) - 3) < 4 * np.sqrt(96 / n)
    assert stats.kstest(z, "norm").pvalue > 1e-3
    # the extreme integers of the dtype are finite and opposite
    ends = np.array([0, np.iinfo(bits.dtype).max], bits.dtype)
    low, high = np.asarray(speciation._normals(ends, np.dtype(dtype)))
    assert low == -high
    assert 5 < high < 9


def test_crossing_time_grows_like_half_log_d(runs):
    slope = runs("speciation")[0].summary["slope_of_crossing_with_log_d"]
    assert abs(slope["value"] - slope["exact"]) < 4 * slope["error"]
    assert slope["exact"] == pytest.approx(0.5, abs=0.02)  # large d: exactly 1/2


def test_published_speciation_is_shown_for_the_published_mixture_only():
    config = speciation.Config()
    assert speciation._published_dims(config) == [256, 1024, 4096, 16384]
    assert speciation._published_dims(replace(config, variance=2.0)) == []


# Collapse -----------------------------------------------------------------------------------------


def test_empirical_entropy_at_the_collapse_scales_with_the_dimension(runs):
    scaled = runs("collapse")[0].summary["scaling_at_collapse"]
    assert abs(scaled["exponent"] - scaled["exponent_theory"]) < 4 * scaled["exponent_error"]
    assert -1.1 < scaled["exponent_theory"] < -0.8  # at fixed n: 1/d, up to the weak d of u
    # an upper estimate, by 5 to 30% at these sizes
    assert np.all(scaled["ratio_to_theory"] < 1 + 4 * scaled["ratio_error"])
    assert np.all(scaled["ratio_to_theory"] > 0.65)


def test_finite_size_theory_is_asymptotic_above_the_collapse(runs):
    report, _ = runs("collapse")
    curves = report.curves
    times = curves["times"]
    for dim in collapse.PRESETS["test"]["dims"]:
        late = times > 2.5 * curves[f"special_d{dim}"][0]
        finite = np.interp(times, curves["fine_times"], curves[f"finite_fine_d{dim}"])
        value, error = (
            curves[f"{k}_d{dim}"][: len(times)] for k in ("empirical", "empirical_error")
        )
        # the training set is one draw: its own fluctuation adds to the error over states
        assert np.all(np.abs(value - finite)[late] < 5 * np.hypot(error, 0.01 * finite)[late])


def test_published_collapse_is_shown_for_the_published_mixture_only():
    config = collapse.Config()
    assert collapse._published_dims(config) == [256, 1024, 4096]
    assert collapse._published_dims(replace(config, n=1000)) == []


# Collapse times -----------------------------------------------------------------------------------


def test_nearest_neighbour_time_overestimates_the_collapse_time(runs):
    summary = runs("collapse_times")[0].summary
    for entry in summary.values():
        assert entry["excess_of_mean_over_collapse_time"] > 4 * entry["excess_error"]
        bound = entry["time_of_own_one_half"] + 4 * entry["nearest_neighbour_median_error"]
        assert entry["nearest_neighbour_median"] < bound
        # the excess is a fluctuation of the finite size: a number of order one of its widths
        assert 0.3 < entry["excess_in_widths"] < 1.5


def test_collapse_times_refuses_sizes_that_do_not_match():
    config = collapse_times.Config(dims=(8, 16))
    with pytest.raises(ValueError, match="equal lengths, got 2, 3 and 3"):
        collapse_times.sizes(config)
    with pytest.raises(ValueError, match="sets is 1"):
        collapse_times.sizes(collapse_times.Config(sets=1))


# Images -------------------------------------------------------------------------------------------


def test_published_steps_have_the_published_times():
    order = np.argsort(published.FIGURE_4_MNIST_STEPS)
    np.testing.assert_array_equal(published.FIGURE_4_MNIST_STEPS[order], images.STEPS)
    expected = published.FIGURE_4_MNIST_TIMES[order]
    np.testing.assert_allclose(images.times_of_steps(), expected, rtol=1e-5)


def test_embedded_digits_have_no_spectral_time_and_no_published_curve(runs):
    report, _ = runs("images")
    assert report.summary["largest_eigenvalue"] > 0
    assert not any("published" in c.name for c in report.comparisons)
    assert any("embedded digits" in value for _, value in report.table)


@pytest.mark.slow
def test_mnist_reproduces_the_reference_values(tmp_path, execute):
    report = execute("images", tmp_path, "quick", root=str(mnist()))
    found = report.summary
    assert found["largest_eigenvalue"] == pytest.approx(7.6681, abs=1e-3)
    assert found["spectral_time"] == pytest.approx(1.018, abs=1e-3)
    # index 446 belongs to the published Lambda = 7.66, rounded; 7.6681 is just beyond its time
    schedule = schedules.ddpm_linear()
    assert schedules.step_index(schedule, 0.5 * np.log(7.66)) == 446
    assert found["spectral_index"] == 447
    steps = found["published_steps"]
    # (step, quantity, reference, its standard error): both errors count
    for step, name, value, error in (
        ("300", "phi", 0.9684, 0.0029),
        ("450", "phi", 0.7521, 0.0053),
        ("600", "phi", 0.5704, 0.0025),
        ("200", "excess_over_alpha", 0.1142, 0.0058),
        ("400", "excess_over_alpha", 0.6101, 0.0087),
        ("500", "excess_over_alpha", 0.8389, 0.0057),
        # errors of phi_C are not quoted: a sample as large as that of phi
        ("200", "participation", 0.6668, 0.009),
        ("400", "participation", 0.0518, 0.005),
        ("500", "participation", 0.0026, 0.0008),
    ):
        distance = abs(steps[step][name] - value)
        assert distance < 4 * np.hypot(error, steps[step][f"{name}_error"]), (step, name)
    network = next(c for c in report.comparisons if "published network" in c.name)
    assert network.discrepancy < 0.03
    for comparison in report.comparisons:
        assert comparison.passed is not False, comparison.line()


# Magnets ------------------------------------------------------------------------------------------


def test_the_formula_for_clones_of_a_magnet_has_an_error_of_one_over_d(runs):
    shift = runs("curie_weiss")[0].summary["shift_times_d"]
    (small, large) = (shift[str(dim)] for dim in (16, 64))
    assert small["value"] < -4 * small["error"]  # the formula is not exact at d = 16
    assert abs(large["value"]) < abs(small["value"]) + 4 * large["error"]
    # and the difference itself is smaller by the ratio of the sizes at least
    assert abs(large["value"]) / 64 < 0.5 * abs(small["value"]) / 16


def test_information_of_a_magnet_is_alpha_at_the_collapse_time(runs):
    for alpha in curie_weiss.ALPHAS:
        found = runs("curie_weiss")[0].summary[f"collapse_time_alpha{alpha:g}"]
        # the 1/d term is removed, the next one (5% at d = 32) is not
        assert abs(found["value"] - found["theory"]) < 0.1 * found["theory"]


def test_minima_of_the_measured_potential(runs):
    found = runs("curie_weiss")[0].summary["minima"]
    assert found["exact"][0] > 3
    assert found["exact"][-1] == 0
    error = np.maximum(found["error"], 1e-9)
    assert np.all(np.abs(found["value"] - found["exact"]) < 4 * error)


def test_ordering_of_potts_data_tends_to_the_coexistence(runs):
    found = runs("potts")[0].summary
    gap = [found["beta_c"] - found[f"d{dim}"]["equal_weight"] for dim in (64, 512)]
    assert 0 < gap[1] < 0.2 * gap[0]  # 1/8 for an exact 1/d
    value = found["eigenvalue"]
    assert abs(value["value"] - value["exact"]) < 4 * value["error"]
    assert abs(value["exact"] / value["large_d"] - 1) < 0.1


def test_curie_weiss_refuses_dims_that_are_not_doubled():
    config = curie_weiss.Config(information_dims=(32, 48))
    with pytest.raises(ValueError, match=r"information_dims must be d and 2d, got \(32, 48\)"):
        curie_weiss.simulate(config, None)


# Random energies ----------------------------------------------------------------------------------


def test_distance_of_random_energies_from_their_limit_is_of_order_log_n_over_n(runs):
    entries = list(runs("random_energy")[0].summary["sizes"].values())
    for entry in entries:
        # the prediction leaves out terms of relative order log N / N
        allowed = 1.5 * np.log(entry["size"]) / entry["size"]
        assert abs(entry["ratio"] - 1) < allowed + 4 * entry["ratio_error"]
    first, last = entries[0], entries[-1]
    error = np.hypot(first["missing_error"], last["missing_error"])
    assert first["missing"] - last["missing"] > 4 * error
    # participation falls to that of the Poisson-Dirichlet law from above
    for entry in entries:
        excess = entry["participation"] - entry["participation_limit"]
        assert -4 * entry["participation_error"] < excess < 0.2


def test_random_energy_refuses_sizes_without_a_transition():
    with pytest.raises(ValueError, match="both phases are measured"):
        random_energy.temperatures(random_energy.Config(lowest=1.1))
    with pytest.raises(ValueError, match="draws is 1"):
        random_energy.temperatures(random_energy.Config(draws=1))


# Kernel density -----------------------------------------------------------------------------------


def test_kernel_estimates_approach_their_limit_with_the_dimension(runs):
    first, *_, last = runs("kernel_density")[0].summary.values()
    for key in ("participation_from_limit", "squares_from_limit"):
        error = np.hypot(first[f"{key}_error"], last[f"{key}_error"])
        assert first[key] - last[key] > 4 * error
    # so does the best width, from above, and the diffusion root is another number
    for entry in (first, last):
        assert entry["best_width"] > entry["optimal"]
        assert entry["diffusion"] > 1.1 * entry["glass"]
    error = np.hypot(first["best_width_error"], last["best_width_error"])
    assert first["best_width"] / first["glass"] - last["best_width"] / last["glass"] > 2 * error


def test_kernel_density_refuses_too_few_widths():
    with pytest.raises(ValueError, match="widths is 4"):
        kernel_density.sizes(kernel_density.Config(widths=4))
    with pytest.raises(ValueError, match="sets is 1"):
        kernel_density.sizes(kernel_density.Config(sets=1))


# Trained networks ---------------------------------------------------------------------------------


def test_loss_of_a_network_falls_and_its_curve_is_kept(runs):
    report, folder = runs("train")
    losses = report.curves["losses"]
    assert len(losses) == train.PRESETS["test"]["steps"]
    # 60 steps of batch 32: the mean of the last 15 is 4 of its errors below that of the first 15
    first, last = losses[:15], losses[-15:]
    error = np.hypot(first.std(ddof=1), last.std(ddof=1)) / np.sqrt(15)
    assert first.mean() - last.mean() > 4 * error
    (training,) = folder.glob("training-*")
    assert (training / "progress.png").stat().st_size > 0
    assert len((training / "loss.csv").read_text().splitlines()) == len(losses) + 1
    # nothing can be better than the exact posterior mean of the training images
    curves = report.curves
    error = np.hypot(curves["train_error"], curves["empirical_error"])
    assert np.all(curves["train"] > curves["empirical"] - 4 * error)


def test_memorisation_refuses_sizes_and_seeds_without_a_comparison():
    with pytest.raises(ValueError, match="sizes must be two or more that increase"):
        memorisation_vs_n.simulate(memorisation_vs_n.Config(sizes=(16, 16)), None)
    with pytest.raises(ValueError, match="seeds is 1"):
        memorisation_vs_n.simulate(memorisation_vs_n.Config(seeds=1), None)


@pytest.mark.slow
def test_few_images_are_memorised_and_many_are_not(tmp_path, execute):
    report = execute("memorisation_vs_n", tmp_path, "quick")
    found, error = report.curves["memorised"], report.curves["memorised_error"]
    null = report.curves["null"]
    assert report.curves["sizes"][0] == 16
    assert report.curves["sizes"][-1] == 1500
    assert found[0] - 4 * error[0] > 0.5
    allowed = np.hypot(error[-1], report.curves["null_error"][-1])
    assert found[-1] < null[-1] + 4 * allowed


# Larger sizes -------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", MODULES)
def test_quick_preset(tmp_path, name, execute):
    report = execute(name, tmp_path, "quick")
    for comparison in report.comparisons:
        assert comparison.passed is not False, comparison.line()
