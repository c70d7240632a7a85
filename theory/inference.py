r"""Transition times inferred from measured curves: the theory is the likelihood.

A measured clone agreement :math:`\phi(t)` or excess entropy :math:`f(t)` is a noisy view of a
curve that the theory knows up to a few parameters. For two balanced classes
:math:`N(\pm m, \sigma^2 I_d)` these are :math:`|m|` and :math:`\sigma^2`. With :math:`k_i` of
:math:`N_i` pairs of clones that agree, and with measured :math:`\hat f_j \pm \epsilon_j`,

.. math:: k_i \sim \mathrm{Binomial}\big(N_i, \phi(t_i; |m|, \sigma^2)\big), \qquad
   \hat f_j \sim N\big(f(t_j; |m|, \sigma^2), \epsilon_j^2\big), \tag{1}

.. math:: \log|m| \sim N(\mu_m, s_m^2), \qquad \log\sigma^2 \sim N(\mu_v, s_v^2), \tag{2}

so that every posterior draw of :math:`(|m|, \sigma^2)` is a draw of the spectral speciation time
:math:`t_S = \frac12\log[(|m|^2 + \sigma^2)/T]` and of the collapse time, the root of
:math:`f(t_C) = 0`. The first likelihood is exact if every pair starts from a state of its own; the
second if each :math:`\hat f_j` averages many independent states.

**Ergodicity.** A Markov chain on :math:`P_t` crosses between the classes freely before speciation
and never after it: chains that start in different classes then keep different magnetisations, and
the split :math:`\hat r` of Gelman and Rubin jumps from 1.

Sampling is by NumPyro's No-U-Turn Sampler.

Sources: Biroli, Bonnaire, de Bortoli, Mezard 2024 (2402.18491) for the curves; Hoffman, Gelman 2014
(1111.4246) for the sampler; Vehtari, Gelman, Simpson, Carpenter, Buerkner 2021 (1903.08008) for
split r-hat; Talts, Betancourt, Simpson, Vehtari, Gelman 2018 (1804.06788) for the ranks.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

try:
    import numpyro
    import numpyro.distributions as dist
    from numpyro.diagnostics import split_gelman_rubin
    from numpyro.infer import MCMC, NUTS
except ImportError as error:  # an optional dependency
    raise ImportError("theory.inference needs NumPyro: pip install 'diffjax[inference]'") from error

from theory import checks
from theory.channel import state_variance
from theory.checks import Array, floats
from theory.clone_agreement import clone_agreement
from theory.collapse import mixture_collapse_time
from theory.excess_entropy import mixture_excess_entropy
from theory.speciation import spectral_time


class AgreementCounts(NamedTuple):
    """Pairs of clones, every pair branched from a state of its own."""

    times: ArrayLike
    """Branch times, (..., T)."""
    agreeing: ArrayLike
    """Pairs that ended in one class, (..., T)."""
    pairs: ArrayLike
    """All pairs, (..., T) or one number."""


class MeasuredExcess(NamedTuple):
    """Measured excess entropy per coordinate."""

    times: ArrayLike
    """Times, (..., T)."""
    mean: ArrayLike
    """Measured values, (..., T)."""
    error: ArrayLike
    """Their standard errors, (..., T), positive."""


class MixturePrior(NamedTuple):
    """Log-normal prior (2), as location and scale of the logarithm."""

    mean_norm: tuple[float, float] = (1.0, 1.5)
    """Of the norm of a class centre."""
    variance: tuple[float, float] = (0.0, 1.0)
    """Of the variance per coordinate within a class."""


class TransitionPosterior(NamedTuple):
    """Posterior draws, (..., chains, samples), and how far they can be trusted."""

    mean_norm: Array
    """Norm of a class centre."""
    variance: Array
    """Variance per coordinate within a class."""
    speciation_time: Array
    """Spectral speciation time; NaN in draws where it does not exist."""
    collapse_time: Array
    """Zero of the excess entropy."""
    r_hat: np.ndarray
    """Larger split r-hat of the two parameters, (...); beyond 1.01 run longer."""
    divergences: Array
    """Divergent transitions, (...); should be 0."""


def transition_posterior(
    key: Array,
    agreement: AgreementCounts | None = None,
    excess: MeasuredExcess | None = None,
    *,
    log_n: ArrayLike,
    dim: ArrayLike,
    prior: MixturePrior | None = None,
    temperature: ArrayLike = 1.0,
    warmup: int = 500,
    samples: int = 500,
    chains: int = 4,
) -> TransitionPosterior:
    r"""Speciation and collapse time of two balanced Gaussian classes from measured curves.

    .. math:: p(|m|, \sigma^2 | k, \hat f) \propto p(|m|)\,p(\sigma^2)
       \prod_i \mathrm{Binomial}(k_i; N_i, \phi_i) \prod_j N(\hat f_j; f_j, \epsilon_j^2)

    Leading axes of the data are independent data sets, sampled in one vectorised run.

    Args:
        key: a typed key.
        agreement: counts of agreeing clones, or None.
        excess: measured excess entropy, or None; not both None.
        log_n: natural logarithm of the number of training points.
        dim: number of coordinates.
        prior: log-normal priors of the two parameters; default `MixturePrior()`, which is wide.
        temperature: temperature of the process.
        warmup: steps of adaptation per chain (static).
        samples: draws per chain (static).
        chains: chains (static); r-hat compares them.

    Returns:
        Draws of both parameters and both times, with diagnostics.

    Raises:
        ValueError: without data, for counts above the number of pairs, for errors that are not
            positive, or for shapes that differ.

    Source: Biroli, Bonnaire, de Bortoli, Mezard 2024 (2402.18491); (1), (2).
    """
    data = _validated(agreement, excess)
    prior = MixturePrior() if prior is None else prior
    checks.require_size(log_n, dim)
    checks.require_temperature(temperature)
    setting = floats(log_n, dim, temperature)
    batch = jnp.broadcast_shapes(*(leaf.shape[:-1] for leaf in jax.tree.leaves(data)))
    wide = jax.tree.map(lambda a: jnp.broadcast_to(a, (*batch, a.shape[-1])), data)
    flat = jax.tree.map(lambda a: a.reshape(-1, a.shape[-1]), wide)
    keys = jax.random.split(key, int(np.prod(batch, dtype=int)))
    length = (warmup, samples, chains)
    drawn, divergences = _sample(keys, flat, setting, jnp.asarray(prior), *length)
    r_hat = [split_gelman_rubin(np.moveaxis(np.asarray(v), 0, -1)) for v in drawn.values()]

    def shaped(values: Array) -> Array:
        return values.reshape((*batch, *values.shape[1:]))

    mean_norm, variance = (shaped(jnp.exp(drawn[k])) for k in ("log_mean_norm", "log_variance"))
    log_n, dim, temperature = setting
    return TransitionPosterior(
        mean_norm,
        variance,
        spectral_time(mean_norm**2 + variance, temperature),
        mixture_collapse_time(log_n, dim, mean_norm, variance, temperature),
        np.max(r_hat, axis=0).reshape(batch),
        shaped(divergences),
    )


def rank_of_truth(draws: ArrayLike, truth: ArrayLike, thin: int = 1) -> Array:
    r"""Rank of a true value among posterior draws: uniform over replicas if all is calibrated.

    .. math:: r = \#\{\ell : \theta_\ell < \theta\} \in \{0, \dots, L\}

    for :math:`L` draws, if the truth was drawn from the prior and the data from the likelihood.

    Args:
        draws: posterior draws, (..., L).
        truth: the value behind the data, (...).
        thin: keep every `thin`-th draw, so that the draws are nearly independent.

    Raises:
        ValueError: for `thin` below 1.

    Source: Talts, Betancourt, Simpson, Vehtari, Gelman 2018 (1804.06788).
    """
    checks.require("thin", thin, lambda v: v >= 1, "at least 1", "1 keeps every draw")
    draws = jnp.asarray(draws)[..., ::thin]
    return (draws < jnp.asarray(truth)[..., None]).sum(-1)


def ergodicity(
    key: Array,
    log_density: Callable[[Array, Array], Array],
    times: ArrayLike,
    starts: ArrayLike,
    direction: ArrayLike,
    *,
    warmup: int = 200,
    samples: int = 300,
) -> tuple[np.ndarray, Array]:
    r"""Split r-hat of the magnetisation of Markov chains on the noised law, at each time.

    .. math:: M = x \cdot \hat m, \qquad \hat r(t) \to 1 \text{ where chains cross freely}

    Args:
        key: a typed key.
        log_density: ``log_density(x, t)`` of one state ``(d,)`` in nats, up to a constant.
        times: (T,) times.
        starts: (T, C, d) starting states, at least two chains, in all classes.
        direction: (d,) direction of the magnetisation; normalised here.
        warmup: steps of adaptation per chain (static).
        samples: draws per chain (static).

    Returns:
        ``(r_hat, magnetisation)`` with shapes (T,) and (T, C, samples).

    Raises:
        ValueError: for fewer than two chains or shapes that do not match.

    Source: Hoffman, Gelman 2014 (1111.4246); Vehtari et al. 2021 (1903.08008).
    """
    starts, direction, times = floats(starts, direction, times)
    if starts.ndim != 3 or starts.shape[0] != times.size or starts.shape[1] < 2:
        raise ValueError(
            f"starts has shape {starts.shape}, expected (T, C, d) with T = {times.size} times and "
            "C >= 2 chains that begin in different classes"
        )
    if direction.shape != starts.shape[2:]:
        raise ValueError(f"direction has shape {direction.shape}, expected {starts.shape[2:]}")
    unit = direction / jnp.linalg.norm(direction)

    def chains(key: Array, t: Array, start: Array) -> Array:
        kernel = NUTS(potential_fn=lambda x: -log_density(x, t))
        sampler = _sampler(kernel, warmup, samples, start.shape[0])
        sampler.run(key, init_params=start)
        return sampler.get_samples(group_by_chain=True) @ unit

    keys = jax.random.split(key, times.size)
    magnetisation = jax.jit(jax.vmap(chains))(keys, times, starts)
    return split_gelman_rubin(np.moveaxis(np.asarray(magnetisation), 0, -1)), magnetisation


def _sampler(kernel: NUTS, warmup: int, samples: int, chains: int) -> MCMC:
    return MCMC(
        kernel,
        num_warmup=warmup,
        num_samples=samples,
        num_chains=chains,
        chain_method="vectorized",
        progress_bar=False,
    )


def _model(data: Any, setting: tuple[Array, ...], prior: Array) -> None:
    """Equations (1) and (2)."""
    log_n, dim, temperature = setting
    agreement, excess = data
    mean_norm = jnp.exp(numpyro.sample("log_mean_norm", dist.Normal(*prior[0])))
    variance = jnp.exp(numpyro.sample("log_variance", dist.Normal(*prior[1])))
    if agreement is not None:
        t = agreement.times
        spread = state_variance(t, variance, temperature)
        phi = clone_agreement(mean_norm * jnp.exp(-t) / jnp.sqrt(spread))
        # rounding must not make a rare disagreement impossible
        rounding = jnp.finfo(phi.dtype).eps
        phi = jnp.clip(phi, 0.5, 1 - 4 * rounding)
        numpyro.sample("agreeing", dist.Binomial(agreement.pairs, phi), obs=agreement.agreeing)
    if excess is not None:
        f = mixture_excess_entropy(excess.times, log_n, dim, mean_norm, variance, temperature)
        numpyro.sample("excess", dist.Normal(f, excess.error), obs=excess.mean)


@partial(jax.jit, static_argnums=(4, 5, 6))
def _sample(
    keys: Array, data: Any, setting: Any, prior: Array, warmup: int, samples: int, chains: int
) -> tuple[dict[str, Array], Array]:
    """Draws ``{name: (B, chains, samples)}`` and divergences ``(B,)`` of B data sets."""

    def one(key: Array, data: Any) -> tuple[dict[str, Array], Array]:
        sampler = _sampler(NUTS(_model), warmup, samples, chains)
        sampler.run(key, data, setting, prior, extra_fields=("diverging",))
        return sampler.get_samples(group_by_chain=True), sampler.get_extra_fields()["diverging"]

    drawn, diverging = jax.vmap(one)(keys, data)
    return drawn, diverging.sum(-1)


def _validated(
    agreement: AgreementCounts | None, excess: MeasuredExcess | None
) -> tuple[AgreementCounts | None, MeasuredExcess | None]:
    """The data as floating arrays of matching shapes."""
    if agreement is None and excess is None:
        raise ValueError("pass counts of agreeing clones, a measured excess entropy, or both")
    if agreement is not None:
        t, k, n = jnp.broadcast_arrays(*floats(*agreement))
        checks.require_positive("agreement.times", t, "at t = 0 all clones agree")
        fix = "pass counts, not frequencies"
        checks.require("agreeing - pairs", k - n, lambda v: v <= 0, "at most 0", fix)
        checks.require_nonnegative("agreement.agreeing", k, fix)
        agreement = AgreementCounts(t, k, n)
    if excess is not None:
        t, f, error = jnp.broadcast_arrays(*floats(*excess))
        checks.require_positive("excess.times", t, "the excess entropy diverges at t = 0")
        checks.require_positive("excess.error", error, "pass standard errors")
        checks.require("excess.mean", f, np.isfinite, "finite", "leave out what is not known")
        excess = MeasuredExcess(t, f, error)
    return agreement, excess
