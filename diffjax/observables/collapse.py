r"""Collapse of the empirical score onto training points.

A state ``x = scale a_1 + std z`` is noised from training point 1. With the normalised posterior
``w_mu(x)`` over all n points,

    f^e   = -(1/d) E log w_1                      empirical excess entropy, >= 0,          (1)
    f_LOO = (1/d) E [log(sum_{mu > 1} w_mu) - log w_1]   leave one out, changes sign,      (2)
    phi_C = E sum_mu w_mu^2                       chance that two clones end on one point, (3)
    P_own = P(the generating point is the nearest one).                                    (4)

The expectations are over ``a_1`` in the given set and over noise, so the standard errors are those
of this data set; the spread between data sets is not in them. ``f^e`` is non-negative and flat
below the collapse, so no time can be read off its sign: use the zero of ``f_LOO``.

References:
    Biroli, Bonnaire, de Bortoli, Mezard 2024 (2402.18491), eq. (8-10); Derrida 1981 for the REM.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from diffjax import checks, processes
from diffjax.data.point_cloud import PointCloud
from diffjax.diffusion import Diffusion
from diffjax.dynamics.scan import Observe
from diffjax.observables.estimates import Estimate, mean_and_error
from diffjax.observables.speciation import agreement_of_posterior
from diffjax.posterior_sums import posterior_sums

TIE = 1e-4
"""Log-weights (nats) that differ by less count as equally near."""


class CollapseCurves(NamedTuple):
    """Estimates against time, each ``(T,)``; equations as in the module's docstring.

    Attributes:
        excess_entropy: ``f^e`` per dimension, nats, eq. (1).
        leave_one_out: ``f_LOO`` per dimension, nats, eq. (2).
        participation: ``phi_C = E sum w^2``, eq. (3).
        own_nearest: ``P_own``, eq. (4); a point with an exact duplicate counts as its nearest.
        clone_agreement: ``phi = E sum_c p(c | x)^2`` of the labels (1 with a single class).
        unresolved: fraction of states whose weights the kernel could not resolve; 0 is sound.
    """

    excess_entropy: Estimate
    leave_one_out: Estimate
    participation: Estimate
    own_nearest: Estimate
    clone_agreement: Estimate
    unresolved: Array


def collapse_curves(
    key: Array,
    diffusion: Diffusion,
    times: ArrayLike,
    samples: int,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> CollapseCurves:
    """All collapse observables, and ``phi``, from one pass over fresh states at every time.

    Args:
        key: typed PRNG key; time i uses ``fold_in(key, i)``.
        diffusion: of a `point_cloud` with at least two points.
        times: OU times ``(T,)``, all above 0.
        samples: states per time; their training points are drawn uniformly.
        progress: ``progress(done, total)`` after every time.

    Returns:
        Curves of shape ``(T,)``.

    Raises:
        TypeError: if the data are not a point cloud.
        ValueError: if there is one point only, or a time is not positive.
    """
    if not isinstance(diffusion.data, PointCloud):
        raise TypeError(f"collapse needs a point_cloud, got {type(diffusion.data).__name__}")
    if diffusion.data.size < 2:
        raise ValueError("collapse needs n >= 2 points; a single point is collapsed at every time")
    times = np.atleast_1d(np.asarray(times))
    checks.noise_time(times, zero_allowed=False)
    rows = []
    for i, t in enumerate(times):
        row = _at_time(diffusion, jax.random.fold_in(key, i), jnp.asarray(t), samples)
        rows.append(jax.tree.map(np.asarray, row))
        if progress is not None:
            progress(i + 1, len(times))
    return jax.tree.map(lambda *values: np.stack(values), *rows)


@partial(jax.jit, static_argnames="samples")
def _at_time(diffusion: Diffusion, key: Array, t: Array, samples: int) -> CollapseCurves:
    cloud, process = diffusion.data, diffusion.process
    key_index, key_noise = jax.random.split(key)
    own = cloud.sample_prior_index(key_index, samples)
    t = t.astype(cloud.points.dtype)
    x = processes.perturb(key_noise, process, cloud.points[own], t)
    members = jax.nn.one_hot(cloud.labels, cloud.classes, dtype=x.dtype)
    sums = posterior_sums(
        cloud.blocks, x, process.scale(t), process.std(t), values=members, own=own, top=1
    )
    log_own, log_others = cast(Array, sums.log_own), cast(Array, sums.log_others)
    weights = cast(Array, sums.mean)
    # An exact duplicate of the own point ties with it; log-weights of a tie differ by rounding.
    tied = log_own >= sums.top_log_weight[..., 0] - TIE
    nearest = (sums.top_index[..., 0] == own) | tied
    phi = agreement_of_posterior(jnp.log(weights / jnp.sum(weights, -1, keepdims=True)))
    return CollapseCurves(
        mean_and_error(-log_own / cloud.dim),
        mean_and_error((log_others - log_own) / cloud.dim),
        mean_and_error(sums.participation),
        mean_and_error(nearest.astype(x.dtype)),
        mean_and_error(phi),
        jnp.mean(sums.unresolved.astype(x.dtype)),
    )


def nearest_point(cloud: PointCloud, process: processes.Process) -> Observe:
    """An ``observe`` hook for `diffjax.backward`: index of the nearest ``scale a_mu``, ``(...)``.

    Keep the returned function and pass it again: a new one is compiled again.
    """

    def observe(x: Array, t: Array) -> Array:
        # At t = 0 the weights are degenerate while the nearest point is not: any std ranks alike.
        scale, std = process.scale(t), jnp.maximum(process.std(t), 1e-3)
        sums = posterior_sums(cloud.blocks, x, scale, std, values=None, top=1)
        return sums.top_index[..., 0]

    return observe


def last_change_time(indices: Array, times: Array) -> Array:
    """Time of the last change of the nearest point along backward trajectories.

    It overestimates the collapse time by tens of per cent in low dimension and is skewed.

    Args:
        indices: nearest point after every step, ``(S, B)``, as stacked by ``observe``.
        times: the grid times of those states, decreasing ``(S,)``.

    Returns:
        ``(B,)``, the midpoint of the grid interval of the last change; ``times[0]`` if the index
        never changes.
    """
    changed = indices[1:] != indices[:-1]
    middle = 0.5 * (times[1:] + times[:-1])
    last = jnp.where(changed, middle[:, None], jnp.inf)
    found = jnp.min(last, axis=0)
    return jnp.where(jnp.isfinite(found), found, times[0])
