r"""Memorised, spurious and generalised samples, and the sizes of the training set between them.

With ``d_tr(x)`` the distance of a sample to the nearest training point and ``d_syn(x)`` that to the
nearest other sample of the same model, a sample is, in this order,

    memorised     if d_tr <= delta_m,
    spurious      if d_tr > delta_m and d_syn <= delta_s   (repeated, but no training point),
    generalised   if both are larger.                                                        (1)

The thresholds are calibrated on real data that the model has not seen: ``delta_m`` is a small
quantile of ``d_tr`` of held-out data at the largest training set, ``delta_s`` the same quantile of
the nearest distances within as many held-out points as there are samples. A space of low dimension
is filled by a large training set, and everything in it is "memorised" by distance: compare with the
null curve, the memorised fraction of held-out data,

    f_null(n) = P(d_tr(held out; first n training points) <= delta_m).                       (2)

A threshold-free criterion takes the ratio of the distances to the nearest and to the second
nearest training point; a sample counts as memorised below 1/3 (3). It does not see copies of
training points of which the set holds a near-duplicate.

With fractions at nested training sets, ``n_m`` is where the memorised fraction falls through 1/2
for good, ``n_s`` where the spurious fraction is largest, and ``n_g`` where the generalised one
rises through 1/2 for good (4).

References:
    Pham, Raya, Negri, Zaki, Ambrogioni, Krotov 2025 (2505.21777); for (3) Bonnaire, Urfin, Biroli,
    Mezard 2025 (2505.17638).
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from diffjax import checks
from diffjax.observables.estimates import Estimate, mean_and_error
from diffjax.observables.neighbours import (
    Neighbours,
    nearest_distances,
    point_set,
    same_dimension,
)

__all__ = [
    "GENERALISED",
    "MEMORISED",
    "SPURIOUS",
    "CriticalSizes",
    "Fractions",
    "GapRatio",
    "Neighbours",
    "Thresholds",
    "calibrate",
    "classify",
    "critical_sizes",
    "fractions",
    "gap_ratio",
    "nearest_distances",
    "null_curve",
]

MEMORISED, SPURIOUS, GENERALISED = 0, 1, 2
"""Labels of samples, eq. (1)."""

COPY_RATIO = 1 / 3
"""Ratio of neighbour distances below which a sample counts as a copy, eq. (3)."""


class Fractions(NamedTuple):
    """Fractions of ``M`` samples, and what each sample is; eq. (1).

    Attributes:
        memorised: fraction of memorised samples.
        spurious: fraction of spurious samples.
        generalised: fraction of generalised samples; the three add up to 1.
        standard_error: ``(3,)``, ``sqrt(f (1 - f) / M)`` of the three. It is 0 at f = 0 and 1,
            where ``3 / M`` is the usual bound.
        labels: ``(M,)``, `MEMORISED`, `SPURIOUS` or `GENERALISED`.
        train_distance: ``d_tr``, ``(M,)``.
        train_index: the nearest training point, ``(M,)``; -1 if unknown.
        synthetic_distance: ``d_syn``, ``(M,)``; infinite for a single sample.
    """

    memorised: Array
    spurious: Array
    generalised: Array
    standard_error: Array
    labels: Array
    train_distance: Array
    train_index: Array
    synthetic_distance: Array


class Thresholds(NamedTuple):
    """Distances of eq. (1); ``fractions(samples, train, **thresholds._asdict())``."""

    memorised_below: float
    spurious_below: float


class GapRatio(NamedTuple):
    """Ratio of the nearest to the second nearest distance, eq. (3).

    Attributes:
        ratio: ``(M,)`` in [0, 1]; 0 for a sample that equals a training point.
        memorised: fraction of samples with a ratio below the limit, and its standard error.
    """

    ratio: Array
    memorised: Estimate


class CriticalSizes(NamedTuple):
    """Sizes of the training set, eq. (4); NaN where a size does not exist on the given grid.

    Attributes:
        value: ``(3,)``: ``n_m``, ``n_s``, ``n_g``.
        log_error: ``(3,)``, standard deviation of ``log n`` over the bootstrap samples where it
            exists, so that ``value * exp(+- log_error)`` is the interval.
        found: ``(3,)``, fraction of bootstrap samples in which it exists.
    """

    value: Array
    log_error: Array
    found: Array


def fractions(
    samples: ArrayLike,
    train: ArrayLike,
    synthetic: ArrayLike | None = None,
    *,
    memorised_below: float,
    spurious_below: float,
    chunk: int | None = None,
) -> Fractions:
    """Fractions of memorised, spurious and generalised samples, eq. (1).

    Args:
        samples: generated, ``(M, d)``.
        train: the training set, ``(n, d)``.
        synthetic: other samples of the same model, ``(M', d)``. None, or ``samples`` itself:
            the samples are compared with each other, each without itself (by index: an equal
            sample elsewhere in the set counts).
        memorised_below: largest ``d_tr`` of a memorised sample; see `calibrate`.
        spurious_below: largest ``d_syn`` of a spurious sample.
        chunk: points per block of the distance computation (static).

    Raises:
        ValueError: if a set is empty, not ``(n, d)`` or not finite; if dimensions differ; if a
            threshold is not positive.

    References:
        Pham et al. 2025 (2505.21777).
    """
    alone = synthetic is None or synthetic is samples
    checks.positive(memorised_below, "memorised_below")
    checks.positive(spurious_below, "spurious_below")
    samples = point_set(samples, "samples")
    others = samples if alone else point_set(synthetic, "synthetic")  # type: ignore[arg-type]
    same_dimension(samples, others, "samples", "synthetic")
    near = nearest_distances(samples, train, count=1, chunk=chunk)
    repeats = nearest_distances(samples, others, count=1, exclude_own=alone, chunk=chunk)
    return _classify(
        near.distances[:, 0],
        repeats.distances[:, 0],
        near.indices[:, 0],
        memorised_below,
        spurious_below,
    )


def classify(
    train_distance: ArrayLike,
    synthetic_distance: ArrayLike,
    *,
    memorised_below: float,
    spurious_below: float,
) -> Fractions:
    """The same from known distances, for a sweep of the thresholds.

    Args:
        train_distance: ``d_tr``, ``(M,)``.
        synthetic_distance: ``d_syn``, ``(M,)``.
        memorised_below: as in `fractions`.
        spurious_below: as in `fractions`.

    Raises:
        ValueError: if the shapes differ or are not ``(M,)``, a distance is NaN, or a threshold
            is not positive.
    """
    checks.positive(memorised_below, "memorised_below")
    checks.positive(spurious_below, "spurious_below")
    near, repeats = jnp.asarray(train_distance), jnp.asarray(synthetic_distance)
    if near.ndim != 1 or near.shape != repeats.shape or near.size == 0:
        raise ValueError(f"distances have shapes {near.shape}, {repeats.shape}, expected one (M,)")
    if checks.is_concrete(near, repeats) and bool(
        np.isnan(np.asarray(near) + np.asarray(repeats)).any()
    ):
        raise ValueError("distances hold NaN; compute them with nearest_distances")
    index = jnp.full(near.shape, -1, jnp.int32)
    return _classify(near, repeats, index, memorised_below, spurious_below)


def calibrate(
    held_out: ArrayLike,
    train: ArrayLike,
    *,
    size: int | None = None,
    quantile: float = 0.01,
    chunk: int | None = None,
) -> Thresholds:
    """Thresholds at which held-out real data would be taken for memorised or spurious.

    Args:
        held_out: real data that the model has not seen, in random order, ``(N, d)``.
        train: the largest training set, ``(n, d)``.
        size: number M of samples that will be judged: nearest distances shrink with M, so
            ``spurious_below`` is taken within the first M held-out points. All by default.
        quantile: fraction of held-out data below each threshold.
        chunk: points per block of the distance computation (static).

    Raises:
        ValueError: if a set is empty, not ``(n, d)`` or not finite; if there are fewer held-out
            points than ``size``, or than two; if ``quantile`` is not between 0 and 1; if a
            threshold is 0 because the data hold duplicates.

    References:
        Pham et al. 2025 (2505.21777), for the thresholds.
    """
    if not 0 < quantile < 1:
        raise ValueError(f"quantile must be between 0 and 1, but is {quantile!r}")
    held_out = point_set(held_out, "held_out")
    size = len(held_out) if size is None else checks.count(size, "size")
    if not 2 <= size <= len(held_out):
        raise ValueError(
            f"size is {size}, expected 2 to {len(held_out)}, the number of held-out points; "
            "judge fewer samples or hold out more data"
        )
    own = held_out[:size]
    distances = (
        nearest_distances(held_out, train, count=1, chunk=chunk).distances,
        nearest_distances(own, own, count=1, exclude_own=True, chunk=chunk).distances,
    )
    found = Thresholds(*(float(jnp.quantile(d, quantile)) for d in distances))
    if min(found) <= 0:
        raise ValueError(
            f"the {quantile:g} quantile of a distance is 0 ({found}): the data hold duplicates; "
            "remove them"
        )
    return found


def null_curve(
    held_out: ArrayLike,
    train: ArrayLike,
    sizes: ArrayLike,
    memorised_below: float,
    *,
    chunk: int | None = None,
) -> Estimate:
    """Memorised fraction of held-out data for nested training sets, eq. (2).

    Args:
        held_out: real data that the model has not seen, ``(N, d)``.
        train: the largest training set; smaller ones are its first points, ``(n, d)``.
        sizes: numbers of training points, ``(S,)``.
        memorised_below: the threshold ``delta_m``.
        chunk: points per block of the distance computation (static).

    Returns:
        Fractions and binomial standard errors, ``(S,)``. All sizes share one held-out set.

    Raises:
        ValueError: if a set is empty, not ``(n, d)`` or not finite; if a size is not within
            1 to n; if the threshold is not positive.
    """
    checks.positive(memorised_below, "memorised_below")
    held_out, train = point_set(held_out, "held_out"), point_set(train, "train")
    sizes = np.atleast_1d(np.asarray(sizes))
    if sizes.ndim != 1 or np.any(sizes != np.round(sizes)) or sizes.min() < 1:
        raise ValueError(f"sizes must be integers >= 1 of shape (S,), but are {sizes}")
    if sizes.max() > len(train):
        raise ValueError(f"sizes go up to {sizes.max()}, but there are {len(train)} points")
    order = np.argsort(sizes, kind="stable")
    nearest, start, rows = jnp.full(len(held_out), jnp.inf), 0, {}
    for place in order:  # every training point is visited once
        stop = int(sizes[place])
        if stop > start:
            part = nearest_distances(held_out, train[start:stop], count=1, chunk=chunk)
            nearest, start = jnp.minimum(nearest, part.distances[:, 0]), stop
        rows[place] = nearest <= memorised_below
    hits = jnp.stack([rows[place] for place in range(len(sizes))], 1)
    mean = jnp.mean(hits.astype(jnp.result_type(float)), axis=0)
    return Estimate(mean, _binomial_error(mean, len(held_out)))


def gap_ratio(
    samples: ArrayLike, train: ArrayLike, *, below: float = COPY_RATIO, chunk: int | None = None
) -> GapRatio:
    """Nearest over second nearest distance to the training set, and the fraction of copies; (3).

    Args:
        samples: generated, ``(M, d)``.
        train: the training set, ``(n, d)``, n >= 2.
        below: ratio below which a sample counts as memorised.
        chunk: points per block of the distance computation (static).

    Raises:
        ValueError: if a set is empty, not ``(n, d)`` or not finite; if dimensions differ; if
            there is one training point only; if ``below`` is not positive.

    References:
        Bonnaire, Urfin, Biroli, Mezard 2025 (2505.17638); Yoon et al. 2023.
    """
    checks.positive(below, "below")
    if np.shape(train)[:1] == (1,):
        raise ValueError("gap_ratio needs n >= 2 training points: it compares two of them")
    first, second = nearest_distances(samples, train, count=2, chunk=chunk).distances.T
    ratio = jnp.where(first > 0, first / jnp.where(first > 0, second, 1), 0)
    return GapRatio(ratio, mean_and_error((ratio < below).astype(ratio.dtype)))


def critical_sizes(
    key: Array, sizes: ArrayLike, labels: ArrayLike, *, resamples: int = 400
) -> CriticalSizes:
    """Training-set sizes ``n_m``, ``n_s``, ``n_g`` between the phases, eq. (4).

    Crossings are interpolated linearly in ``log n``; the largest spurious fraction is the vertex
    of the parabola through the three points around it (the grid point itself at an end).
    The bootstrap draws seeds, and samples within each of them, with replacement, the same ones at
    every size: samples of one initial noise stay together.

    Args:
        key: typed PRNG key of the bootstrap.
        sizes: increasing, ``(N,)``, N >= 3.
        labels: of `fractions` at every size, ``(N, M)``, or ``(N, seeds, M)``.
        resamples: number of bootstrap samples (static).

    Raises:
        ValueError: if shapes do not fit, sizes do not increase, or a label is unknown.

    References:
        Pham et al. 2025 (2505.21777).
    """
    sizes, labels = jnp.asarray(sizes, jnp.result_type(float)), jnp.asarray(labels)
    labels = labels[:, None] if labels.ndim == 2 else labels
    if labels.ndim != 3 or sizes.shape != labels.shape[:1] or len(sizes) < 3 or 0 in labels.shape:
        raise ValueError(
            f"sizes and labels have shapes {sizes.shape}, {labels.shape}, expected (N,) and "
            "(N, seeds, M) or (N, M) with N >= 3"
        )
    if bool(jnp.any(jnp.diff(sizes) <= 0)) or not float(sizes[0]) > 0:
        raise ValueError(f"sizes must be positive and increase, but are {np.asarray(sizes)}")
    if not bool(jnp.isin(labels, jnp.arange(3)).all()):
        raise ValueError("labels must be 0 (memorised), 1 (spurious) or 2 (generalised)")
    value, draws = _bootstrap(key, jnp.log(sizes), labels, checks.count(resamples, "resamples"))
    exists = np.isfinite(draws)
    spread = [np.std(d[e]) if e.any() else np.nan for d, e in zip(draws.T, exists.T)]
    return CriticalSizes(jnp.exp(value), jnp.asarray(spread), jnp.asarray(exists.mean(0)))


@jax.jit
def _classify(near, repeats, index, memorised_below, spurious_below) -> Fractions:
    outside = jnp.where(repeats <= spurious_below, SPURIOUS, GENERALISED)
    labels = jnp.where(near <= memorised_below, MEMORISED, outside)
    counted = labels[:, None] == jnp.arange(3)
    kind = jnp.promote_types(near.dtype, jnp.float32)
    mean = jnp.mean(counted.astype(kind), axis=0)
    error = _binomial_error(mean, labels.size)
    return Fractions(mean[0], mean[1], mean[2], error, labels, near, index, repeats)


def _binomial_error(mean: Array, n: int) -> Array:
    return jnp.sqrt(mean * (1 - mean) / n)


@partial(jax.jit, static_argnames="resamples")
def _bootstrap(key: Array, log_n: Array, labels: Array, resamples: int) -> tuple[Array, Array]:
    """Logarithms of the critical sizes ``(3,)``, and of resampled data ``(resamples, 3)``."""
    _, seeds, size = labels.shape
    kinds = jnp.arange(3, dtype=labels.dtype)

    def of_labels(labels: Array) -> Array:
        seen = labels[..., None] == kinds
        return _log_sizes(log_n, jnp.mean(seen.astype(log_n.dtype), axis=(1, 2)))

    def draw(key: Array) -> Array:
        key_seed, key_sample = jax.random.split(key)
        seed = jax.random.randint(key_seed, (seeds,), 0, seeds)
        sample = jax.random.randint(key_sample, (seeds, size), 0, size)
        return of_labels(labels[:, seed[:, None], sample])

    return of_labels(labels), jax.lax.map(draw, jax.random.split(key, resamples))


def _log_sizes(log_n: Array, curves: Array) -> Array:
    """``log`` of ``n_m``, ``n_s``, ``n_g`` of fractions ``(N, 3)``."""
    falling = _last_rise(log_n, -curves[:, MEMORISED], -0.5)
    rising = _last_rise(log_n, curves[:, GENERALISED], 0.5)
    return jnp.stack([falling, _peak(log_n, curves[:, SPURIOUS]), rising])


def _last_rise(x: Array, y: Array, level: float) -> Array:
    """Where ``y`` rises through ``level`` and stays above it; NaN if it does not."""
    above = y >= level
    rise = ~above[:-1] & above[1:]
    i = rise.size - 1 - jnp.argmax(rise[::-1])
    share = (level - y[i]) / jnp.where(rise[i], y[i + 1] - y[i], 1)
    stays = rise.any() & above[-1]
    return jnp.where(stays, x[i] + share * (x[i + 1] - x[i]), jnp.nan)


def _peak(x: Array, y: Array) -> Array:
    """Vertex of the parabola through the largest value and its neighbours; NaN if all are 0."""
    i = jnp.argmax(y)
    inside = jnp.clip(i, 1, y.size - 2)
    (x0, x1, x2), (y0, y1, y2) = ([v[inside + k] for k in (-1, 0, 1)] for v in (x, y))
    left, right = (y1 - y0) / (x1 - x0), (y2 - y1) / (x2 - x1)
    bend = (right - left) / (x2 - x0)
    vertex = 0.5 * (x0 + x1) - left / (2 * jnp.where(bend < 0, bend, 1))
    vertex = jnp.where((i == inside) & (bend < 0), jnp.clip(vertex, x0, x2), x[i])
    return jnp.where(y[i] > 0, vertex, jnp.nan)
