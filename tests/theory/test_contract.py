"""What every public function promises: one registry, the same questions to each of its entries."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from theory import associative_memory as memory
from theory import (
    bessel,
    biased_sign,
    channel,
    clone_agreement,
    collapse,
    curie_weiss,
    excess_entropy,
    finite_random_energy,
    finite_size,
    grem,
    kernel_density,
    mean_field,
    memorisation_rem,
    potentials,
    quadrature,
    random_features,
    rem,
    speciation,
    symmetry_breaking,
)
from theory.checks import floats
from theory.cumulants import noncentral_chi_square as chi_square


def parts(value):
    """Real and imaginary part."""
    return jnp.real(value), jnp.imag(value)


SPECTRUM = np.array([2.0, 0.7, 0.3, 0.1])
THIRDS = np.array([0.2, 0.3, 0.5])

# generic arguments: no variance and no temperature of one, no equal weights
FUNCTIONS = {
    "ou_variance": (channel.ou_variance, (0.7, 0.6)),
    "snr": (channel.snr, (0.7, 0.6)),
    "time_of_snr": (channel.time_of_snr, (0.7, 0.6)),
    "state_variance": (channel.state_variance, (0.7, 0.4, 0.6)),
    "signal_ratio": (channel.signal_ratio, (0.7, 0.4, 0.6)),
    "gaussian_information": (channel.gaussian_information, (0.7, SPECTRUM)),
    "binary_mmse": (channel.binary_mmse, (0.7,)),
    "binary_information": (channel.binary_information, (0.7,)),
    "mixture_information": (channel.mixture_information, (0.7,)),
    "noncentral_log_cdf": (quadrature.noncentral_chi_square_log_cdf, (5.0, 7.5, 3.0)),
    "spectral_time": (speciation.spectral_time, (3.0, 0.6)),
    "static_time": (speciation.static_time, (3.0, 0.6)),
    "dynamic_time": (speciation.dynamic_time, (3.0, 0.6)),
    "mixture_static_time": (speciation.mixture_static_time, (2.0, 0.4, 0.6)),
    "mixture_dynamic_time": (speciation.mixture_dynamic_time, (2.0, 0.4, 0.6)),
    "hierarchy_times": (speciation.hierarchy_times, (np.array([4.0, 2.0]), 0.6)),
    "clone_agreement": (clone_agreement.clone_agreement, (0.7,)),
    "mixture_kappa": (clone_agreement.mixture_kappa, (0.7, 2.0, 0.4, 0.6)),
    "weighted_clone_agreement": (clone_agreement.weighted_clone_agreement, (0.7, 0.3)),
    "mixture_clone_agreement": (
        clone_agreement.mixture_clone_agreement,
        (0.7, 2.0, 0.4, 0.3, 0.6),
    ),
    "kappa_of_agreement": (clone_agreement.kappa_of_agreement, (0.4, 0.3)),
    "mixture_crossing_time": (
        clone_agreement.mixture_crossing_time,
        (3.0, 0.4, 0.3, 0.6, 0.5),
    ),
    "orthogonal_clone_agreement": (
        speciation.orthogonal_clone_agreement,
        (np.array([1.0, 0.5, 2.0]), THIRDS),
    ),
    "simplex_clone_agreement": (speciation.simplex_clone_agreement, (1.2, THIRDS)),
    "hierarchy_clone_agreement": (
        speciation.hierarchy_clone_agreement,
        (0.7, np.array([2.0, 1.0]), 0.4, 0.6),
    ),
    "effective_kappa": (
        clone_agreement.effective_kappa,
        (0.7, np.array([0.3, 0.1]), np.array([0.5, 0.7]), np.array([0.6, 0.4]), 0.6),
    ),
    "effective_kappa_matrix": (
        clone_agreement.effective_kappa,
        (0.7, np.array([0.3, 0.1]), np.eye(2), np.array([[0.6, 0.2], [0.2, 0.4]]), 0.6),
    ),
    "variance_clone_agreement": (
        clone_agreement.variance_clone_agreement,
        (0.7, 5.0, 0.5, 1.5, 0.3, 0.6),
    ),
    "reduced_drift": (potentials.reduced_drift, (0.3, 0.7, 2.0, 0.4, 0.3, 0.6)),
    "reduced_potential": (potentials.reduced_potential, (0.3, 0.7, 2.0, 0.4, 0.3, 0.6)),
    "overlap_potential": (potentials.overlap_potential, (0.3, 0.7, 9.0, 2.0, 0.4, 0.6)),
    "simplex_potential": (potentials.simplex_potential, (0.3, 0.9, 4.0)),
    "simplex_instability": (potentials.simplex_instability, (4.0,)),
    "simplex_spinodal": (potentials.simplex_spinodal, (4.0,)),
    "simplex_dynamic_time": (potentials.simplex_dynamic_time, (5.0, 4.0, 0.6)),
    "simplex_spinodal_time": (potentials.simplex_spinodal_time, (5.0, 4.0, 0.6)),
    "gaussian_excess_entropy": (
        excess_entropy.gaussian_excess_entropy,
        (0.7, 3.0, 8.0, 0.4, 0.6),
    ),
    "spectrum_excess_entropy": (
        excess_entropy.spectrum_excess_entropy,
        (0.7, 3.0, SPECTRUM, 0.6),
    ),
    "mixture_excess_entropy": (
        excess_entropy.mixture_excess_entropy,
        (0.7, 3.0, 8.0, 2.0, 0.4, 0.6),
    ),
    "gaussian_collapse_time": (collapse.gaussian_collapse_time, (3.0, 8.0, 0.4, 0.6)),
    "low_rank_collapse_time": (collapse.low_rank_collapse_time, (3.0, 8.0, 0.4, 0.6)),
    "spectrum_collapse_time": (collapse.spectrum_collapse_time, (3.0, SPECTRUM, 0.6)),
    "mixture_collapse_time": (collapse.mixture_collapse_time, (3.0, 8.0, 2.0, 0.4, 0.6)),
    "separated_mixture_collapse_time": (
        collapse.separated_mixture_collapse_time,
        (3.0, 8.0, 0.4, 0.6),
    ),
    "spin_collapse_time": (collapse.spin_collapse_time, (0.3, 0.6)),
    "trap_onset_time": (collapse.trap_onset_time, (0.2, 0.4, 0.6)),
    "two_level_collapse_times": (
        collapse.two_level_collapse_times,
        (np.array([0.05, 0.3]), np.array([0.5, 0.4]), 0.6),
    ),
    "nearest_is_own_probability": (
        finite_size.nearest_is_own_probability,
        (0.3, 3.0, 8.0, 0.4, 0.6),
    ),
    "gaussian_approximation_of_own": (
        finite_size.gaussian_approximation_of_own,
        (0.3, 3.0, 8.0, 0.4, 0.6),
    ),
    "expected_softplus": (finite_size.expected_softplus, (0.3, 2.0)),
    "expected_softplus_wide": (finite_size.expected_softplus, (0.3, 40.0)),
    "gaussian_empirical_excess_entropy": (
        finite_size.gaussian_empirical_excess_entropy,
        (0.3, 3.0, 8.0, 0.4, 0.6),
    ),
    "mixture_empirical_excess_entropy": (
        finite_size.mixture_empirical_excess_entropy,
        (0.3, 3.0, 8.0, 2.0, 0.4, 0.6),
    ),
    "memorisation_state": (memorisation_rem.memorisation_state, (0.15, 0.3, 0.4, 0.6, 0.5)),
    "others_free_energy": (memorisation_rem.others_free_energy, (0.9, 0.3, 0.4, 0.6, 0.5)),
    "leave_one_out_excess_entropy": (
        memorisation_rem.leave_one_out_excess_entropy,
        (0.15, 0.3, 0.4, 0.6),
    ),
    "typical_energy": (memorisation_rem.typical_energy, (0.5, 0.7, 0.4, 0.6)),
    "energy_tilt": (memorisation_rem.energy_tilt, (0.3, 0.7, 0.4, 0.6)),
    "energy_rate": (memorisation_rem.energy_rate, (0.3, 0.7, 0.4, 0.6)),
    "gaussian_free_energy": (rem.gaussian_free_energy, (0.7, 0.6, 1.3)),
    "participation_moment": (rem.participation_moment, (2.5, 0.6)),
    "squared_participation": (rem.squared_participation, (0.6,)),
    "thresholds": (kernel_density.thresholds, (0.3,)),
    "kernel_participation": (kernel_density.kernel_participation, (0.6, 0.3, 1.2)),
    "all_points_free_energy": (
        memorisation_rem.all_points_free_energy,
        (0.9, 0.3, 0.4, 0.6),
    ),
    "random_energy_state": (
        lambda beta, alpha, *law: rem.random_energy_state(beta, alpha, chi_square(*law)),
        (2.7, 0.3, 0.4, 0.6),
    ),
    "free_energy_above_condensation": (
        lambda beta, alpha, *law: rem.free_energy(beta, alpha, chi_square(*law)),
        (0.7, 0.3, 0.4, 0.6),
    ),
    "planted_free_energy": (
        lambda beta, alpha, u, rho, energy: rem.planted_free_energy(
            beta, alpha, chi_square(u, rho), energy
        ),
        (2.7, 0.3, 0.4, 0.6, -0.1),
    ),
    "condensation": (
        lambda alpha, *law: rem.condensation(alpha, chi_square(*law)),
        (0.3, 0.4, 0.6),
    ),
    "entropy": (
        lambda lam, alpha, *law: rem.entropy(lam, alpha, chi_square(*law)),
        (0.7, 0.3, 0.4, 0.6),
    ),
    "rate_function": (
        lambda energy, *law: rem.rate_function(energy, chi_square(*law)),
        (0.2, 0.4, 0.6),
    ),
    "finite_size_lowest_energy": (
        lambda size, alpha, *law: rem.finite_size_lowest_energy(size, alpha, chi_square(*law)),
        (30.0, 0.3, 0.4, 0.6),
    ),
    "finite_size_free_energy": (
        lambda beta, size, alpha, *law: rem.finite_size_free_energy(
            beta, size, alpha, chi_square(*law)
        ),
        (12.0, 30.0, 0.3, 0.4, 0.6),
    ),
    "gaussian_partition_averages": (
        finite_random_energy.gaussian_partition_averages,
        (2.3, 4.0),
    ),
    "tree_log_partition": (
        finite_random_energy.tree_log_partition,
        (np.array([1.3, 2.3]), np.array([3.0, 2.0])),
    ),
    "grem_free_energy": (
        grem.free_energy,
        (1.6, np.array([0.2, 0.5, 0.3]), np.array([0.9, 0.3, 0.4])),
    ),
    "freezing": (grem.freezing, (np.array([0.2, 0.5, 0.3]), np.array([0.9, 0.3, 0.4]))),
    "stability_index": (kernel_density.stability_index, (0.6, 0.3)),
    "finite_size_estimate": (
        lambda *numbers: kernel_density.finite_size_estimate(*numbers, nodes=448),
        (0.8, 4.0, 10.0),
    ),
    "kullback_leibler": (kernel_density.kullback_leibler, (0.6, 0.3)),
    "kullback_leibler_wide": (kernel_density.kullback_leibler, (2.6, 0.3)),
    "retrieval_threshold": (
        lambda lam: [memory.retrieval_threshold(lam, p) for p in memory.PATTERNS],
        (0.7,),
    ),
    "all_patterns_threshold": (memory.all_patterns_threshold, (0.7,)),
    "attraction_capacity": (
        lambda lam: [memory.attraction_capacity(lam, p) for p in memory.PATTERNS],
        (0.7,),
    ),
    "collapse_capacity": (
        lambda lam: [memory.collapse_capacity(lam, p) for p in memory.PATTERNS],
        (0.7,),
    ),
    "memory_energy": (memory.energy, (SPECTRUM, np.eye(3, 4), 0.7)),
    "memory_energy_gradient": (memory.energy_gradient, (SPECTRUM, np.eye(3, 4), 0.7)),
    "distance_energy": (memory.distance_energy, (SPECTRUM, np.eye(3, 4), 0.7)),
    "distance_energy_gradient": (
        memory.distance_energy_gradient,
        (SPECTRUM, np.eye(3, 4), 0.7),
    ),
    "circle_energy": (memory.circle_energy, (0.6, 1.7)),
    "circle_radius": (memory.circle_radius, (1.7,)),
    "circle_least_energy": (memory.circle_least_energy, (1.7,)),
    "sign_entropy": (biased_sign.sign_entropy, (0.7,)),
    "sign_information": (biased_sign.sign_information, (0.7, 0.4)),
    "sign_mmse": (biased_sign.sign_mmse, (0.7, 0.4)),
    "snr_of_sign_information": (biased_sign.snr_of_sign_information, (0.2, 0.4)),
    "beta_of_pair_coupling": (curie_weiss.beta_of_pair_coupling, (0.7, 1.2)),
    "magnetization": (curie_weiss.magnetization, (1.4, 0.05)),
    "effective_field": (curie_weiss.effective_field, (1.4, -0.05)),
    "magnetization_branches": (curie_weiss.magnetization_branches, (1.4, 0.05)),
    "spinodal_field": (curie_weiss.spinodal_field, (1.4,)),
    "susceptibility": (curie_weiss.susceptibility, (1.4, 0.05)),
    "free_energy_density": (curie_weiss.free_energy_density, (1.4, 0.05)),
    "landau_free_energy": (curie_weiss.landau_free_energy, (0.3, 1.4, 0.05)),
    "landau_coefficients": (curie_weiss.landau_coefficients, (1.4, 0.05)),
    "binary_entropy_of_magnetization": (
        curie_weiss.binary_entropy_of_magnetization,
        (1.4, 0.05),
    ),
    "log_partition": (partial(curie_weiss.log_partition, 12), (1.4, 0.05)),
    "top_eigenvalue": (partial(curie_weiss.top_eigenvalue, 12), (1.4, 0.05)),
    "asymptotic_top_eigenvalue": (curie_weiss.asymptotic_top_eigenvalue, (30.0, 1.4)),
    "spectral_speciation_time": (
        partial(curie_weiss.spectral_speciation_time, 12),
        (1.4, 0.6),
    ),
    "static_speciation_time": (partial(curie_weiss.static_speciation_time, 12), (1.4, 0.6)),
    "dynamic_speciation_time": (partial(curie_weiss.dynamic_speciation_time, 12), (1.4, 0.6)),
    "exact_class_weight": (partial(curie_weiss.exact_class_weight, 12), (1.4, 0.3)),
    "exact_overlap_potential": (
        lambda mu, t, *law: curie_weiss.exact_overlap_potential(mu, t, 12, *law),
        (0.7, 0.8, 1.4, 0.3, 0.6),
    ),
    "overlap_clone_agreement": (
        lambda t, *law: curie_weiss.overlap_clone_agreement(t, 12, *law),
        (0.8, 1.4, 0.3, 0.6),
    ),
    "curie_weiss_information": (curie_weiss.information, (0.3, 1.4, 0.05, 0.6)),
    "entropy_density": (curie_weiss.entropy_density, (0.3, 1.4, 0.05, 0.6)),
    "curie_weiss_collapse_time": (curie_weiss.collapse_time, (0.1, 1.4, 0.05, 0.6)),
    "class_weight": (curie_weiss.class_weight, (1.4, 0.3)),
    "clone_kappa": (curie_weiss.clone_kappa, (1.3, 30.0, 1.4, 0.6)),
    "curie_weiss_clone_agreement": (
        curie_weiss.clone_agreement,
        (1.3, 30.0, 1.4, 0.3, 0.6),
    ),
    "magnet_overlap_potential": (
        curie_weiss.overlap_potential,
        (0.7, 1.3, 30.0, 1.4, 0.3, 0.6),
    ),
    "bifurcation": (curie_weiss.bifurcation, (1.1, 30.0, 1.4, 0.2, 0.6)),
    "bessel_ratio": (bessel.bessel_ratio, (0.7, 2.3)),
    "potts_transition": (mean_field.potts_transition, (3.5,)),
    "potts_magnetization": (mean_field.potts_magnetization, (3.0, 2.85)),
    "potts_free_energy": (mean_field.potts_free_energy, (0.4, 3.5, 2.85)),
    "potts_class_norm": (mean_field.potts_class_norm, (30.0, 3.0, 2.85)),
    "potts_top_eigenvalue": (mean_field.potts_top_eigenvalue, (30.0, 3.5, 3.9)),
    "potts_speciation_time": (mean_field.potts_speciation_time, (30.0, 3.5, 3.9, 0.6)),
    "rotor_magnetization": (mean_field.rotor_magnetization, (2.5, 3.9)),
    "rotor_top_eigenvalue": (mean_field.rotor_top_eigenvalue, (30.0, 2.5, 3.9)),
    "rotor_speciation_time": (mean_field.rotor_speciation_time, (30.0, 2.5, 3.9, 0.6)),
    "activation_constants": (random_features.activation_constants, (0.3, 0.7)),
    "stieltjes": (
        lambda x, y, *law: parts(random_features.stieltjes(jax.lax.complex(*floats(x, y)), *law)),
        (0.5, -0.2, 0.03, 4.0, 2.0, np.array([0.4, 1.3])),
    ),
    "spectral_density": (
        random_features.spectral_density,
        (0.5, 0.03, 4.0, 2.0, np.array([0.4, 1.3])),
    ),
    "bulks": (
        lambda *law: [part[:2] for part in random_features.bulks(*law)],
        (0.03, 4.0, 2.0, np.array([0.4, 1.3])),
    ),
    "relaxation_time": (random_features.relaxation_time, (0.5, 0.03, 4.0)),
    "training_times": (random_features.training_times, (0.03, 4.0, 2.0, np.array([0.8]))),
    "asymptotic_training_times": (random_features.asymptotic_training_times, (0.03, 2.0)),
    "fixed_point_time": (speciation.fixed_point_time, (3.0, 0.7, 0.6)),
    "centre_times": (speciation.centre_times, (0.4, 0.6)),
    "centre_rate": (symmetry_breaking.centre_rate, (0.4, 2.0, 0.7, 0.6)),
    "ordered_radius": (symmetry_breaking.ordered_radius, (0.3, 1.6, 3.0, 0.7, 0.6)),
    "sphere_rates": (symmetry_breaking.sphere_rates, (0.3, 1.1, 1.6, 3.0, 0.7, 0.6)),
    "field_magnetization": (symmetry_breaking.field_magnetization, (1.4, 0.05)),
    "field_susceptibility": (symmetry_breaking.field_susceptibility, (1.4, 0.05)),
    "field_free_energy": (symmetry_breaking.field_free_energy, (1.4,)),
    "sphere_order": (symmetry_breaking.sphere_order, (1.4, 1.7, 3.0)),
    "linear_schedule_time": (symmetry_breaking.linear_schedule_time, (0.3, 0.1, 20.0)),
    "linear_schedule_index": (symmetry_breaking.linear_schedule_index, (0.3, 0.1, 20.0)),
}


def flatten(value):
    """All numbers of a result, on the host."""
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(value)])


def of_vector(function, arguments):
    """The function of one flat vector of numbers, with one flat vector as its value."""
    shapes = [np.shape(a) for a in arguments]
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes])[:-1]

    def call(vector):
        parts = jnp.split(vector, ends)
        value = function(*(part.reshape(shape) for part, shape in zip(parts, shapes)))
        return jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(value)])

    return call


LONG_TO_COMPILE = {
    "activation_constants",
    "bifurcation",
    "bulks",
    "condensation",
    "curie_weiss_clone_agreement",
    "curie_weiss_collapse_time",
    "finite_size_estimate",
    "finite_size_free_energy",
    "finite_size_lowest_energy",
    "gaussian_partition_averages",
    "magnetization_branches",
    "memorisation_state",
    "nearest_is_own_probability",
    "potts_class_norm",
    "potts_magnetization",
    "potts_speciation_time",
    "potts_top_eigenvalue",
    "random_energy_state",
    "rotor_magnetization",
    "rotor_speciation_time",
    "rotor_top_eigenvalue",
    "snr_of_sign_information",
    "spectral_density",
    "stieltjes",
    "training_times",
    "tree_log_partition",
}


def marked(names):
    """Names for parametrize; what takes seconds to compile is run on demand."""
    return [
        pytest.param(name, marks=pytest.mark.slow) if name in LONG_TO_COMPILE else name
        for name in names
    ]


@pytest.mark.parametrize("name", marked(FUNCTIONS))
def test_batches_and_derivatives(name):
    """vmap and jit give the eager value, and derivatives agree with central differences."""
    function, arguments = FUNCTIONS[name]
    call = of_vector(function, arguments)
    vector = flatten(arguments)
    step = 1e-5 * np.maximum(np.abs(vector), 0.1)
    moves = np.concatenate([np.zeros((1, vector.size)), np.diag(step), -np.diag(step)])
    together = jax.jit(lambda v, batch: (jax.vmap(call)(batch), jax.jacrev(call)(v)))
    batch, jacobian = map(np.asarray, together(vector, vector + moves))
    eager = flatten(function(*arguments))
    # a batch may sum in another order
    np.testing.assert_allclose(batch[0], eager, rtol=1e-11, atol=1e-13)
    assert np.isfinite(eager).all()

    slopes = (batch[1 : 1 + vector.size] - batch[1 + vector.size :]) / (2 * step[:, None])
    # rounding 1e-12 / 1e-6 plus h^2 third derivatives
    scale = 1 + np.abs(slopes).max()
    np.testing.assert_allclose(jacobian.T, slopes, rtol=0, atol=1e-6 * scale)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_single_precision_stays_single(name, strict):
    """float32 in, float32 out, with no silent promotion on the way."""
    function, arguments = FUNCTIONS[name]
    single = tuple(jnp.asarray(a, jnp.float32) for a in arguments)
    for leaf in jax.tree.leaves(jax.eval_shape(function, *single)):
        assert leaf.dtype == jnp.float32


@pytest.mark.parametrize(
    "name",
    ["clone_agreement", "mixture_collapse_time", "nearest_is_own_probability", "thresholds"],
)
def test_single_precision_is_close(name, strict):
    function, arguments = FUNCTIONS[name]
    single = function(*(jnp.asarray(a, jnp.float32) for a in arguments))
    double = flatten(function(*arguments))
    # well-conditioned equations, to a few hundred units in the last place
    np.testing.assert_allclose(flatten(single), double, rtol=1e-4, atol=1e-5)


T = 0.6
ROOT = np.sqrt(T)
RESCALED = {
    "spectral_time": ((3.0, T), (3.0 / T, 1.0)),
    "static_time": ((3.0, T), (3.0 / T, 1.0)),
    "dynamic_time": ((3.0, T), (3.0 / T, 1.0)),
    "mixture_static_time": ((2.0, 0.4, T), (2.0 / ROOT, 0.4 / T, 1.0)),
    "mixture_dynamic_time": ((2.0, 0.4, T), (2.0 / ROOT, 0.4 / T, 1.0)),
    "mixture_kappa": ((0.7, 2.0, 0.4, T), (0.7, 2.0 / ROOT, 0.4 / T, 1.0)),
    "mixture_clone_agreement": (
        (0.7, 2.0, 0.4, 0.3, T),
        (0.7, 2.0 / ROOT, 0.4 / T, 0.3, 1.0),
    ),
    "mixture_crossing_time": ((3.0, 0.4, 0.3, T), (3.0 / ROOT, 0.4 / T, 0.3, 1.0)),
    "hierarchy_clone_agreement": (
        (0.7, np.array([2.0, 1.0]), 0.4, T),
        (0.7, np.array([2.0, 1.0]) / ROOT, 0.4 / T, 1.0),
    ),
    "variance_clone_agreement": (
        (0.7, 5.0, 0.5, 1.5, 0.3, T),
        (0.7, 5.0, 0.5 / T, 1.5 / T, 0.3, 1.0),
    ),
    "effective_kappa": (
        (0.7, np.array([0.3]), np.array([0.5]), np.array([0.6]), T),
        (0.7, np.array([0.3]) / ROOT, np.array([0.5]) / T, np.array([0.6]) / T, 1.0),
    ),
    "fixed_point_time": ((3.0, 0.7, T), (3.0 / T, 0.7, 1.0)),
    "centre_rate": ((0.4, 2.0, 0.7, T), (0.4, 2.0 / T, 0.7, 1.0)),
    "sphere_rates": (
        (0.3, 1.1, 1.6, 3.0, 0.7, T),
        (0.3, 1.1 / ROOT, 1.6 / ROOT, 3.0, 0.7, 1.0),
    ),
    "simplex_dynamic_time": ((5.0, 4.0, T), (5.0 / ROOT, 4.0, 1.0)),
    "simplex_spinodal_time": ((5.0, 4.0, T), (5.0 / ROOT, 4.0, 1.0)),
    "gaussian_excess_entropy": ((0.7, 3.0, 8.0, 0.4, T), (0.7, 3.0, 8.0, 0.4 / T, 1.0)),
    "spectrum_excess_entropy": ((0.7, 3.0, SPECTRUM, T), (0.7, 3.0, SPECTRUM / T, 1.0)),
    "mixture_excess_entropy": (
        (0.7, 3.0, 8.0, 2.0, 0.4, T),
        (0.7, 3.0, 8.0, 2.0 / ROOT, 0.4 / T, 1.0),
    ),
    "gaussian_collapse_time": ((3.0, 8.0, 0.4, T), (3.0, 8.0, 0.4 / T, 1.0)),
    "spectrum_collapse_time": ((3.0, SPECTRUM, T), (3.0, SPECTRUM / T, 1.0)),
    "mixture_collapse_time": ((3.0, 8.0, 2.0, 0.4, T), (3.0, 8.0, 2.0 / ROOT, 0.4 / T, 1.0)),
    "separated_mixture_collapse_time": ((3.0, 8.0, 0.4, T), (3.0, 8.0, 0.4 / T, 1.0)),
    "trap_onset_time": ((0.2, 0.4, T), (0.2, 0.4 / T, 1.0)),
    "two_level_collapse_times": (
        (np.array([0.05, 0.3]), np.array([0.5, 0.4]), T),
        (np.array([0.05, 0.3]), np.array([0.5, 0.4]) / T, 1.0),
    ),
    "nearest_is_own_probability": (
        (0.3, 3.0, 8.0, 0.4, T),
        (0.3, 3.0, 8.0, 0.4 / T, 1.0),
    ),
    "memorisation_state": ((0.15, 0.3, 0.4, T, 0.5), (0.15, 0.3, 0.4 / T, 1.0, 0.5 / T)),
    "energy_rate": ((0.3, 0.7, 0.4, T), (0.3, 0.7, 0.4 / T, 1.0)),
}


@pytest.mark.parametrize("name", RESCALED)
def test_temperature_rescales_lengths(name):
    """A process at temperature T on a is the standard one on a / sqrt(T)."""
    function = FUNCTIONS[name][0]
    warm, standard = (flatten(function(*given)) for given in RESCALED[name])
    np.testing.assert_allclose(warm, standard, rtol=1e-10, atol=1e-12)
