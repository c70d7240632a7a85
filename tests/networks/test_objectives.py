"""Denoising losses: conversions between what a network predicts, weights, noise levels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import processes, schedules
from diffjax.networks import objectives

PROCESSES = {
    "ou": processes.ornstein_uhlenbeck(1.7),
    "flow": processes.rectified_flow(0.6),
    "ve": processes.variance_exploding(),
    "vp": processes.variance_preserving(schedules.ddpm_linear()),
}
TIMES = jnp.array([1e-3, 0.2, 0.9, 2.5])
MEAN, VARIANCE = jnp.array([0.3, -1.2, 0.5]), jnp.array([0.4, 2.0, 0.05])


def gaussian_network(process, kind):
    """The exact posterior mean of ``N(MEAN, VARIANCE)``, as the output of a network."""

    def apply(params, x, time, *, key=None):
        t = process.time(time)
        scale, std = process.scale(t)[:, None], process.std(t)[:, None]
        gain = scale * VARIANCE / (std**2 + scale**2 * VARIANCE)
        mean = MEAN + gain * (x - scale * MEAN)
        return objectives.prediction(kind, mean, x, scale[:, 0], std[:, 0])

    return apply


def examples(key, t):
    key_a, key_z = jax.random.split(key)
    a = MEAN + jnp.sqrt(VARIANCE) * jax.random.normal(key_a, (len(t), 3))
    return a, jax.random.normal(key_z, a.shape)


@pytest.mark.parametrize("name", PROCESSES)
def test_the_weighted_loss_of_the_posterior_mean_is_the_same_for_every_prediction(name, key):
    process = PROCESSES[name]
    a, z = examples(key, TIMES)
    found = {}
    for weighting in objectives.WEIGHTINGS:
        for kind in objectives.PARAMETRISATIONS:
            objective = objectives.objective(
                process, objectives.ListedTimes(TIMES), kind, weighting
            )
            network = gaussian_network(process, kind)
            found[weighting, kind] = objectives.example_losses(
                objective, network, None, a, TIMES, z
            )
    scale, std = process.scale(TIMES), process.std(TIMES)
    gain = (scale * VARIANCE[:, None] / (std**2 + scale**2 * VARIANCE[:, None])).T
    mean = MEAN + gain * (scale[:, None] * (a - MEAN) + std[:, None] * z)
    error, snr = np.mean((a - mean) ** 2, axis=1), np.asarray((scale / std) ** 2)
    factors = {
        "eps": snr, "x0": 1.0, "v": 1 + snr, "min_snr": np.minimum(snr, 5),
        "sigmoid": snr / (1 + snr * np.exp(-2)),
    }  # fmt: skip
    for (weighting, kind), loss in found.items():
        # a is lost to rounding in x - scale a at the smallest noise, where snr is 300
        np.testing.assert_allclose(
            loss, factors[weighting] * error, rtol=1e-9, err_msg=f"{weighting} {kind}"
        )


@pytest.mark.parametrize("name", PROCESSES)
@pytest.mark.parametrize("kind", objectives.PARAMETRISATIONS)
def test_outputs_and_denoisers_are_inverse(name, kind, key):
    process = PROCESSES[name]
    scale, std = process.scale(TIMES), process.std(TIMES)
    a, z = examples(key, TIMES)
    x = scale[:, None] * a + std[:, None] * z
    exact = objectives.target(kind, a, z, scale, std)
    np.testing.assert_allclose(objectives.denoised(kind, exact, x, scale, std), a, rtol=1e-9)
    output = jax.random.normal(key, a.shape)
    mean = objectives.denoised(kind, output, x, scale, std)
    back = objectives.prediction(kind, mean, x, scale, std)
    np.testing.assert_allclose(back, output, rtol=1e-8, atol=1e-10)


def test_weights_do_not_divide_by_a_scale_of_zero():
    for kind in objectives.PARAMETRISATIONS:
        for weighting in objectives.WEIGHTINGS:
            ends = objectives.weights(kind, weighting, jnp.array([-jnp.inf, jnp.inf]))
            assert np.all(np.isfinite(ends))
            assert np.all(ends >= 0)


def test_noise_losses_of_a_gaussian(key):
    # sum_i snr v_i / (1 + snr v_i), whatever is predicted and however training is weighted
    process = PROCESSES["ou"]
    data = MEAN + jnp.sqrt(VARIANCE) * jax.random.normal(key, (4000, 3))
    snr = np.asarray(processes.snr(process, TIMES))[:, None]
    expected = np.sum(snr * VARIANCE / (1 + snr * VARIANCE), axis=1)
    for kind, weighting in (("eps", "x0"), ("v", "sigmoid")):
        objective = objectives.objective(process, objectives.ListedTimes(TIMES), kind, weighting)
        network = gaussian_network(process, kind)
        loss = objectives.noise_losses(
            key, objective, network, None, data, TIMES, samples=3000, batch=500
        )
        assert np.all(np.abs(loss.mean - expected) < 4 * loss.error)
        assert np.all(loss.error < 0.05 * expected + 0.03)


def test_published_levels_leave_out_index_zero(key):
    objective = objectives.published()
    t = objective.levels.draw(key, 200_000, jnp.float32)
    index = np.round(np.asarray(objective.process.native(t))).astype(int)
    counts = np.bincount(index, minlength=1000)
    assert counts[0] == 0
    assert counts[1:].min() > 0
    # chi-square of a uniform law over 999 cells within 4 of its standard deviations
    chi = np.sum((counts[1:] - 200_000 / 999) ** 2) / (200_000 / 999)
    assert abs(chi - 998) < 4 * np.sqrt(2 * 998)
    assert objective.parametrisation == objective.weighting == "eps"


def test_even_levels_fill_the_range_of_log_snr(key):
    levels = objectives.EvenLogSnr(0.01, 3.0)
    t = levels.draw(key, 64, jnp.float64)
    y = np.sort(np.asarray(jnp.log(jnp.expm1(2 * t))))
    low, high = np.log(np.expm1([0.02, 6.0]))
    np.testing.assert_allclose(np.diff(y), (high - low) / 64, rtol=1e-9)
    assert low <= y[0] < y[-1] < high


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: objectives.modern(parametrisation="x"), "unknown parametrisation 'x'"),
        (lambda: objectives.modern(weighting="snr2"), "unknown weighting 'snr2'"),
        (lambda: objectives.modern(t_min=0.0), "0 < t_min < t_max"),
        (
            lambda: objectives.objective(
                PROCESSES["ou"], objectives.ListedTimes(jnp.array([0.0, 1.0]))
            ),
            "must be positive",
        ),
    ],
)
def test_bad_objectives_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_networks_are_functions():
    with pytest.raises(TypeError, match="network must be a function"):
        objectives.as_partial(3)
