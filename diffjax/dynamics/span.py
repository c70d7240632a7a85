r"""Exact trajectories of a point cloud in the span of its points.

With the mean ``c`` of the points and an orthonormal basis ``B (r, d)`` of the span of the
centred points, split a state as ``x = scale c + B^T y + x_perp``. The posterior weights depend
on ``y`` only, so ``y`` follows the r-dimensional empirical process of ``B (a_mu - c)``, and
``x_perp`` follows the same bridge with ``a_perp = 0``, which composes over all steps into one
Gaussian jump. The law at the end of the grid is the one of the full simulation, for any start.

References:
    Biroli, Bonnaire, de Bortoli, Mezard 2024 (2402.18491) for the empirical process.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from diffjax import processes
from diffjax.data.base import per_event
from diffjax.data.point_cloud import PointCloud
from diffjax.diffusion import Diffusion
from diffjax.noise import normal
from diffjax.posterior_sums import point_blocks
from diffjax.processes import Process


def worth_reducing(cloud: PointCloud) -> bool:
    """Whether the span of the points is smaller than the space: ``n < d``."""
    return cloud.blocks.size < cloud.dim


def span_basis(points: Array) -> tuple[Array, Array, Array]:
    """Mean, orthonormal basis and coordinates of points in their own span.

    Args:
        points: ``(n, d)`` with n <= d.

    Returns:
        The mean ``(d,)``, a basis ``(n, d)`` whose rows contain the span of the centred points
        (rank deficiency only adds rows that no point uses), and coordinates ``(n, n)``.
    """
    centre = jnp.mean(points, axis=0)
    basis, triangular = jnp.linalg.qr((points - centre).T)
    return centre, basis.T, triangular.T


class Frame(NamedTuple):
    """What is left of full states beside their coordinates in the span."""

    centre: Array  # (d,)
    basis: Array  # (n, d)
    x_perp: Array  # (..., d)


@jax.jit
def into_span(model: Diffusion, x: Array, t: Array) -> tuple[Diffusion, Array, Frame]:
    """The empirical process in the span, the coordinates ``y`` of ``x`` at ``t``, and the rest."""
    cloud, process = model.data, model.process
    centre, basis, coordinates = span_basis(cloud.points)
    blocks = point_blocks(coordinates, cloud.log_weights)
    reduced = Diffusion(replace(cloud, points=coordinates, blocks=blocks), process)
    offset = x - per_event(process.scale(t), x) * centre
    y = jnp.matmul(offset, basis.T, precision="highest")
    x_perp = offset - jnp.matmul(y, basis, precision="highest")
    return reduced, y, Frame(centre, basis, x_perp)


@jax.jit
def out_of_span(
    key: Array, process: Process, y: Array, frame: Frame, start: Array, end: Array
) -> Array:
    """Full states at ``end`` of trajectories that began at ``start``: ``x_perp`` jumps at once."""
    basis, x = frame.basis, frame.x_perp
    _, c_x, variance = processes.bridge(process, end, start)
    noise = normal(key, x.shape, x.dtype)
    inside = jnp.matmul(jnp.matmul(noise, basis.T, precision="highest"), basis, precision="highest")
    x_perp = per_event(c_x, x) * x + per_event(jnp.sqrt(variance), x) * (noise - inside)
    within = jnp.matmul(y, basis, precision="highest")
    return per_event(process.scale(end), x) * frame.centre + (within + x_perp)
