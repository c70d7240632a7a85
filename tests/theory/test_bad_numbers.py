"""Numbers that are refused: the message holds the value and what to do about it."""

import jax
import numpy as np
import pytest

from theory import (
    channel,
    collapse,
    kernel_density,
    memorisation_rem,
    rem,
    speciation,
    symmetry_breaking,
)

BAD = [
    (speciation.spectral_time, (-1.0,), "eigenvalue must be >= 0"),
    (speciation.static_time, (3.0, 0.0), "temperature must be positive"),
    (speciation.dynamic_time, (np.array([3.0, np.nan]),), "eigenvalue=nan"),
    (speciation.mixture_static_time, (-2.0, 1.0), "mean_norm=-2.0"),
    (speciation.mixture_dynamic_time, (2.0, -1.0), "variance=-1.0"),
    (speciation.mixture_clone_agreement, (-0.1, 2.0, 1.0), "t must be >= 0"),
    (speciation.mixture_clone_agreement, (0.1, 2.0, 1.0, 1.0), "weight must be between 0 and 1"),
    (speciation.mixture_clone_agreement, (0.1, 2.0, -1.0), "variance=-1.0"),
    (speciation.mixture_clone_agreement, (0.1, 2.0, 1.0, 0.5, -1.0), "temperature=-1.0"),
    (speciation.mixture_crossing_time, (2.0, 1.0, 0.5, 1.0, 1.5), "level=1.5"),
    (speciation.orthogonal_clone_agreement, (np.ones(2), np.ones(2)), "sum of weights=2.0"),
    (speciation.simplex_potential, (0.1, 1.0, 1), "classes=1"),
    (speciation.effective_kappa, (1.0, np.ones(3), np.ones(3), np.eye(3)), "shapes"),
    (collapse.gaussian_collapse_time, (0.0, 8, 1.0), "log_n must be positive"),
    (collapse.gaussian_collapse_time, (3.0, 0, 1.0), "dim must be >= 1"),
    (collapse.gaussian_collapse_time, (3.0, 8, -1.0), "variance=-1.0"),
    (collapse.gaussian_collapse_time, (3.0, 8, 1.0, np.inf), "temperature=inf"),
    (collapse.spectrum_collapse_time, (3.0, np.array([1.0, -0.5])), "eigenvalues=-0.5"),
    (collapse.mixture_collapse_time, (3.0, 8, 1.0, 0.0), "variance must be positive"),
    (collapse.trap_onset_time, (0.0, 1.0), "alpha must be positive"),
    (collapse.two_level_collapse_times, (np.ones(3), np.ones(3)), "expected"),
    (collapse.nearest_is_own_probability, (0.1, 3.0, 8, 0.0), "variance must be positive"),
    (collapse.mixture_excess_entropy, (-1.0, 3.0, 8, 1.0, 1.0), "t=-1.0"),
    (channel.information_from_mmse, (np.array([1.0, 0.5]), np.ones(2)), "sort the curve"),
    (channel.information_from_mmse_in_time, (np.array([0.0, 0.5]), np.ones(2)), "t=0.0"),
    (channel.information_from_noise_loss, (np.ones(3), np.ones(2)), "shapes"),
    (memorisation_rem.energy_rate, (-0.3, 0.7, 0.4), "energy=-0.3"),
    (rem.participation_moment, (1.0, 0.5), "power must be above 1"),
    (kernel_density.thresholds, (-0.1,), "alpha=-0.1"),
    (speciation.fixed_point_time, (1.0, -0.5), "noise must be >= 0"),
    (symmetry_breaking.ordered_radius, (0.0, 1.0, 2), "t must be positive"),
    (symmetry_breaking.ordered_radius, (0.1, 1.0, 0), "dim must be >= 1"),
    (symmetry_breaking.field_magnetization, (0.0,), "inverse_variance must be positive"),
    (symmetry_breaking.linear_schedule_time, (-0.1,), "s=-0.1"),
]


@pytest.mark.parametrize(("function", "arguments", "message"), BAD)
def test_bad_numbers_are_refused(function, arguments, message):
    """The offending value and what to do about it are in the message."""
    with pytest.raises(ValueError, match=message):
        function(*arguments)


def test_checks_pass_over_tracers():
    assert np.isnan(jax.jit(speciation.spectral_time)(-1.0))
