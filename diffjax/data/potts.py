r"""The mean-field Potts magnet as a data distribution, exact at every size.

    P0(a) = exp(beta sum_c N_c^2 / 2d + sum_c h_c N_c) / Z,                                (1)

where every one of d sites has one of q colours and ``N_c`` sites have colour c. A site is stored
one-hot, an event is ``(d q,)`` with the site as the slow index. For ``q >= 3`` the transition at
``beta_c = 2 (q - 1) log(q - 1) / (q - 2)`` is of first order.

The q vectors of a site, less their mean, are the corners ``s_c`` of a simplex in q - 1
dimensions; with a field v in that space

    exp(beta |sum_i s_i|^2 / 2d) ~ int dv exp(-d beta |v|^2 / 2 + beta v . sum_i s_i),     (2)

so that the sites are independent given v. The integral is a sum over a cubic grid with the
spacing ``0.7 / sqrt(d beta)`` that covers the simplex with a margin; as for `curie_weiss` every
probability is right to round-off. The grid has of the order of ``(d beta)^{(q-1)/2}`` points.

References:
    Wu 1982 (Rev. Mod. Phys. 54, 235); Biroli, Mezard 2023 (2306.03518), for the method.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from diffjax import checks
from diffjax.data.curie_weiss import TAIL, field_axis
from diffjax.data.product_mixture import ProductMixture, product_mixture

MOST_POINTS = 2**18


def potts(
    dim: int, colours: int, beta: float, field: ArrayLike = 0.0, *, dtype: jnp.dtype | None = None
) -> ProductMixture:
    """Mean-field Potts magnet ``P0 ~ exp(beta sum_c N_c^2 / 2d + sum_c h_c N_c)``.

    Two colours are a `curie_weiss` magnet with ``beta / 2``.

    Args:
        dim: number of sites d; events have ``d q`` entries.
        colours: q = 2, 3 or 4.
        beta: coupling >= 0.
        field: ``h_c`` per site for each colour, ``(q,)`` or 0.
        dtype: of the tables and of clean samples; the default float if None. Answers have the
            dtype of the states.

    Raises:
        ValueError: if a number is out of range, or the grid would have more than 2^18 points.

    References:
        Wu 1982 (Rev. Mod. Phys. 54, 235).
    """
    dim, colours = checks.count(dim, "dim"), checks.count(colours, "colours")
    beta = checks.number(beta, "beta")
    if colours not in {2, 3, 4}:
        raise ValueError(
            f"colours must be 2, 3 or 4, but is {colours}: the grid of v has q - 1 axes"
        )
    if beta < 0:
        raise ValueError(f"beta must be >= 0 (ferromagnetic), but is {beta!r}")
    h = np.asarray(checks.floating(field, "field"), np.float64)
    if h.shape not in {(), (colours,)}:
        raise ValueError(f"field has shape {h.shape}, expected ({colours},), one for each colour")
    corners = _corners(colours)
    xi = _grid(corners, np.sqrt(dim * beta))
    logits = np.sqrt(beta / dim) * xi @ corners.T + h
    log_site = np.logaddexp.reduce(logits, axis=1)
    log_w = -0.5 * np.sum(xi**2, axis=1) + dim * log_site
    return product_mixture(log_w, logits, np.eye(colours), dim, dtype)


def colour_counts(a: Array, colours: int) -> Array:
    """Number of sites of each colour, ``N_c``, of events ``(..., d q)``: ``(..., q)``."""
    return jnp.sum(a.reshape(*a.shape[:-1], -1, colours), axis=-2)


def order_parameter(a: Array, colours: int) -> Array:
    """``(q max_c N_c / d - 1) / (q - 1)``: 1 for one colour, 0 for equal counts; ``(...)``."""
    share = jnp.max(colour_counts(a, colours), axis=-1) / (a.shape[-1] // colours)
    return (colours * share - 1) / (colours - 1)


def _corners(colours: int) -> np.ndarray:
    """The q one-hot vectors in an orthonormal basis of the space across (1, ..., 1)."""
    steps = np.tril(np.ones((colours - 1, colours)))
    rows = np.arange(1, colours)
    steps[rows - 1, rows] = -rows
    return (steps / np.sqrt(rows * (rows + 1))[:, None]).T


def _grid(corners: np.ndarray, root: float) -> np.ndarray:
    """Grid points, in units of the standard deviation, within the margin of the simplex.

    A point of the space has the share ``1/q + s_c . v`` of colour c; the simplex is where all
    shares are >= 0, at the distance share / |s_c| from the face opposite to c.
    """
    colours = len(corners)
    length = np.sqrt((colours - 1) / colours)
    axis = field_axis(root * length)
    if len(axis) ** (colours - 1) > 16 * MOST_POINTS:
        raise ValueError(
            f"the grid of v has more than {MOST_POINTS} points for {colours} colours; take a "
            "smaller dim"
        )
    points = np.stack(np.meshgrid(*[axis] * (colours - 1)), axis=-1).reshape(-1, colours - 1)
    distance = (root / colours + points @ corners.T) / length
    outside = np.maximum(-distance.min(axis=1), np.linalg.norm(points, axis=1) - root * length)
    needed = int(np.sum(outside <= TAIL))
    # rounded up, so that neighbouring couplings share a compilation
    step = max(1, 2 ** (needed.bit_length() - 4))
    kept = points[np.argsort(outside, kind="stable")[: -(-needed // step) * step]]
    if len(kept) > MOST_POINTS:
        raise ValueError(
            f"the grid of v has {len(kept)} points for {colours} colours, more than {MOST_POINTS}; "
            "take a smaller dim"
        )
    return kept
