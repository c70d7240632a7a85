"""Networks as data: an exact Gaussian as a network, every process, samplers, clones, gradients."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from generated import normal

from diffjax import (
    Diffusion,
    backward,
    clones,
    gaussian_mixture,
    networks,
    ornstein_uhlenbeck,
    rectified_flow,
    schedules,
    u_turns,
    variance_exploding,
    variance_preserving,
)
from diffjax.data.base import Denoiser, Posterior
from diffjax.networks.mlp import MLPConfig, mlp
from diffjax.networks.objectives import PARAMETRISATIONS

MEAN, VARIANCE = np.array([0.7, -1.1, 0.3]), np.array([0.4, 1.9, 0.8])
GAUSSIAN = gaussian_mixture([1.0], MEAN[None], VARIANCE[None])
PROCESSES = {
    "ou": ornstein_uhlenbeck(1.3),
    "vp": variance_preserving(schedules.cosine(40)[1:]),
    "ve": variance_exploding(0.6),
    "flow": rectified_flow(0.9),
}
METHODS = {"ancestral": "ve", "ddim": "flow", "euler_maruyama": "ou", "heun": "vp"}


def gaussian_network(kind, process):
    """The exact posterior of the Gaussian as a network in the coordinates of ``process``."""

    def apply(params, x, native):
        mean, variance = params
        t = process.time(native)
        scale, std = process.scale(t)[..., None], process.std(t)[..., None]
        total = scale**2 * variance + std**2
        centred = (x - scale * mean) / total
        clean, noise = mean + scale * variance * centred, std * centred
        size = jnp.sqrt(scale**2 + std**2)
        return {"x0": clean, "eps": noise, "v": (scale * noise - std * clean) / size}[kind]

    return apply


def exact_denoiser(kind, name, **options):
    process = PROCESSES[name]
    params = (jnp.asarray(MEAN), jnp.asarray(VARIANCE))
    return networks.network_denoiser(
        gaussian_network(kind, process), params, shape=3, process=process,
        parametrisation=kind, whole_steps=False, **options,
    )  # fmt: skip


@pytest.mark.parametrize("own", PROCESSES)
@pytest.mark.parametrize("kind", PARAMETRISATIONS)
def test_exact_network_is_the_exact_posterior_in_every_channel(kind, own):
    net = exact_denoiser(kind, own)
    x = normal("denoiser.x", (4, 3)) + MEAN
    t = jnp.array([0.02, 0.3, 0.9, 2.2])
    for process in PROCESSES.values():
        scale, std = process.scale(t), process.std(t)
        wanted = GAUSSIAN.denoise(x, scale, std)
        # z is divided by scale on the way to a, and rounding with it.
        tolerance = 1e-12 if kind != "eps" else 1e-12 / float(jnp.exp(-t[-1]))
        np.testing.assert_allclose(net.denoise(x, scale, std), wanted, rtol=0, atol=tolerance)
        score = (scale[:, None] * wanted - x) / std[:, None] ** 2
        np.testing.assert_allclose(net.score(x, scale, std), score, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("method", METHODS)
def test_samplers_take_a_network_as_the_data(method):
    times = jnp.array([1.5, 1.0, 0.6, 0.3, 0.1])
    x = jnp.asarray(normal("sampler.x", (5, 3)))
    key = jax.random.key(1)
    ends = [
        backward(key, Diffusion(data, PROCESSES[METHODS[method]]), x, times, method=method)[0]
        for data in (GAUSSIAN, exact_denoiser("v", "flow"))
    ]
    np.testing.assert_allclose(ends[0], ends[1], atol=1e-11)


@pytest.fixture(scope="module")
def trained():
    """A small network with random weights."""
    return networks.functional(mlp(MLPConfig(dim=4, width=16, depth=1, features=4)))


def test_a_network_is_a_denoiser_and_no_posterior(trained):
    network, params = trained
    data = networks.network_denoiser(network, params, shape=(2, 2, 1))
    assert isinstance(data, Denoiser)
    assert not isinstance(data, Posterior)
    assert data.dim == 4
    diffusion = Diffusion(data, ornstein_uhlenbeck())
    with pytest.raises(TypeError, match="method 'exact' needs an exact posterior"):
        backward(jax.random.key(0), diffusion, jnp.zeros((1, 4)), [0.5, 0.1], method="exact")
    with pytest.raises(ValueError, match="t = 0 is singular"):
        diffusion.score(jnp.zeros(4), 0.0)


def test_clones_and_u_turns_of_a_network(trained, key):
    network, params = trained
    data = networks.network_denoiser(network, params, shape=4, parametrisation="x0")
    diffusion = Diffusion(data, rectified_flow())
    x = jnp.asarray(normal("clones.x", (6, 4)), jnp.float32)
    times = [0.8, 0.4, 0.1]
    ends, info = clones(key, diffusion, x, times)
    assert info.method == "ancestral"
    assert ends.shape == (6, 2, 4)
    assert ends.dtype == jnp.float32
    assert float(jnp.abs(ends[:, 0] - ends[:, 1]).min()) > 0
    back, _ = u_turns(key, diffusion, x, times)
    assert back.shape == x.shape
    # The first states of a larger batch are those of a smaller one.
    few, _ = clones(key, diffusion, x[:2], times)
    np.testing.assert_allclose(few, ends[:2], atol=1e-6)


def test_samples_are_differentiable_in_the_parameters_and_share_compilations(trained, key):
    network, params = trained
    traces = []

    @jax.jit
    def loss(data, x):
        traces.append(0)
        ends, _ = backward(key, Diffusion(data, ornstein_uhlenbeck()), x, jnp.array([0.8, 0.3]))
        return jnp.mean(jnp.square(ends))

    def of(params):
        data = networks.network_denoiser(network, params, shape=4, parametrisation="v")
        return loss(data, x)

    x = jnp.asarray(normal("grad.x", (6, 4)))
    params = jax.tree.map(lambda p: p.astype(float), params)
    direction = jax.tree.map(lambda p: jnp.asarray(normal("direction", p.shape)), params)
    step = 1e-5
    moved = [
        of(jax.tree.map(lambda p, u, s=s: p + s * u, params, direction)) for s in (step, -step)
    ]
    assert len(traces) == 1
    gradient = jax.grad(of)(params)
    slope = sum(jnp.vdot(g, u) for g, u in zip(*map(jax.tree.leaves, (gradient, direction))))
    np.testing.assert_allclose(slope, (moved[0] - moved[1]) / (2 * step), rtol=1e-6)


def clock(params, x, time):
    """A network that returns the time that it is given."""
    return jnp.broadcast_to(jnp.asarray(time)[..., None], x.shape)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_step_index_follows_the_signal_to_noise_ratio(dtype):
    schedule = schedules.ddpm_linear()
    own = variance_preserving(schedule)
    t = schedule.astype(dtype)

    def index(process, t, **options):
        net = networks.network_denoiser(
            clock, None, shape=1, process=own, parametrisation="x0", **options
        )
        x = jnp.zeros((*jnp.shape(t), 1), dtype)
        t = schedules.ou_time(snr=1 / jnp.expm1(2 * t), temperature=process.temperature)
        return Diffusion(net, process).denoise(x, t)[..., 0]

    for process in (own, variance_exploding(0.6)):
        np.testing.assert_array_equal(index(process, t), np.arange(1000))
    between = 0.3 * t[:-1] + 0.7 * t[1:]
    np.testing.assert_array_equal(index(own, between), np.arange(1, 1000))
    fraction = index(own, between, whole_steps=False)
    np.testing.assert_allclose(fraction, np.arange(999) + 0.7, atol=0.02)
    # Beyond the schedule: its ends.
    ends = index(own, jnp.array([1e-7, 9.0], dtype))
    np.testing.assert_array_equal(ends, [0, 999])


@pytest.mark.parametrize("kind", PARAMETRISATIONS)
def test_no_estimate_divides_by_a_vanishing_scale(kind):
    net = exact_denoiser(kind, "ou", t_range=(0.01, 4.0))
    x = normal("denoiser.x", (4, 3))
    ratio = np.exp(-4.0) / np.sqrt(1.3 * (1 - np.exp(-8.0)))
    last = net.denoise(x, ratio * 1.7, 1.7)
    np.testing.assert_array_equal(net.denoise(x, 0.0, 1.7), last)
    np.testing.assert_array_equal(net.denoise(x, ratio, 1.7), last)
    np.testing.assert_allclose(last, GAUSSIAN.denoise(x, ratio * 1.7, 1.7), atol=1e-9)
    gradient = jax.grad(lambda s: jnp.sum(net.denoise(x, s, 1.7)))(0.0)
    assert np.isfinite(gradient)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_scales_broadcast_and_dtypes_are_kept(trained, strict, dtype):
    network, params = trained
    net = networks.network_denoiser(network, params, shape=4)
    x = jnp.asarray(normal("broadcast.x", (5, 4)), dtype)
    scale, std = jnp.array([[0.9], [0.5]], dtype), jnp.asarray(0.7, dtype)
    out = net.denoise(x, scale, std)
    assert out.shape == (2, 5, 4)
    assert out.dtype == net.score(x, scale, std).dtype == dtype
    np.testing.assert_allclose(out[1, 3], net.denoise(x[3], scale[1, 0], std), rtol=1e-5)


def test_half_precision_states_are_kept(trained):
    network, params = trained
    net = networks.network_denoiser(network, params, shape=4)
    x = jnp.asarray(normal("broadcast.x", (5, 4)), jnp.bfloat16)
    out = net.denoise(x, 0.8, 0.6)
    assert out.dtype == jnp.bfloat16
    wide = net.denoise(x.astype(jnp.float32), 0.8, 0.6)
    np.testing.assert_array_equal(out, wide.astype(jnp.bfloat16))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"parametrisation": "flow"}, ValueError, "unknown parametrisation 'flow'; choose one of"),
        ({"t_range": (0.0, 60.0)}, ValueError, "need 0 <= t_min < t_max <= 40"),
        ({"t_range": (1.0, 0.5)}, ValueError, "need 0 <= t_min < t_max <= 40"),
        ({"shape": (8, 0)}, ValueError, "shape must be an integer >= 1"),
        ({"apply": 3}, TypeError, r"apply must be a function of \(params, x, time\), got 3"),
    ],
)
def test_bad_options_are_named(options, error, message):
    options = {"apply": clock, "params": None, "shape": 3, **options}
    with pytest.raises(error, match=message):
        networks.network_denoiser(
            options.pop("apply"), options.pop("params"), shape=options.pop("shape"), **options
        )
