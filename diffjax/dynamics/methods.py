r"""Backward transitions, behind one interface: ``make_step(method, model)``.

With ``f = (d log scale / dt) x``, ``g = scale e^t sqrt(2T)`` and ``s < t``:

    exact          a ~ p(a | x_t), then the Gaussian bridge to s. The chain has exactly the law
                   of the reverse SDE on the grid, at any step size.
    ancestral      the bridge with ``E[a | x_t]`` in place of ``a`` (DDPM); weak order 1. Its
                   variance is the bridge's or the forward transition's, DDPM's two choices.
    ddim           ``x_s = scale_s D + std_s/std_t (x_t - scale_t D)``, ``D = E[a | x_t]``; order 1.
                   With noise: ``std_s -> sqrt(std_s^2 - k^2)`` and ``+ k z``, ``k = eta`` times the
                   standard deviation of the bridge; ``eta = 1`` is ``ancestral``.
    euler_maruyama ``x_s = x_t - h f + h g^2 (1 + noise^2)/2 score + noise g sqrt(h) z``, h = t - s;
                   noise = 1 is the reverse SDE, 0 the probability flow; weak order 1.
    heun           probability flow by Heun's method in the exponential coordinates
                   ``u = x / scale``, ``q = std / scale``: ``du/dq = (u - D)/q``; order 2.

All but ``exact`` need a denoiser only. A step to ``s = 0`` is allowed for each of them except
``euler_maruyama`` in coordinates whose drift diverges there (rectified flow).

References:
    Ho, Jain, Abbeel 2020 (2006.11239); Song, Meng, Ermon 2021 (2010.02502); Song et al. 2021
    (2011.13456); Karras et al. 2022 (2206.00364), algorithm 1; Biroli, Bonnaire, de Bortoli,
    Mezard 2024 (2402.18491).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from diffjax import checks, processes, records
from diffjax.data.base import per_event
from diffjax.diffusion import denoise_at, score_at
from diffjax.dynamics.scan import Step
from diffjax.noise import normal
from diffjax.processes import Process


@records.register
@dataclass(frozen=True)
class Exact:
    """Exact posterior transition; made by `exact`."""


@records.register
@dataclass(frozen=True)
class Ancestral:
    """DDPM ancestral transition; made by `ancestral`."""

    wide: bool = field(default=False, metadata={"static": True})


@records.register
@dataclass(frozen=True)
class Ddim:
    """Implicit transition, with noise unless ``eta`` is None; made by `ddim`."""

    eta: ArrayLike | None = None


@records.register
@dataclass(frozen=True)
class EulerMaruyama:
    """Euler-Maruyama transition; made by `euler_maruyama`."""

    noise: ArrayLike


@records.register
@dataclass(frozen=True)
class Heun:
    """Heun's probability-flow transition; made by `heun`."""


@records.register
@dataclass(frozen=True)
class AdaptiveOde:
    """Adaptive probability flow through diffrax; made by `adaptive_ode`."""

    rtol: Array | float
    atol: Array | float


Method = Exact | Ancestral | Ddim | EulerMaruyama | Heun | AdaptiveOde


def exact() -> Exact:
    """Posterior draw and Gaussian bridge: the law of the reverse SDE at any step size."""
    return Exact()


def ancestral(variance: str = "bridge") -> Ancestral:
    """DDPM's ancestral sampler: the bridge at the posterior mean, weak order 1.

    Args:
        variance: ``bridge``, ``V = std_s^2 (1 - snr_t / snr_s)``, exact for data at one point;
            or ``transition``, ``V = Var[x_t | x_s]`` (``beta_i`` of a DDPM step), exact for
            ``N(0, I)`` data. They agree to first order in the step where it removes little of
            the noise. Either way no noise is added in a step to ``t = 0``.

    Raises:
        ValueError: if the variance has another name.

    References:
        Ho, Jain, Abbeel 2020 (2006.11239), section 3.2.
    """
    if variance not in ("bridge", "transition"):
        raise ValueError(f"variance must be 'bridge' or 'transition', but is {variance!r}")
    return Ancestral(variance == "transition")


def ddim(eta: ArrayLike = 0.0) -> Ddim:
    """DDIM: first-order exponential integrator of the probability flow, with noise for eta > 0.

    Args:
        eta: 0 for no noise, 1 for the `ancestral` sampler.

    Raises:
        ValueError: if a concrete eta is outside 0 to 1.
    """
    if checks.is_concrete(eta):
        if not 0 <= float(np.asarray(eta)) <= 1:
            raise ValueError(f"eta must lie in [0, 1], but is {eta!r}")
        if np.asarray(eta) == 0:
            return Ddim()  # draws no noise
    return Ddim(eta)


def euler_maruyama(noise: ArrayLike = 1.0) -> EulerMaruyama:
    """Euler-Maruyama on ``dx = [-f + (1 + noise^2)/2 g^2 score] dtau + noise g dW``.

    ``noise = 1`` is the reverse SDE and ``noise = 0`` the probability flow; every value has the
    same marginals. Near ``t = 0`` the empirical score is stiff: steps must stay well below
    ``std(t)^2``.
    """
    return EulerMaruyama(noise)


def heun() -> Heun:
    """Heun's second-order probability-flow sampler (EDM, deterministic)."""
    return Heun()


def adaptive_ode(rtol: Array | float = 1e-5, atol: Array | float = 1e-7) -> AdaptiveOde:
    """Probability flow by diffrax's Tsit5 with a PID step controller (extra ``diffjax[ode]``)."""
    return AdaptiveOde(rtol, atol)


METHODS: dict[str, Callable[[], Method]] = {
    "exact": exact,
    "ancestral": ancestral,
    "ddim": ddim,
    "euler_maruyama": euler_maruyama,
    "heun": heun,
    "adaptive_ode": adaptive_ode,
}
NAMES: dict[type, str] = {type(make()): name for name, make in METHODS.items()}


def make_step(method: Method, model: Any) -> Step:
    """The transition ``step(key, x, t, t_next)`` of a method for a model with ``process``.

    The second output of a step is the denoiser's value that it used (None for ``exact`` and
    ``euler_maruyama``).
    """
    return _STEPS[type(method)](method, model)


def kernel_variance(method: Method, process: Process, s: Array, t: Array) -> Array:
    """Variance per coordinate of the Gaussian kernel from ``t`` to ``s``; 0 without noise."""
    if isinstance(method, Ancestral):
        if method.wide:
            return jnp.where(s > 0, processes.transition(process, s, t)[1], 0)
        return processes.bridge(process, s, t)[2]
    if isinstance(method, EulerMaruyama):
        g = processes.diffusion_coefficient(process, t)
        return jnp.square(jnp.asarray(method.noise, g.dtype) * g) * (t - s)
    return jnp.zeros_like(t)


def _bridge(process: Process, a: Array, x: Array, s: Array, t: Array) -> tuple[Array, Array]:
    """Mean and standard deviation of the bridge to ``s``."""
    c_a, c_x, variance = processes.bridge(process, s, t)
    return per_event(c_a, x) * a + per_event(c_x, x) * x, per_event(jnp.sqrt(variance), x)


def _exact_step(_: Method, model: Any) -> Step:
    def step(key: Array, x: Array, t: Array, s: Array) -> tuple[Array, Any]:
        key_a, key_z = jax.random.split(key)
        process = model.process
        a = model.data.sample_posterior(key_a, x, process.scale(t), process.std(t))
        mean, std = _bridge(process, a, x, s, t)
        return mean + std * normal(key_z, x.shape, x.dtype), None

    return step


def _ancestral_step(method: Any, model: Any) -> Step:
    def step(key: Array, x: Array, t: Array, s: Array) -> tuple[Array, Any]:
        a = denoise_at(model, x, t)
        mean, std = _bridge(model.process, a, x, s, t)
        if method.wide:
            std = per_event(jnp.sqrt(kernel_variance(method, model.process, s, t)), x)
        return mean + std * normal(key, x.shape, x.dtype), a

    return step


def _ddim_step(method: Any, model: Any) -> Step:
    def step(key: Array, x: Array, t: Array, s: Array) -> tuple[Array, Any]:
        a = denoise_at(model, x, t)
        if method.eta is None:
            return _along_flow(model.process, a, x, s, t), a
        process = model.process
        fresh = jnp.square(jnp.asarray(method.eta, x.dtype)) * processes.bridge(process, s, t)[2]
        kept = jnp.sqrt(jnp.maximum(process.variance(s) - fresh, 0))
        noise = (x - per_event(process.scale(t), x) * a) / per_event(process.std(t), x)
        mean = per_event(process.scale(s), x) * a + per_event(kept, x) * noise
        return mean + per_event(jnp.sqrt(fresh), x) * normal(key, x.shape, x.dtype), a

    return step


def _along_flow(process: Process, a: Array, x: Array, s: Array, t: Array) -> Array:
    """Probability flow from ``t`` to ``s`` with the denoiser frozen at ``a``."""
    ratio = per_event(process.std(s) / process.std(t), x)
    return per_event(process.scale(s), x) * a + ratio * (x - per_event(process.scale(t), x) * a)


def _heun_step(_: Method, model: Any) -> Step:
    def step(_: Array, x: Array, t: Array, s: Array) -> tuple[Array, Any]:
        process = model.process
        first = denoise_at(model, x, t)
        predicted = _along_flow(process, first, x, s, t)
        # At s = 0 the slope (u - D)/q is 0/0; the first-order step is the published ending.
        safe = jnp.where(s > 0, s, t)
        second = denoise_at(model, predicted, safe)
        # u + h/2 [(u - D1)/q_t + (u* - D2)/q_s] with h = q_s - q_t is the first-order step u* plus
        # h/2 (D1 - D2)/q_s, because (u* - D1)/q_s = (u - D1)/q_t.
        ratio = jnp.sqrt(processes.snr(process, safe) / processes.snr(process, t))
        gain = 0.5 * per_event(process.scale(s) * (1 - ratio), x)
        return jnp.where(s > 0, predicted + gain * (first - second), predicted), first

    return step


def _euler_maruyama_step(method: Any, model: Any) -> Step:
    def step(key: Array, x: Array, t: Array, s: Array) -> tuple[Array, Any]:
        process, noise = model.process, jnp.asarray(method.noise, x.dtype)
        h = per_event(t - s, x)
        g = per_event(processes.diffusion_coefficient(process, t), x)
        pull = 0.5 * (1 + jnp.square(noise)) * jnp.square(g) * score_at(model, x, t)
        kick = noise * g * jnp.sqrt(h) * normal(key, x.shape, x.dtype)
        return x + h * (pull - processes.drift(process, x, t)) + kick, None

    return step


_STEPS: dict[type, Callable[[Any, Any], Step]] = {
    Exact: _exact_step,
    Ancestral: _ancestral_step,
    Ddim: _ddim_step,
    EulerMaruyama: _euler_maruyama_step,
    Heun: _heun_step,
}
