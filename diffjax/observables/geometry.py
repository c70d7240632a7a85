r"""Geometry seen by a score: spectrum of its Jacobian, dimensions, retained variance.

At ``x = scale a + std z``, with ``snr = scale^2/std^2`` and ``Cov = Cov[a | x]``,

    J = d score / dx = (snr Cov - I) / std^2,                                              (1)
    lambda = -std^2 eig(J) = 1 - snr eig(Cov).                                             (2)

``lambda`` (written ``v|J|`` in variance-exploding coordinates, where std^2 = v) does not depend on
the coordinates of the process: 1 across a manifold, and small along it as long as the score does
not know which point it came from. Gaussian data of variances s^2 have ``lambda = v/(v + s^2)``.
When the weights of an empirical score condense on one point, ``Cov -> 0`` and every lambda goes to
1: directions disappear. The part of a subspace k (orthonormal frame Q_k, d_k columns) that is left,

    rho_k = tr(Q_k^T Cov Q_k) / [d_k v s_k^2/(v + s_k^2)],                                 (3)

is 1 in expectation for Gaussian data and 0 when it is lost.

A spectrum proves memorisation only beside the spectrum of the population at the same states: with
data on a shell, seen from the centre, the order of the gaps changes with v in the population too.
`controlled_spectrum` therefore returns both. For a trained network the Jacobian comes from forward
derivatives; its antisymmetric part, which an exact score does not have, is reported.

References:
    Achilli et al. 2024 (2410.08727); Ventura et al. 2025 (2410.05898); Stanczuk et al. 2022
    (2212.12611).
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from diffjax import checks
from diffjax.data.base import Atomic, Denoiser, Posterior, per_event, require
from diffjax.data.point_cloud import PointCloud
from diffjax.diffusion import Diffusion, score_at
from diffjax.posterior_spectrum import posterior_covariance_matrix, posterior_covariance_spectrum
from diffjax.posterior_sums import posterior_sums


class JacobianSpectrum(NamedTuple):
    """Spectrum of the Jacobian of a score.

    Attributes:
        eigenvalues: of the (symmetrised) Jacobian, ascending, ``(..., d)``: the most contracting
            direction, across the manifold, first.
        normalised: ``lambda``, eq. (2), descending, ``(..., d)``, in the same order.
        asymmetry: ``|J - J^T| / |J + J^T|`` (Frobenius), ``(...)``; 0 for an exact posterior.
    """

    eigenvalues: Array
    normalised: Array
    asymmetry: Array


class ControlledSpectrum(NamedTuple):
    """The spectrum of a score and that of the population at the same states."""

    empirical: JacobianSpectrum
    population: JacobianSpectrum


class SpectralGap(NamedTuple):
    """The widest gap of a spectrum.

    Attributes:
        position: number of values above the gap, ``(...)``.
        width: its width, ``(...)``.
        dimension: number of values below it, ``(...)``: the dimensions that the score sees.
    """

    position: Array
    width: Array
    dimension: Array


class EffectivePoints(NamedTuple):
    """How many points share the posterior weight.

    Attributes:
        participation: ``Y_2 = sum w^2``, ``(...)``; 1 when one point is left.
        number: ``1 / Y_2``, ``(...)``.
        unresolved: True where the weights could not be resolved, ``(...)``.
    """

    participation: Array
    number: Array
    unresolved: Array


def score_spectrum(diffusion: Diffusion, x: ArrayLike, t: ArrayLike) -> JacobianSpectrum:
    """Eigenvalues of the Jacobian of the score, eq. (1) and (2).

    Point clouds: from the weighted covariance of the points that matter, by the smaller of the
    Gram matrix and the covariance. Other exact posteriors: from d covariance products. Denoisers
    (networks): from d forward derivatives, symmetrised. Memory: one ``d x d`` matrix for each
    state of anything but a point cloud, and ``B x n`` log-weights for a point cloud.

    Args:
        diffusion: any data and process.
        x: states ``(..., d)`` in the coordinates of the process.
        t: OU times, broadcast against the batch ``(...)``, positive.

    Returns:
        Spectra in the dtype of ``x``.

    Raises:
        TypeError: if the data have no denoiser.
        ValueError: on wrong shapes or times.

    References:
        Achilli et al. 2024 (2410.08727).
    """
    require(diffusion.data, Denoiser, "the spectrum of a score")
    return _spectrum(diffusion, *_inputs(diffusion, x, t))


def jacobian_spectrum(diffusion: Diffusion, x: ArrayLike, t: ArrayLike) -> Array:
    """Eigenvalues of the Jacobian of the score, ascending, ``(..., d)``.

    Those of `score_spectrum`, which has the arguments, the errors, and more to say.
    """
    return score_spectrum(diffusion, x, t).eigenvalues


def controlled_spectrum(
    diffusion: Diffusion, population: Diffusion, x: ArrayLike, t: ArrayLike
) -> ControlledSpectrum:
    """Spectra of a score and of the population's score at the same states.

    Args:
        diffusion: the score under study: a point cloud or a network.
        population: the law of its data: a mixture, a sphere, or, where no closed form exists, a
            point cloud of a much larger independent sample (itself condensed at small noise).
        x: states ``(..., d)``; say where they come from (a noised training point, a noised fresh
            point, or a fixed place): the answer depends on it.
        t: OU times, broadcast against the batch.

    Raises:
        ValueError: if the two do not share their dimension; otherwise as `score_spectrum`.
    """
    if diffusion.dim != population.dim:
        raise ValueError(
            f"population has dimension {population.dim}, expected {diffusion.dim}, that of the data"
        )
    return ControlledSpectrum(score_spectrum(diffusion, x, t), score_spectrum(population, x, t))


def posterior_covariance(diffusion: Diffusion, x: ArrayLike, t: ArrayLike) -> Array:
    """``Cov[a | x]`` as matrices ``(..., d, d)``; for low dimension.

    Args:
        diffusion: data with an exact posterior, and a process.
        x: states ``(..., d)``.
        t: OU times, broadcast against the batch.

    Raises:
        TypeError: if the data have no exact posterior.
    """
    require(diffusion.data, Posterior, "posterior_covariance")
    return _covariance(diffusion, *_inputs(diffusion, x, t))


def retained_variance(
    covariance: ArrayLike, frame: ArrayLike, variance: ArrayLike, noise_variance: ArrayLike
) -> Array:
    """Part ``rho`` of the population's posterior variance that a subspace has kept, eq. (3).

    Its mean over states is dominated by rare ones that lie between two points: report medians or
    geometric means.

    Args:
        covariance: ``Cov[a | x]``, ``(..., d, d)``.
        frame: orthonormal basis of the subspace, ``(d, d_k)``.
        variance: variance s_k^2 of the data in it.
        noise_variance: ``v = std^2/scale^2``, broadcast against the batch.

    Returns:
        ``(...)``.

    Raises:
        ValueError: if the frame is not ``(d, d_k)`` or not orthonormal.
    """
    covariance = checks.floating(covariance, "covariance")
    frame = checks.floating(frame, "frame").astype(covariance.dtype)
    if frame.ndim != 2 or frame.shape[0] != covariance.shape[-1]:
        raise ValueError(f"frame has shape {frame.shape}, expected ({covariance.shape[-1]}, d_k)")
    if checks.is_concrete(frame):
        off = float(jnp.abs(frame.T @ frame - jnp.eye(frame.shape[1], dtype=frame.dtype)).max())
        if off > 1e-3:
            raise ValueError(f"frame is not orthonormal (off by {off:.2g}); pass its Q of a QR")
    v = jnp.asarray(noise_variance, covariance.dtype)
    s = jnp.asarray(variance, covariance.dtype)
    kept = jnp.einsum("ik,...ij,jk->...", frame, covariance, frame, precision="highest")
    return kept / (frame.shape[1] * v * s / (v + s))


def effective_points(diffusion: Diffusion, x: ArrayLike, t: ArrayLike) -> EffectivePoints:
    """Participation ratio of the posterior weights of a point cloud, and its inverse.

    Args:
        diffusion: of a `point_cloud`.
        x: states ``(..., d)``.
        t: OU times, broadcast against the batch.

    Raises:
        TypeError: if the data are not a point cloud.
    """
    require(diffusion.data, Atomic, "effective_points")
    x, t = _inputs(diffusion, x, t)
    process = diffusion.process
    sums = posterior_sums(
        diffusion.data.blocks, x, process.scale(t), process.std(t), values=None, top=1
    )
    return EffectivePoints(sums.participation, 1 / sums.participation, sums.unresolved)


def spectral_gaps(normalised: ArrayLike) -> Array:
    """Differences of neighbouring values, ``(..., d - 1)``.

    Entry ``i - 1`` is the gap with i values above it.

    Args:
        normalised: values in descending order, ``(..., d)``.
    """
    values = checks.floating(normalised, "normalised")
    return values[..., :-1] - values[..., 1:]


def widest_gap(normalised: ArrayLike) -> SpectralGap:
    """The widest gap and the dimension below it; for a mean or median spectrum, or each state.

    With no manifold left (all values 1) the gap means nothing: read its width first.

    Args:
        normalised: values in descending order, ``(..., d)``.
    """
    gaps = spectral_gaps(normalised)
    position = jnp.argmax(gaps, axis=-1) + 1
    return SpectralGap(position, jnp.max(gaps, axis=-1), gaps.shape[-1] + 1 - position)


def visible_dimension(normalised: ArrayLike, threshold: float = 0.5) -> Array:
    """Number of directions whose ``lambda`` is below a threshold, ``(...)``.

    At 1/2, Gaussian data show the directions with ``s^2 > v``: state the threshold with the number,
    and compare with the same number of the population.

    Args:
        normalised: values ``(..., d)`` in any order.
        threshold: between 0 and 1.
    """
    return jnp.sum(checks.floating(normalised, "normalised") < threshold, axis=-1)


def probe_spectrum(
    key: Array, diffusion: Diffusion, x: ArrayLike, t: ArrayLike, *, symmetrised: bool = True
) -> Array:
    """Singular values of scores at probes around a state, as published; for comparison only.

    The rows are ``score(x + sigma z_i) / sigma`` with ``z_i`` the rows of a random rotation and
    ``sigma`` the noise. The published form adds the score at x to every row, an offset that takes
    one singular value; ``(score(x + sigma z) - score(x - sigma z)) / (2 sigma)`` has none, and is
    exact for a linear score.

    Args:
        key: typed PRNG key.
        diffusion: any data and process.
        x: one state ``(d,)``.
        t: one OU time.
        symmetrised: whether to take the difference form.

    Returns:
        Singular values times std^2, descending: ``(d,)``, comparable with ``|lambda|``.

    References:
        Stanczuk et al. 2022 (2212.12611); Ventura et al. 2025 (2410.05898).
    """
    x, t = _inputs(diffusion, x, t)
    if x.ndim != 1:
        raise ValueError(f"x has shape {x.shape}, expected one state ({diffusion.dim},)")
    return _probes(key, diffusion, x, t, symmetrised)


def extreme_eigenvalues(
    key: Array, diffusion: Diffusion, x: ArrayLike, t: ArrayLike, *, steps: int = 32
) -> Array:
    """Ritz values of ``-std^2 J`` by Lanczos, for large d; one state.

    The outermost ones converge first, the smallest with the strongest directions of the manifold.
    Every step costs one covariance product, or a forward and a reverse derivative of a denoiser.

    Args:
        key: typed PRNG key of the start vector.
        diffusion: any data and process.
        x: one state ``(d,)``.
        t: one OU time.
        steps: dimension of the Krylov space, at most d (static).

    Returns:
        ``(steps,)`` descending, with full reorthogonalisation.
    """
    x, t = _inputs(diffusion, x, t)
    if x.ndim != 1:
        raise ValueError(f"x has shape {x.shape}, expected one state ({diffusion.dim},)")
    if not 1 <= steps <= diffusion.dim:
        raise ValueError(f"steps must be between 1 and {diffusion.dim}, but is {steps}")
    return _lanczos(key, diffusion, x, t, steps)


def _inputs(diffusion: Diffusion, x: ArrayLike, t: ArrayLike) -> tuple[Array, Array]:
    """Checked states and times, the times in the shape of the batch."""
    checks.event_size(x, diffusion.dim)
    checks.noise_time(t, zero_allowed=False)
    x = checks.floating(x, "x")
    shape = jnp.broadcast_shapes(x.shape[:-1], jnp.shape(t))
    t = jnp.broadcast_to(jnp.asarray(t, x.dtype), shape)
    return jnp.broadcast_to(x, (*shape, x.shape[-1])), t


def _snr(diffusion: Diffusion, x: Array, t: Array) -> Array:
    return jnp.square(per_event(diffusion.process.scale(t) / diffusion.process.std(t), x))


@jax.jit
def _covariance(diffusion: Diffusion, x: Array, t: Array) -> Array:
    scale, std = diffusion.process.scale(t), diffusion.process.std(t)
    if isinstance(diffusion.data, PointCloud):
        return posterior_covariance_matrix(diffusion.data.blocks, x, scale, std)

    def column(u: Array) -> Array:
        return diffusion.data.covariance_product(x, scale, std, jnp.broadcast_to(u, x.shape))

    columns = jax.lax.map(column, jnp.eye(x.shape[-1], dtype=x.dtype))
    return jnp.moveaxis(columns, 0, -1)


@jax.jit
def _spectrum(diffusion: Diffusion, x: Array, t: Array) -> JacobianSpectrum:
    variance, asymmetry = per_event(diffusion.process.variance(t), x), jnp.zeros_like(t)
    if isinstance(diffusion.data, PointCloud):
        scale, std = diffusion.process.scale(t), diffusion.process.std(t)
        eigenvalues = posterior_covariance_spectrum(diffusion.data.blocks, x, scale, std)
        normalised = 1 - _snr(diffusion, x, t) * eigenvalues[..., ::-1]
    elif isinstance(diffusion.data, Posterior):
        covariance = _covariance(diffusion, x, t)
        covariance = 0.5 * (covariance + jnp.swapaxes(covariance, -1, -2))
        normalised = 1 - _snr(diffusion, x, t) * jnp.linalg.eigvalsh(covariance)
    else:
        jacobian = _forward_jacobian(diffusion, x, t) * variance[..., None]
        transposed = jnp.swapaxes(jacobian, -1, -2)
        odd, even = (jnp.linalg.norm(m, axis=(-2, -1)) for m in (
            jacobian - transposed, jacobian + transposed))  # fmt: skip
        asymmetry = odd / jnp.where(even > 0, even, 1)
        normalised = -jnp.linalg.eigvalsh(0.5 * (jacobian + transposed))
    return JacobianSpectrum(-normalised / variance, normalised, asymmetry)


def _forward_jacobian(diffusion: Diffusion, x: Array, t: Array) -> Array:
    """``d score_i / d x_j`` by d forward derivatives, ``(..., d, d)``."""

    def column(u: Array) -> Array:
        return jax.jvp(lambda y: score_at(diffusion, y, t), (x,), (jnp.broadcast_to(u, x.shape),))[
            1
        ]

    return jnp.moveaxis(jax.lax.map(column, jnp.eye(x.shape[-1], dtype=x.dtype)), 0, -1)


@partial(jax.jit, static_argnames="symmetrised")
def _probes(key: Array, diffusion: Diffusion, x: Array, t: Array, symmetrised: bool) -> Array:
    variance, std = diffusion.process.variance(t), diffusion.process.std(t)
    frame = std * jax.random.orthogonal(key, x.size, dtype=x.dtype)
    rows = score_at(diffusion, x + frame, jnp.broadcast_to(t, (x.size,)))
    if symmetrised:
        rows = 0.5 * (rows - score_at(diffusion, x - frame, jnp.broadcast_to(t, (x.size,))))
    return variance * jnp.linalg.svd(rows / std, compute_uv=False)


@partial(jax.jit, static_argnames="steps")
def _lanczos(key: Array, diffusion: Diffusion, x: Array, t: Array, steps: int) -> Array:
    apply = _operator(diffusion, x, t)
    start = jax.random.normal(key, x.shape, x.dtype)

    def step(carry: tuple[Array, Array], i: Array) -> tuple[tuple[Array, Array], Array]:
        basis, q = carry
        basis = basis.at[i].set(q)
        image = apply(q)
        rest = image
        for _ in range(2):  # twice is enough
            rest = rest - jnp.matmul(basis.T, jnp.matmul(basis, rest, precision="highest"))
        norm = jnp.linalg.norm(rest)
        return (basis, rest / jnp.where(norm > 0, norm, 1)), image

    first = (jnp.zeros((steps, x.size), x.dtype), start / jnp.linalg.norm(start))
    (basis, _), images = jax.lax.scan(step, first, jnp.arange(steps))
    small = jnp.matmul(basis, images.T, precision="highest")
    return jnp.linalg.eigvalsh(0.5 * (small + small.T))[::-1]


def _operator(diffusion: Diffusion, x: Array, t: Array):
    """``u -> -std^2 (J + J^T) u / 2``."""
    scale, std = diffusion.process.scale(t), diffusion.process.std(t)
    if isinstance(diffusion.data, Posterior):
        return lambda u: (
            u - _snr(diffusion, x, t) * diffusion.data.covariance_product(x, scale, std, u)
        )

    def score(y: Array) -> Array:
        return score_at(diffusion, y, t)

    _, pull = jax.vjp(score, x)
    return lambda u: -0.5 * jnp.square(std) * (jax.jvp(score, (x,), (u,))[1] + pull(u)[0])
